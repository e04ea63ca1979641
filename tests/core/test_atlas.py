"""Atlases: drawn, kept as a sheet, and read for the direction of a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from facednerf_core import atlas
from facednerf_core.errors import InputError
from facednerf_core.scene import Atlas
from tests.toy import ToyGenerator


def heads(count: int = 200, dimensions: int = 24) -> Atlas:
    latents = 0.3 + torch.randn(count, dimensions, generator=torch.Generator().manual_seed(0))
    return Atlas(latents, torch.zeros(count, 3, 2, 2))


def wearing(latents: torch.Tensor) -> torch.Tensor:
    """1 where two dimensions together are beyond a threshold: a step, whose gradient is nothing."""
    return (latents[:, 3] - latents[:, 7] > 1.0).float()


def test_the_direction_of_a_step_is_found_though_scores_are_noisy() -> None:
    known = heads()
    scores = wearing(known.latents) + 0.3 * torch.randn(200, generator=torch.Generator().manual_seed(1))
    found = atlas.heading(known, scores)
    assert found is not None
    truth = torch.zeros(24)
    truth[3], truth[7] = 0.5**0.5, -(0.5**0.5)
    assert found.direction.norm().item() == pytest.approx(1.0, abs=1e-5)
    assert float(found.direction @ truth) > 0.85
    bare = torch.zeros(5, 4, 24)
    assert wearing(bare[:, 0]).sum() == 0
    assert wearing(found.reached(bare)[:, 0]).sum() == 5


def test_nobody_is_brought_back_and_rows_move_together() -> None:
    found = atlas.Heading(torch.tensor([0.0, 1.0, 0.0]), 2.0)
    w = torch.tensor([[[1.0, 0.0, 3.0], [1.0, 1.0, 3.0]], [[0.0, 5.0, 0.0], [0.0, 4.0, 0.0]]])
    moved = found.reached(w)
    assert torch.equal(moved[0], w[0] + torch.tensor([0.0, 1.5, 0.0]))
    assert torch.equal(moved[1], w[1])


def test_scores_that_tell_nothing_give_no_direction() -> None:
    assert atlas.heading(heads(), torch.ones(200)) is None


def test_each_head_wants_a_score() -> None:
    with pytest.raises(ValueError, match="as many scores"):
        atlas.heading(heads(), torch.ones(3))


def test_a_sheet_comes_back_with_its_latents(tmp_path: Path) -> None:
    generator = ToyGenerator()
    drawn = atlas.draw(generator, 32)
    path = tmp_path / "atlas.jpg"
    atlas.save(drawn.pictures, path)
    again = atlas.load(path, ToyGenerator())
    assert torch.equal(again.latents, drawn.latents)
    assert len({tuple(row.tolist()) for row in drawn.latents}) == 32
    assert again.pictures.shape == drawn.pictures.shape
    one = generator.render(
        generator.synthesize(generator.mean().with_w(drawn.latents[17].expand(1, 2, 5))),
        generator.orbit.view((0.0, 0.0)),
        jitter=None,
    )
    assert torch.equal(drawn.pictures[17], one.image[0, 0].clamp(-1, 1))


def test_tiles_keep_their_places(tmp_path: Path) -> None:
    pictures = torch.linspace(-0.9, 0.9, 32)[:, None, None, None] * torch.tensor([1.0, 0.5, -1.0])[:, None, None].expand(
        32, 3, 16, 16
    )
    atlas.save(pictures, tmp_path / "atlas.jpg")
    again = atlas.load(tmp_path / "atlas.jpg", ToyGenerator())
    assert torch.allclose(again.pictures.mean((2, 3)), pictures.mean((2, 3)), atol=0.1)


def test_another_picture_is_no_atlas(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="multiple of 16"):
        atlas.save(torch.zeros(5, 3, 4, 4), tmp_path / "no.jpg")
    Image.new("RGB", (100, 40)).save(tmp_path / "photo.jpg")
    with pytest.raises(InputError, match="is no atlas"):
        atlas.load(tmp_path / "photo.jpg", ToyGenerator())
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(InputError, match="cannot be read"):
        atlas.load(tmp_path / "text.jpg", ToyGenerator())
