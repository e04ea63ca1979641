"""Runs as folders: stopped anywhere and gone on with bit for bit, weakened afterwards, kept from harm."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from safetensors.torch import load_file

from facednerf_core import runs
from facednerf_core.recipe import Recipe
from facednerf_core.runfolder import CHECKPOINT, EVENTS, INVERSION, LOCK, MANIFEST, locked
from facednerf_core.runs import Run
from tests.child import Ended, fdn

STAGES = {"invert": 4, "refine": 3, "tune": 3, "edit": 4}
CONFIG = """
frames = 2
size = 32
save_every = 2
steps = {invert = 4, refine = 3, tune = 3, edit = 4}
[options.eg3d]
rays = 16
coarse = 6
fine = 4
"""
KILLER = """
import os, signal
from facednerf_core.cards import Card
from facednerf_core.events import Saved, Stepped
from facednerf_core.hookspecs import hookimpl

def kill(event):
    place = f"{event.stage} {event.index}" if isinstance(event, Stepped) else ""
    place = f"saved {event.what}" if isinstance(event, Saved) else place
    if place and place == os.environ.get("KILL_AT"):
        os.kill(os.getpid(), signal.SIGKILL)

@hookimpl
def register_observers(register):
    register(Card("killer", "Ends the process.", lambda device, weights: kill, needs_weights=False))
"""
MOODY = """
import os, torch
from facednerf_core.cards import Card
from facednerf_core.hookspecs import hookimpl
from facednerf_core.interfaces import Guidance
from facednerf_core.terms import Loss

class Moody(Guidance):
    def aim(self, prompt, subject, *, source_prompt=None, negative=""):
        def loss(rendering, step):
            value = rendering.image.mean(dim=(1, 2, 3, 4)) * 0.1
            if step.index == 2 and os.environ.get("MOOD") == "nan":
                value = value * float("nan")
            if step.index == 2 and os.environ.get("MOOD") == "memory":
                raise torch.OutOfMemoryError("tried to allocate 20 GiB")
            return Loss(value)
        return loss

@hookimpl
def register_guidances(register):
    register(Card("moody", "Fails on demand.", lambda device, weights: Moody(), needs_weights=False))
"""
Fdn = Callable[..., Ended]


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small photo of one face."""
    from skimage.data import astronaut

    path = tmp_path_factory.mktemp("photos") / "astronaut.png"
    Image.fromarray(astronaut()[:260, 90:350]).save(path)
    return path


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "short.toml"
    path.write_text(CONFIG)
    path.with_name("invert.toml").write_text(CONFIG.replace(", edit = 4", ""))
    return path


@pytest.fixture
def run(tmp_path: Path, config: Path) -> Fdn:
    """fdn in a process of its own; short stages where it edits or inverts."""

    def go(*words: object, **environment: str) -> Ended:
        configs = {"edit": config, "invert": config.with_name("invert.toml")}
        more = ("--config", configs[str(words[0])]) if words[0] in configs else ()
        return fdn([*words, *more], tmp_path / "said", environment)

    return go


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, photo: Path, config: Path) -> Path:
    """A run that nobody interrupted; not to be changed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    words = ["edit", photo, "a woman with blue hair", "--config", config, "--out", folder, "--json"]
    ended = fdn(words, folder.parent / "said")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["status"] == "finished"
    assert ended.err == ""
    return folder


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """The finished run, to be changed: files are replaced, never written into, except for the events."""
    shutil.copytree(whole, tmp_path / "copy", copy_function=lambda old, new: _link(Path(old), Path(new)))
    return tmp_path / "copy"


def _link(old: Path, new: Path) -> None:
    if old.name in (EVENTS, LOCK, MANIFEST):
        shutil.copy(old, new)
    else:
        os.link(old, new)


def events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / EVENTS).read_text().splitlines()]


def steps(logged: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(event["stage"], event["index"]) for event in logged if event["event"] == "Stepped"]


def all_steps() -> list[tuple[str, int]]:
    return [(stage, index) for stage, count in STAGES.items() for index in range(count)]


def assert_equal(one: Path, other: Path) -> None:
    """Latents, tuned tensors, the loop's state and pictures, bit for bit."""
    for name in ("latent", "tuned", "checkpoint", "inversion", "portrait"):
        first, second = load_file(one / f"{name}.safetensors"), load_file(other / f"{name}.safetensors")
        assert first.keys() == second.keys()
        for key, value in first.items():
            assert value.dtype == second[key].dtype
            assert value.numpy().tobytes() == second[key].numpy().tobytes(), f"{name}: {key}"
    pictures = sorted(path.name for path in one.glob("*.png"))
    assert pictures == sorted(path.name for path in other.glob("*.png"))
    assert len(pictures) == 5
    for name in pictures:
        assert Image.open(one / name).tobytes() == Image.open(other / name).tobytes(), name


