"""`--backbone eva3d` from photo to film, with a small random body: pictures twice as high as wide, and no face to find."""

from __future__ import annotations

import json
from dataclasses import asdict
from types import SimpleNamespace

import av
import facednerf_eva3d.plugin
import facednerf_inverters.plugin
import facednerf_starter.plugin as starter
import numpy as np
import pytest
from facednerf_eva3d.orbit import BodyOrbit
from PIL import Image
from safetensors.torch import save_file

from facednerf_core import plans, plugins, runs
from facednerf_core.cards import Card, WeightsCard
from facednerf_core.hookspecs import hookimpl
from facednerf_core.plugins import Shelves
from facednerf_core.recipe import Recipe
from tests.plugins.test_eva3d_generator import SMALL, small_network


@hookimpl
def register_detectors(register):
    nobody = SimpleNamespace(find=lambda photo: [])
    register(Card("nobody", "Finds no face.", lambda device, weights: nobody, needs_weights=False))


@pytest.fixture(scope="module")
def shelves(tmp_path_factory: pytest.TempPathFactory) -> Shelves:
    folder = tmp_path_factory.mktemp("weights")
    save_file(small_network().state_dict(), folder / "eva3d.safetensors")
    (folder / "eva3d.json").write_text(json.dumps(SMALL))
    found = Shelves(
        eva3d=facednerf_eva3d.plugin,
        inverters=facednerf_inverters.plugin,
        starter=starter,
        nobody=SimpleNamespace(register_detectors=register_detectors),
    )
    assert not found.broken
    published = found.weights["eva3d/deepfashion"]
    found.weights["eva3d/small"] = WeightsCard(
        "eva3d/small",
        "eva3d",
        "generator",
        "starter",
        "A small random body.",
        domains=published.domains,
        files=published.files,
        folder=folder,
        resolution=32,
        provides=published.provides,
        orbit=published.orbit,
        background=published.background,
    )
    return found


def test_the_published_cards_speak_of_the_pictures_that_are_drawn(shelves: Shelves) -> None:
    for name in ("deepfashion", "shhq", "ubcfashion", "aist"):
        card = shelves.weights[f"eva3d/{name}"]
        assert plans.frame(card) == (512, 256)
        assert asdict(plans.orbit(card)) == asdict(BodyOrbit())


def test_an_inversion_leaves_a_run_of_tall_pictures(shelves: Shelves, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(plugins, "installed", lambda: shelves)
    picture = np.full((400, 300, 3), 210, np.uint8)
    picture[80:360, 110:190] = (90, 60, 50)
    Image.fromarray(picture).save(tmp_path / "photo.png")
    recipe = Recipe(
        task="invert",
        photo=str(tmp_path / "photo.png"),
        backbone="eva3d",
        detector="nobody",
        identity="none",
        crop=(150.0, 220.0, 320.0),
        camera=(0.1, 0.0),
        steps={"invert": 2, "refine": 1, "tune": 2},
        frames=3,
        size=16,
        device="cpu",
    )
    prepared = runs.prepare(recipe, shelves=shelves)
    assert prepared.portrait.image.shape == (1, 1, 3, *prepared.built.generator.size)
    assert asdict(prepared.built.generator.orbit) == asdict(plans.orbit(prepared.plan.scene))
    run = runs.execute(recipe, out=tmp_path / "run")
    assert run.manifest["status"] == "finished"
    assert run.picture("before").size == run.picture("inverted").size == (16, 32)
    with av.open(str(run.folder / "turntable.mp4")) as film:
        assert [(frame.height, frame.width) for frame in film.decode(video=0)] == [(512, 256)] * 3
