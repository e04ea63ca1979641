"""The starter's atlas: its sheet shows the heads of its latents, and sentences find their directions among them."""

from __future__ import annotations

import json

import pytest
import torch
from facednerf_starter.plugin import FOLDER
from facednerf_starter.train.mapping import Design
from facednerf_starter.world.attributes import VECTOR

from facednerf_core.atlas import heading
from facednerf_core.interfaces import Generator
from facednerf_core.plugins import installed
from facednerf_core.scene import Atlas
from facednerf_core.weights import Registry

CPU = torch.device("cpu")
SHOWN = (0, 40, 255)


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
    assert known.latents.shape == (256, 256)
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
    ("sentence", "attribute"), [("a person with glasses", "glasses=yes"), ("a bearded man", "beard=beard")]
)
def test_a_sentence_finds_its_direction_among_some_heads(sentence: str, attribute: str) -> None:
    """W is designed, and so tells which attribute lies where."""
    shelves = installed()
    registry = Registry(shelves.weights)
    card = shelves.guidances["sds"]
    local = registry.local(registry["sds/starter"])
    guidance = card.build(CPU, local, **card.checked(local.card.options))
    whole = built("eg3d").atlas()
    assert whole is not None
    known = Atlas(whole.latents[:96], whole.pictures[:96])
    scores = guidance.score(known.pictures, sentence, source_prompt="a person")
    assert scores is not None
    found = heading(known, scores)
    assert found is not None
    seed = json.loads((FOLDER / "generator.card.json").read_text("utf-8"))["settings"]["seed"]
    along = found.direction @ Design(len(found.direction), seed, CPU).lift
    assert VECTOR[int(along[: len(VECTOR)].argmax())] == attribute
