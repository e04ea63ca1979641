"""The starter's atlas: its sheet shows the heads of its latents, and sentences find their axes by them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from facednerf_eg3d import axesfile
from facednerf_eg3d.generator import Eg3d
from facednerf_eg3d.mapping import TIED
from facednerf_starter.plugin import FOLDER
from facednerf_starter.train.generator import keep_axes
from facednerf_starter.train.mapping import Design
from facednerf_starter.world.attributes import VECTOR, Z_DIM

from facednerf_core.atlas import heading
from facednerf_core.compute import rng
from facednerf_core.interfaces import Generator
from facednerf_core.plugins import installed
from facednerf_core.scene import Atlas
from facednerf_core.weights import Registry

CPU = torch.device("cpu")
SHOWN = (0, 40, 127)


def built(backbone: str, **options: object) -> Generator:
    shelves = installed()
    registry = Registry(shelves.weights)
    card = shelves.generators[backbone]
    return card.build(CPU, registry.local(registry[f"{backbone}/starter"]), **card.checked(options))


@pytest.mark.parametrize("backbone", ["eg3d", "panohead"])
def test_the_sheet_shows_the_heads_of_its_latents(backbone: str) -> None:
    generator = built(backbone)
    known = generator.atlas()
    assert known is not None
    assert known.latents.shape == (128, 256)
    assert generator.tuned(dict(generator.tunable())).atlas() is not None
    mean = generator.mean()
    view = generator.orbit.view((0.0, 0.0))
    with torch.no_grad():
        for number in SHOWN:
            scene = generator.synthesize(mean.with_w(known.latents[number].expand_as(mean.w)))
            drawn = generator.render(scene, view, jitter=None).image[0, 0]
            apart = (known.pictures - drawn).square().flatten(1).mean(1)
            assert int(apart.argmin()) == number
            assert float(apart[number]) < (0.01 if backbone == "eg3d" else 0.06)


@pytest.mark.parametrize("backbone", ["eg3d", "panohead"])
def test_there_is_none_without_the_option(backbone: str) -> None:
    assert built(backbone, atlas=False).atlas() is None


@pytest.mark.parametrize(
    ("sentence", "attribute"),
    [
        ("a person with glasses", "glasses=yes"),
        ("a bearded man", "beard=beard"),
        ("a person wearing a hat", "hat=yes"),
    ],
)
def test_a_sentence_finds_its_axis_by_some_heads(sentence: str, attribute: str) -> None:
    """W is designed, and so tells which attribute lies where."""
    shelves = installed()
    registry = Registry(shelves.weights)
    card = shelves.guidances["sds"]
    local = registry.local(registry["sds/starter"])
    guidance = card.build(CPU, local, **card.checked(local.card.options))
    generator = built("eg3d")
    whole = generator.atlas()
    assert whole is not None
    known = Atlas(whole.latents[:96], whole.pictures[:96])
    scores = guidance.score(known.pictures, sentence, source_prompt="a person")
    assert scores is not None
    found = heading(known, scores, generator.axes())
    assert found is not None
    along = (found.axes[0] @ designed().lift)[: len(VECTOR)]
    assert VECTOR[int(along.argmax())] == attribute
    assert VECTOR[int(along.abs().argmax())].split("=")[0] == attribute.split("=")[0]  # having none may say as much


def designed() -> Design:
    seed = json.loads((FOLDER / "generator.card.json").read_text("utf-8"))["settings"]["seed"]
    return Design(256, seed, CPU)


def test_the_axes_are_those_that_the_recipe_writes(tmp_path: Path) -> None:
    keep_axes(tmp_path, designed())
    shipped, written = (axesfile.read(folder / "axes.safetensors", 256) for folder in (FOLDER, tmp_path))
    torch.testing.assert_close(shipped, written, atol=1e-4, rtol=0)
    torch.testing.assert_close(written, designed().lift.T, atol=1e-3, rtol=0)
    keep_axes(tmp_path / "narrow", Design(32, 1, CPU))
    assert not (tmp_path / "narrow").exists(), "a W without room for them has none"


@pytest.mark.parametrize("backbone", ["eg3d", "panohead"])
@torch.no_grad()
def test_its_first_axes_are_those_of_the_file_with_what_goes_with_them(backbone: str) -> None:
    generator = built(backbone)
    assert isinstance(generator, Eg3d)
    known = axesfile.read(FOLDER / "axes.safetensors", 256)
    assert known.shape == (158, 256)
    drawn = generator.axes()
    assert drawn.shape == (256, 256)
    z = torch.randn(40_000, Z_DIM, generator=rng(0, "axes"))
    covariance = torch.cov(generator.network.backbone.mapping.row(z, generator.orbit.camera().expand(len(z), -1)).T)
    along = known @ covariance @ known.T
    correlation = along / along.diagonal().outer(along.diagonal()).sqrt()
    images = (along * (correlation.abs() >= TIED)) @ known
    sure = ((correlation.abs() - TIED).abs() > 0.03).all(1)  # of the others, draws decide what goes with them
    assert int(sure.sum()) > 140
    assert torch.cosine_similarity(drawn[:158], images)[sure].min() > 0.99
    lengths = images.norm(dim=1).clamp_max(2 * covariance.diagonal().mean()).sqrt()
    torch.testing.assert_close(drawn[:158].norm(dim=1)[sure], lengths[sure], rtol=0.05, atol=0)


@pytest.mark.parametrize("backbone", ["eg3d", "panohead"])
def test_what_never_changes_alone_lies_along_one_axis(backbone: str) -> None:
    drawn = built(backbone).axes()
    hat = [VECTOR.index(name) for name in ("hat=no", "hat=yes")]
    assert torch.cosine_similarity(drawn[hat[0]], drawn[hat[1]], dim=0) < -0.9
