"""The examples run: the scripts, and the distribution of a stranger."""

from __future__ import annotations

import sys
import tomllib
from importlib import import_module, invalidate_caches, util
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from facednerf_core.loop import Problem, State
from facednerf_core.plugins import Shelves, doctor, installed
from facednerf_core.recipe import Recipe
from facednerf_core.runs import prepare
from facednerf_core.terms import Loss, Stage, Term
from facednerf_core.views import Fixed
from tests.toy import ToyGenerator

EXAMPLES = Path(__file__).parent.parent / "examples"
STRANGER = EXAMPLES / "third_party_backbone"
sys.path.insert(0, str(STRANGER))
PROJECT = tomllib.loads((STRANGER / "pyproject.toml").read_text())["project"]


def module(path: Path):
    """A file of the examples as a module, run as if imported."""
    spec = util.spec_from_file_location(f"example_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    found = util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


TestStranger = module(STRANGER / "tests" / "test_blobs.py").TestBlobs  # collected here: the contract of generators


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """The stranger's distribution, installed for this test and its subprocesses as its pyproject says."""
    info = tmp_path / "facednerf_blobs-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PROJECT['name']}\nVersion: 0.1.0\n")
    points = [f"{name} = {target}\n" for name, target in PROJECT["entry-points"]["facednerf"].items()]
    (info / "entry_points.txt").write_text("[facednerf]\n" + "".join(points))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{STRANGER}")
    invalidate_caches()


def test_the_stranger_stands_on_the_shelves_beside_our_own(stranger):
    shelves = installed()
    assert not shelves.broken
    assert shelves.origins["generator", "blobs"].distribution == PROJECT["name"] == "facednerf-blobs"
    assert {"blobs", "eg3d"} <= set(shelves.generators)
    assert shelves.weights["blobs/head"].plugin == "blobs"


def test_the_stranger_is_well_and_imports_no_torch_when_it_is_listed(stranger):
    diagnosis = doctor("blobs")
    assert diagnosis.healthy, diagnosis.reason
    assert diagnosis.cards == ["generator blobs", "weights blobs/head"]
    assert not diagnosis.imports_torch


def test_the_strangers_weights_are_those_that_its_sculpture_makes():
    made = import_module("facednerf_blobs.sculpture").sculpted()
    shipped = load_file(STRANGER / "facednerf_blobs" / "head.safetensors")
    assert made.keys() == shipped.keys()
    assert all(torch.allclose(value, shipped[name], atol=1e-6) for name, value in made.items())
    (card,) = Shelves(blobs=import_module("facednerf_blobs.plugin")).weights.values()
    assert card.latent == shipped["basis"].shape[:2]


def test_the_stranger_inverts_a_photo_beside_the_starters_networks(stranger):
    steps = {"invert": 3, "refine": 1, "tune": 1}
    recipe = Recipe(task="invert", photo=str(EXAMPLES / "astronaut.jpg"), backbone="blobs", steps=steps)
    prepared = prepare(recipe)
    assert prepared.plan.scene.name == "blobs/head"
    assert prepared.plan.pack == "starter"
    found = list(module(EXAMPLES / "loop.py").optimize(prepared.problem))
    assert [step.stage for step in found] == ["invert"] * 3 + ["refine", "tune"]
    assert float(found[-1].state.source.w.abs().max()) > 0
    assert found[-1].state.weights.keys() == {"base", "basis"}


def test_the_loop_is_left_when_it_no_longer_gets_better(capsys):
    def loss(rendering, step):
        return Loss(torch.full((1,), float(max(0, 5 - step.index))) + 0 * rendering.image.sum(dim=(1, 2, 3, 4)))

    generator = ToyGenerator()
    stage = Stage("invert", frozenset({"latent"}), [Term("reconstruction", Fixed(), loss)], 90, {"latent": 0.01})
    problem = Problem(generator, State.begin(generator.mean(), generator.orbit.view((0.0, 0.0))), [stage])
    example = module(EXAMPLES / "loop.py")
    assert example.inverted(SimpleNamespace(problem=problem)) == 0.0
    assert len(capsys.readouterr().out.splitlines()) == 6 + example.PATIENCE


def test_the_short_script_edits_and_saves(tmp_path, monkeypatch, capsys):
    from PIL import Image

    import facednerf_core.runs as runs

    asked = {}

    def edit(photo, prompt, **fields):
        asked.update(fields, photo=photo, prompt=prompt)
        return SimpleNamespace(metrics={"said": ["it changed"]}, after=Image.new("RGB", (4, 4)))

    monkeypatch.setattr(runs, "edit", edit)
    monkeypatch.chdir(tmp_path)
    module(EXAMPLES / "edit.py")
    assert Recipe.from_dict(asked).prompt == "a woman with blue hair"
    assert (EXAMPLES.parent / asked["photo"]).exists()
    assert (tmp_path / "after.png").exists()
    assert capsys.readouterr().out == "it changed\n"


def test_the_photo_is_scikit_images_own():
    import numpy as np
    from PIL import Image
    from skimage.data import astronaut

    ours = np.asarray(Image.open(EXAMPLES / "astronaut.jpg"), np.float32)
    assert ours.shape == astronaut().shape
    assert float(np.abs(ours - astronaut()).mean()) < 3
