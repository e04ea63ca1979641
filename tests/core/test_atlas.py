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


def going(axes: list[list[float]], levels: list[float], shares: list[float]) -> atlas.Heading:
    """A heading of heads whose mean is at 0."""
    return atlas.Heading(torch.tensor(axes), torch.tensor(levels), torch.zeros(len(levels)), torch.tensor(shares))


def wearing(latents: torch.Tensor) -> torch.Tensor:
    """1 where two dimensions together are beyond a threshold: a step, whose gradient is nothing."""
    return (latents[:, 3] - latents[:, 7] > 1.0).float()


def test_the_direction_of_a_step_is_found_though_scores_are_noisy() -> None:
    known = heads()
    scores = wearing(known.latents) + 0.3 * torch.randn(200, generator=torch.Generator().manual_seed(1))
    found = atlas.heading(known, scores, torch.eye(24))
    assert found is not None
    assert {(int(axis.abs().argmax()), float(axis.sum())) for axis in found.axes[:2]} == {(3, 1.0), (7, -1.0)}
    assert all(share < 0.5 for share in found.shares[2:])
    along = known.latents @ found.axes.T
    furthest = along.sort(dim=0, descending=True).values[: round(atlas.BEST * 200)].mean(0)
    torch.testing.assert_close(found.middles, along.mean(0))
    torch.testing.assert_close(found.levels, furthest + atlas.BEYOND * (furthest - along.mean(0)))
    bare = torch.zeros(5, 4, 24)
    assert wearing(bare[:, 0]).sum() == 0
    assert wearing(found.reached(bare)[:, 0]).sum() == 5


def test_nobody_is_brought_back_and_rows_move_together() -> None:
    found = going([[0.0, 1.0, 0.0]], [2.0], [1.0])
    w = torch.tensor([[[1.0, 0.0, 3.0], [1.0, 1.0, 3.0]], [[0.0, 5.0, 0.0], [0.0, 4.0, 0.0]]])
    moved = found.reached(w)
    assert torch.equal(moved[0], w[0] + torch.tensor([0.0, 1.5, 0.0]))
    assert torch.equal(moved[1], w[1])


def test_a_head_far_along_one_axis_is_brought_along_the_other_all_the_same() -> None:
    found = going([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], [2.0, 2.0], [1.0, 0.5])
    w = torch.tensor([[[3.0, 0.0, 1.0]], [[0.0, 3.0, 1.0]]])
    assert torch.equal(found.reached(w), torch.tensor([[[3.0, 1.0, 1.0]], [[2.0, 3.0, 1.0]]]))


def test_along_what_tells_less_a_head_goes_further_the_more_it_lacks() -> None:
    found = going([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], [2.0, 2.0], [1.0, 0.25])
    w = torch.tensor([[[0.0, 1.0, 0.0]], [[0.0, -2.0, 0.0]], [[0.0, -9.0, 0.0]]])
    assert found.reached(w)[:, 0, 1].tolist() == [1.25, 0.0, 2.0]  # lacking half, twice and five times the usual


def test_the_ends_of_the_axes_lie_about_the_mean_head_and_share_the_rest() -> None:
    found = going([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], [2.0, 3.0], [1.0, 0.5])
    w = torch.tensor([[[5.0, 1.0, 7.0], [5.0, 1.0, 8.0]]])
    one, other = found.ends(w)
    assert one[0].tolist() == [[2.0, 2.0, 7.0], [2.0, 2.0, 8.0]]
    assert other[0].tolist() == [[-2.0, -1.0, 7.0], [-2.0, -1.0, 8.0]]


def test_axes_that_say_the_same_bring_a_head_no_further_than_one() -> None:
    twice = going([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]], [2.0, 2.0], [1.0, 0.7])
    assert torch.equal(twice.reached(torch.zeros(1, 1, 3)), torch.tensor([[[2.0, 0.0, 0.0]]]))


def test_what_tells_most_comes_first_and_counts_whole() -> None:
    known = heads()
    found = atlas.heading(known, known.latents[:, 3] - 3 * known.latents[:, 7], torch.eye(24))
    assert found is not None
    torch.testing.assert_close(found.axes[:2], torch.stack([-torch.eye(24)[7], torch.eye(24)[3]]))
    assert float(found.shares[0]) == 1
    assert 0.1 < float(found.shares[1]) < 0.4


def test_what_few_have_tells_more_than_what_nearly_all_have() -> None:
    """Scores fall as much with what few heads have as they rise with what few others have; only towards these is it far."""
    known = heads(dimensions=2)
    known.latents[:, 0] = (torch.arange(200) % 40 == 0).float()
    known.latents[:, 1] = (torch.arange(200) % 40 == 1).float()
    found = atlas.heading(known, known.latents[:, 0] - 1.5 * known.latents[:, 1], torch.eye(2))
    assert found is not None
    torch.testing.assert_close(found.axes, torch.tensor([[1.0, 0.0], [0.0, -1.0]]))
    assert found.levels.tolist() == pytest.approx([0.5 + 0.475 * atlas.BEYOND, 0.025 * atlas.BEYOND])
    assert float(found.shares[1]) < 0.3