def test_a_run_killed_at_ten_random_steps_equals_an_uninterrupted_one(
    whole: Path, photo: Path, run: Fdn, install, tmp_path: Path
) -> None:
    install("facednerf-killer", KILLER, facednerf={"killer": "facednerf_killer"})
    folder = tmp_path / "killed"
    chosen = sorted(random.Random(2).sample(range(len(all_steps())), 10))
    places = [all_steps()[number] for number in chosen]
    assert {stage for stage, _ in places} == set(STAGES)
    words: tuple[object, ...] = ("edit", photo, "a woman with blue hair", "--out", folder)
    for stage, index in places:
        ended = run(*words, KILL_AT=f"{stage} {index}")
        assert ended.code == -signal.SIGKILL, ended.err
        assert steps(events(folder)) == all_steps()[: all_steps().index((stage, index)) + 1]
        assert Run(folder).manifest["status"] == "running"
        (folder / ".checkpoint.1.part.safetensors").write_bytes(b"cut short")
        words = ("resume", folder)
    ended = run(*words, KILL_AT="saved after")
    assert ended.code == -signal.SIGKILL, ended.err
    ended = run(*words)
    assert ended.code == 0, ended.err
    assert_equal(whole, folder)
    assert steps(events(folder)) == all_steps(), "each step is logged once, those after the last checkpoint dropped"
    assert not list(folder.glob("*.part*"))
    assert not list(folder.glob(".*.part*"))
    assert Run(folder).metrics == Run(whole).metrics


def test_a_run_killed_before_its_first_checkpoint_begins_anew(photo: Path, run: Fdn, install, tmp_path: Path) -> None:
    install("facednerf-killer", KILLER, facednerf={"killer": "facednerf_killer"})
    few = ("--steps", "invert=3", "--steps", "refine=0", "--steps", "tune=0", "--frames", "0")
    ended = run("invert", photo, "--out", tmp_path / "run", *few, KILL_AT="invert 0")
    assert ended.code == -signal.SIGKILL
    assert not (tmp_path / "run" / CHECKPOINT).exists()
    assert run("resume", tmp_path / "run").code == 0
    assert steps(events(tmp_path / "run")) == [("invert", 0), ("invert", 1), ("invert", 2)]


def test_what_a_finished_edit_leaves(whole: Path) -> None:
    run, manifest = Run(whole), Run(whole).manifest
    assert run.pictures == ("after", "before", "comparison", "inverted", "sheet")
    assert run.before.size == run.after.size == (128, 128)
    assert (whole / "turntable.mp4").stat().st_size > 1000
    assert not list(whole.glob("*.p[kt]*")), "no pickle is ever written"
    latent = load_file(whole / "latent.safetensors")
    assert latent["w"].shape == latent["inverted.w"].shape == (1, 12, 256)
    assert (latent["w"] - latent["inverted.w"]).abs().max() > 0
    assert (latent["w"] == latent["edited.w"]).all()
    assert load_file(whole / "tuned.safetensors")
    assert manifest["pack"] == "starter"
    assert manifest["stages"] == STAGES
    assert set(manifest["versions"]) >= {"facednerf-core", "facednerf-eg3d", "facednerf-sds", "facednerf-starter"}
    assert all(len(value) == 64 for card in manifest["weights"].values() for value in card.values())
    assert run.recipe == Recipe.from_dict(manifest["recipe"])
    assert steps(events(whole)) == all_steps()
    assert events(whole)[0]["event"] == "Started"
    assert events(whole)[-1]["event"] == "Finished"
    losses = [event["losses"] for event in events(whole) if event["event"] == "Stepped" and event["stage"] == "edit"]
    assert set(losses[0]) == {"guidance", "reconstruction", "identity", "latent"}


