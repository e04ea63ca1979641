"""The starter's atlas: its sheet shows the heads of its latents, and sentences find their directions among them."""

from __future__ import annotations

import pytest
import torch

from facednerf_core.interfaces import Generator
from facednerf_core.plugins import installed
from facednerf_core.views import View
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
    view = View(generator.orbit.camera()[None, None])
    with torch.no_grad():
        for number in SHOWN:
            scene = generator.synthesize(mean.with_w(known.latents[number].expand_as(mean.w)))
            drawn = generator.render(scene, view, jitter=None).image[0, 0]
            apart = (known.pictures - drawn).square().flatten(1).mean(1)
            assert int(apart.argmin()) == number
            assert float(apart[number]) < (0.01 if backbone == "eg3d" else 0.06)


def test_there_is_none_without_the_option() -> None:
    assert built("eg3d", atlas=False).atlas() is None