def test_lengths_of_axes_do_not_matter_and_one_of_no_length_is_left_out() -> None:
    known = heads()
    scores = known.latents[:, 3] - 2 * known.latents[:, 7]
    one = atlas.heading(known, scores, torch.eye(24))
    other = atlas.heading(known, scores, torch.diag(torch.linspace(-0.5, 3.0, 24)))
    none = atlas.heading(known, scores, torch.diag((torch.arange(24) != 7).float()))
    assert one is not None
    assert other is not None
    assert none is not None
    torch.testing.assert_close(other.axes, one.axes)
    torch.testing.assert_close(other.levels, one.levels)
    torch.testing.assert_close(other.shares, one.shares)
    assert not none.axes[:, 7].any()
    assert none.axes[0, 3] == 1


def test_a_direction_lies_along_slanted_axes() -> None:
    """What always goes with an axis is in its row, and so comes along with it."""
    known = heads(dimensions=6)
    axes = torch.eye(6)
    axes[2, 4] = -1.0
    found = atlas.heading(known, known.latents[:, 2] - known.latents[:, 4], axes[[0, 1, 2, 3, 5]])
    assert found is not None
    torch.testing.assert_close(found.axes[0], axes[2] / 2**0.5)


def test_scores_that_tell_nothing_give_no_direction() -> None:
    assert atlas.heading(heads(), torch.ones(200), torch.eye(24)) is None


def test_scores_of_noise_give_no_direction() -> None:
    scores = torch.randn(200, generator=torch.Generator().manual_seed(1))
    assert atlas.heading(heads(), scores, torch.eye(24)) is None


@pytest.mark.parametrize(("errors", "heard"), [(0.98, False), (1.02, True)])
def test_an_axis_is_heard_where_it_beats_chance(errors: float, heard: bool) -> None:
    known = heads(dimensions=1)
    along = known.latents[:, 0].double() - known.latents[:, 0].double().mean()
    other = torch.randn(200, generator=torch.Generator().manual_seed(1), dtype=torch.double)
    other = other - other.mean() - (other @ along) / (along @ along) * along
    correlation = errors * atlas.CHANCE / 200**0.5
    scores = correlation * along / along.norm() + (1 - correlation**2) ** 0.5 * other / other.norm()
    assert (atlas.heading(known, scores, torch.eye(1)) is not None) == heard


def test_each_head_wants_a_score() -> None:
    with pytest.raises(ValueError, match="as many scores"):
        atlas.heading(heads(), torch.ones(3), torch.eye(24))


def test_the_lasso_of_orthonormal_inputs_is_the_soft_threshold() -> None:
    draws = torch.Generator().manual_seed(2)
    inputs = torch.linalg.qr(torch.randn(50, 6, generator=draws, dtype=torch.double)).Q * 50**0.5
    wanted = torch.tensor([1.0, -0.5, 0.21, -0.19, 0.05, 0.0], dtype=torch.double)
    slopes = atlas.lasso(inputs, inputs @ wanted, 0.2)
    torch.testing.assert_close(slopes, torch.tensor([0.8, -0.3, 0.01, 0.0, 0.0, 0.0], dtype=torch.double))


def test_the_lasso_is_at_its_minimum_though_inputs_go_together() -> None:
    draws = torch.Generator().manual_seed(3)
    inputs = torch.randn(120, 30, generator=draws, dtype=torch.double) + 0.5 * torch.randn(120, 1, generator=draws)
    target = inputs[:, :3].sum(1) + torch.randn(120, generator=draws)
    slopes = atlas.lasso(inputs, target, 0.3)
    pull = inputs.T @ (target - inputs @ slopes) / 120  # at most the penalty, and the penalty where a slope is
    used = slopes != 0
    assert 3 <= int(used.sum()) < 30
    assert float(pull.abs().max()) <= 0.3 + 1e-5
    torch.testing.assert_close(pull[used], 0.3 * slopes[used].sign(), atol=1e-5, rtol=0)


def test_the_lasso_leaves_out_axes_of_noise() -> None:
    latents = heads().latents.double()
    inputs = (latents - latents.mean(0)) / latents.std(0, correction=0)
    target = inputs[:, 3] - inputs[:, 7] + torch.randn(200, generator=torch.Generator().manual_seed(4))
    target = (target - target.mean()) / target.std(correction=0)
    slopes = atlas.lasso(inputs, target, atlas.CHANCE / 200**0.5)
    assert slopes.nonzero().flatten().tolist() == [3, 7]
    assert slopes[3] > 0.2
    assert slopes[7] < -0.2


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