def test_strength_is_set_afterwards_without_optimising(copy: Path, whole: Path, run: Fdn) -> None:
    ended = run("resume", copy, "--strength", "0.5", "--json")
    assert ended.code == 0, ended.err
    again = events(copy)[len(events(whole)) :]
    assert steps(again) == []
    full, half = load_file(whole / "latent.safetensors"), load_file(copy / "latent.safetensors")
    assert ((full["inverted.w"] + full["edited.w"]) / 2 - half["w"]).abs().max() < 1e-5
    assert (half["edited.w"] == full["edited.w"]).all()
    assert Run(copy).after.tobytes() != Run(whole).after.tobytes()
    assert Run(copy).picture("inverted").tobytes() == Run(whole).picture("inverted").tobytes()
    assert Run(copy).recipe.strength == 0.5
    assert (copy / CHECKPOINT).read_bytes() == (whole / CHECKPOINT).read_bytes()
    assert Run(copy).metrics["latent_moved"] == pytest.approx(Run(whole).metrics["latent_moved"] / 2, rel=0.01)


def test_strength_waits_for_the_end(copy: Path, run: Fdn) -> None:
    manifest = Run(copy).manifest | {"status": "running"}
    (copy / MANIFEST).write_text(json.dumps(manifest))
    ended = run("resume", copy, "--strength", "0.5")
    assert ended.code == 2
    assert "is not finished" in ended.err


def test_the_papers_recipe_runs_and_has_no_strength(photo: Path, run: Fdn, tmp_path: Path) -> None:
    folder = tmp_path / "paper"
    config = tmp_path / "paper.toml"
    config.write_text(CONFIG.replace("invert = 4, refine = 3, tune = 3, edit = 4", "joint = 2, tune = 1"))
    words = ["edit", photo, "a woman with blue hair", "--recipe", "paper", "--config", config, "--out", folder]
    ended = fdn(words, tmp_path / "said")
    assert ended.code == 0, ended.err
    assert steps(events(folder)) == [("joint", 0), ("joint", 1), ("tune", 0)]
    assert Run(folder).pictures == ("after", "before", "comparison", "sheet")
    assert "inverted.w" not in load_file(folder / "latent.safetensors")
    ended = run("resume", folder, "--strength", "0.5")
    assert ended.code == 2
    assert "tunes the generator after the edit" in ended.err
    assert Run(folder).recipe.strength == 1.0
    ended = fdn([*words[:-1], tmp_path / "other", "--strength", "0.5"], tmp_path / "said")
    assert ended.code == 2
    assert not (tmp_path / "other").exists()


def test_invert_says_what_it_found_and_where(photo: Path, run: Fdn, tmp_path: Path) -> None:
    folder = tmp_path / "inverted"
    few = ("--steps", "invert=1", "--steps", "refine=1", "--steps", "tune=1")
    ended = run("invert", photo, "--out", folder, *few)
    assert ended.code == 0, ended.err
    assert Run(folder).pictures == ("before", "comparison", "inverted", "sheet")
    assert "dB from the photo" in ended.out
    assert f"{folder}: before.png, inverted.png, sheet.png, turntable.mp4" in ended.out
    assert "starter weights" in ended.out
    assert "invert 1/1" in ended.err
    assert not (folder / INVERSION).exists()
    ended = run("resume", folder, "--strength", "0.5")
    assert ended.code == 2
    assert "there is no edit" in ended.err


def test_an_edit_without_steps_before_it_comes_from_the_beginning(photo: Path, run: Fdn, tmp_path: Path) -> None:
    few = ("--steps", "invert=0", "--steps", "refine=0", "--steps", "tune=0", "--steps", "edit=1", "--frames", "0")
    ended = run("edit", photo, "blue hair", "--out", tmp_path / "run", *few)
    assert ended.code == 0, ended.err
    latent = load_file(tmp_path / "run" / "latent.safetensors")
    assert (latent["inverted.w"][0] == latent["inverted.w"][0, :1]).all(), "the inversion is the mean latent"


def test_a_run_in_use_is_left_alone(copy: Path, photo: Path, run: Fdn) -> None:
    with locked(copy):
        for words in (("resume", copy), ("edit", photo, "blue hair", "--out", copy)):
            ended = run(*words)
            assert ended.code == 2
            assert "is being written by another process" in ended.err
            assert "Traceback" not in ended.err


def changed_weights(manifest: dict[str, Any]) -> None:
    manifest["weights"]["eg3d/starter"]["tensors"] = "0" * 64


def changed_versions(manifest: dict[str, Any]) -> None:
    manifest["versions"]["facednerf-eg3d"] = "0.0.1"


@pytest.mark.parametrize("change", [changed_weights, changed_versions])
def test_a_run_is_not_gone_on_with_by_other_weights_or_versions(change, copy: Path, run: Fdn) -> None:
    manifest = Run(copy).manifest
    change(manifest)
    (copy / MANIFEST).write_text(json.dumps(manifest))
    before = (copy / EVENTS).read_bytes()
    ended = run("resume", copy)
    assert ended.code == 2
    assert f"its {change.__name__.split('_')[1]} have changed" in ended.err
    assert "0.0.1 then, 0.1.0 now" in ended.err or "0000" in ended.err
    assert (copy / EVENTS).read_bytes() == before


@pytest.mark.parametrize("name", ["checkpoint.safetensors", "portrait.safetensors", MANIFEST])
def test_a_damaged_run_is_one_message(name: str, copy: Path, run: Fdn) -> None:
    (copy / name).unlink()
    (copy / name).write_bytes(b"{}")
    ended = run("resume", copy)
    assert ended.code == 2
    assert ended.err.startswith("fdn: ")
    assert name in ended.err
    assert "Traceback" not in ended.err


FEW = ("--steps", "invert=1", "--steps", "refine=0", "--steps", "tune=0", "--frames", "0", "--guidance", "moody")


def test_a_loss_that_is_not_a_number_stops_the_run_and_keeps_the_last_checkpoint(
    photo: Path, run: Fdn, install, tmp_path: Path
) -> None:
    install("facednerf-moody", MOODY, facednerf={"moody": "facednerf_moody"})
    folder = tmp_path / "run"
    ended = run("edit", photo, "blue hair", "--out", folder, *FEW, MOOD="nan")
    assert ended.code == 2
    assert "term 'guidance' diverged at step 2 of stage 'edit'" in ended.err
    assert "Traceback" not in ended.err
    assert Run(folder).manifest["status"] == "failed"
    assert "guidance" in Run(folder).manifest["reason"]
    assert events(folder)[-1]["event"] == "Failed"
    state = load_file(folder / CHECKPOINT)
    assert all(value.isfinite().all() for value in state.values())
    ended = run("resume", folder, MOOD="fine")
    assert ended.code == 0, ended.err
    assert Run(folder).manifest["status"] == "finished"
    assert "reason" not in Run(folder).manifest


def test_a_lack_of_memory_says_what_to_lower(photo: Path, run: Fdn, install, tmp_path: Path) -> None:
    install("facednerf-moody", MOODY, facednerf={"moody": "facednerf_moody"})
    ended = run("edit", photo, "blue hair", "--out", tmp_path / "run", *FEW, "--json", MOOD="memory")
    assert ended.code == 2
    assert "out of memory. Lower --size" in ended.err
    assert f"fdn resume {tmp_path / 'run'}" in ended.err
    assert "Traceback" not in ended.err
    assert json.loads(ended.out) == {
        "status": "failed",
        "error": ended.err.strip().removeprefix("fdn: "),
        "run": str(tmp_path / "run"),
    }


JUDGES = """
from pathlib import Path
from types import SimpleNamespace
from facednerf_core.cards import Card, WeightsCard
from facednerf_core.hookspecs import hookimpl
from facednerf_core.interfaces import Metric

class Ruler(Metric):
    def __init__(self, weights):
        self.unit = float(weights["net"].read_text())
    def measure(self, before, after, subject, recipe):
        print("I print")
        shapes = {tuple(shot.image.shape) for shot in (before, after)}
        assert shapes == {(1, 3, 3, 128, 128)} and subject.image.shape == (1, 1, 3, 128, 128)
        return {"moved": float((after.image - before.image).abs().mean()) / self.unit, "asked": recipe.prompt}

class Sick(Metric):
    def measure(self, before, after, subject, recipe):
        raise RuntimeError("kaputt")

@hookimpl
def register_metrics(register):
    register(Card("ruler", "Measures.", lambda device, weights: Ruler(weights)))
    register(Card("sick", "Fails.", lambda device, weights: Sick(), needs_weights=False))

@hookimpl
def register_weights(register):
    here = {"files": {"net": "unit.txt"}, "folder": Path(__file__).parent}
    register(WeightsCard("ruler/unit", "ruler", "metric", "any", "One.", **here))
"""


def test_metrics_of_plugins_are_in_the_manifest_and_one_that_fails_stops_no_run(
    photo: Path, run: Fdn, install, tmp_path: Path
) -> None:
    install("facednerf-moody", MOODY, facednerf={"moody": "facednerf_moody"})
    site = install("facednerf-judges", JUDGES, facednerf={"judges": "facednerf_judges"})
    (site / "unit.txt").write_text("2.0")
    folder = tmp_path / "run"
    ended = run("edit", photo, "blue hair", "--out", folder, *FEW, "--json")
    assert ended.code == 0, ended.err
    judged = Run(folder).manifest["metrics"]["judged"]
    assert judged.keys() == {"ruler", "sick"}
    assert judged["ruler"]["networks"] == ["ruler/unit"]
    assert judged["ruler"]["numbers"]["asked"] == "blue hair"
    assert judged["ruler"]["numbers"]["moved"] > 0
    assert judged["sick"] == {"failed": "RuntimeError: kaputt"}
    assert json.loads(ended.out)["metrics"]["judged"] == judged
    assert Run(folder).manifest["status"] == "finished"
    noted = [event["message"] for event in events(folder) if event["event"] == "Noted"]
    assert [message for message in noted if "'sick' failed (RuntimeError: kaputt)" in message]
    ended = run("resume", folder, "--strength", "0.5")
    assert ended.code == 0, ended.err
    again = Run(folder).metrics["judged"]["ruler"]["numbers"]["moved"]
    assert 0 < again < judged["ruler"]["numbers"]["moved"]
    assert f"ruler: moved {again:.4g}" in ended.out
    assert "the metric 'sick' failed" in ended.err


def test_what_an_edit_begins_with_is_said_before_it_keeps_you_waiting(photo: Path, run: Fdn, tmp_path: Path) -> None:
    few = ("--steps", "invert=1", "--steps", "refine=0", "--steps", "tune=0", "--steps", "edit=2", "--frames", "0")
    for name, options, wanted in (("with", (), 1), ("without", ("--option", "eg3d.atlas=false"), 0)):
        ended = run("edit", photo, "blue hair", "--out", tmp_path / name, *few, *options)
        assert ended.code == 0, ended.err
        assert ended.err.count("comparing the sentence with heads") == wanted
        told = [(event["event"], event.get("stage")) for event in events(tmp_path / name)]
        if wanted:
            said = [place for place, event in enumerate(events(tmp_path / name)) if "comparing" in event.get("message", "")]
            assert told.index(("Stepped", "invert")) < said[0] < told.index(("Stepped", "edit"))
        ended = run("resume", tmp_path / name)
        assert ended.code == 0, ended.err
        assert "comparing" not in ended.err


def test_a_run_taken_up_in_the_midst_of_an_edit_says_what_it_does_again() -> None:
    stages = [SimpleNamespace(name="tune", steps=2, opening=None)]
    stages += [SimpleNamespace(name="edit", steps=3, opening=SimpleNamespace(says="comparing"))]
    problem: Any = SimpleNamespace(stages=stages)

    def said(position: tuple[str, int] | None, resumed: bool) -> list[str]:
        told: list[Any] = []
        runs._open(problem, position, told.append, resumed=resumed)
        return [event.message for event in told]

    assert said(("edit", 1), resumed=True) == ["comparing"]
    assert said(("edit", 1), resumed=False) == []
    assert said(("tune", 1), resumed=True) == []
    assert said(("tune", 2), resumed=True) == said(("tune", 2), resumed=False) == ["comparing"]
    assert said(("edit", 3), resumed=True) == []


SPOILSPORT = """
from facednerf_core.cards import Card
from facednerf_core.events import Stepped
from facednerf_core.hookspecs import hookimpl

def build(device, weights):
    seen = []
    def watch(event):
        seen.append(event)
        print("I print")
        if isinstance(event, Stepped):
            raise ValueError(f"after {len(seen)}")
    return watch

def broken(device, weights):
    raise ImportError("no viewer here")

@hookimpl
def register_observers(register):
    register(Card("spoilsport", "Raises.", build, needs_weights=False))
    register(Card("broken", "Cannot be built.", broken, needs_weights=False))
"""


def test_an_observer_that_fails_is_noted_once_and_stops_no_run(photo: Path, run: Fdn, install, tmp_path: Path) -> None:
    install("facednerf-spoilsport", SPOILSPORT, facednerf={"spoilsport": "facednerf_spoilsport"})
    few = ("--steps", "invert=2", "--steps", "refine=0", "--steps", "tune=0", "--frames", "0", "--json")
    ended = run("invert", photo, "--out", tmp_path / "run", *few)
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["status"] == "finished"
    noted = [event["message"] for event in events(tmp_path / "run") if event["event"] == "Noted"]
    assert sum("'spoilsport' failed (ValueError" in message for message in noted) == 1
    assert sum("'broken' cannot be built (ImportError: no viewer here)" in message for message in noted) == 1
