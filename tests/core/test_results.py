"""What a run leaves: pictures, film and tensors of the right latents, and what was measured, by the core and by metrics."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from facednerf_core import compose, export, metrics, plans, results
from facednerf_core.cards import Card, LocalWeights, WeightsCard
from facednerf_core.events import Event, Noted, Saved
from facednerf_core.interfaces import Metric
from facednerf_core.loop import Problem, State
from facednerf_core.photos import Portrait, composited
from facednerf_core.recipe import Recipe
from facednerf_core.runs import Prepared
from facednerf_core.scene import Rendering
from facednerf_core.terms import Stage
from facednerf_core.views import angles
from tests.toy import ToyGenerator

EDIT = Recipe(photo="me.png", prompt="blue hair", backbone="toy", frames=3, device="cpu")
PAPER, INVERT = EDIT.changed(recipe="paper"), EDIT.changed(task="invert", prompt="")
STAGES = {"edit": ("invert", "tune", "edit"), "paper": ("joint", "tune"), "invert": ("invert", "tune")}
MARKS = torch.tensor([[0.35, 0.4], [0.65, 0.4], [0.5, 0.5], [0.4, 0.6], [0.6, 0.6]])


def picture(seed: int) -> Tensor:
    return torch.rand(1, 1, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def nothing(device: torch.device, weights: LocalWeights | None) -> None:
    return None


def part(name: str, make: Callable[..., Any] = nothing, weights: LocalWeights | None = None, **card: Any) -> plans.Part:
    return plans.Part(Card(name, "A toy.", make, **card), weights)


def prepared(recipe: Recipe = EDIT, judges: Mapping[str, plans.Part] | None = None, mask: bool = True) -> Prepared:
    """A run over the toy generator, whose card says that it draws on white."""
    generator = ToyGenerator()
    card = WeightsCard("toy/starter", "toy", "generator", "starter", "A toy.", resolution=8, background="white")
    local = LocalWeights(card, {})
    toy = part("toy", weights=local)
    plan = plans.Plan(recipe, "starter", toy, local, toy, toy, None, None, None, metrics=judges or {})
    shape = torch.zeros(1, 1, 1, 8, 8)
    shape[..., 2:, 2:6] = 1.0
    camera = generator.orbit.camera(0.2, 0.1)
    cut = {"mask": shape, "person": picture(1), "background": picture(2), "landmarks": MARKS[None, None]} if mask else {}
    portrait = Portrait(picture(1), torch.ones(1, 1, 1, 8, 8), camera, 0.2, 0.1, np.eye(3), **cut)
    names = STAGES["paper" if recipe.recipe == "paper" else recipe.task]
    stages = [Stage(name, frozenset({"latent"}), [], 1, {"latent": 0.1}) for name in names]
    problem = Problem(generator, State.begin(generator.mean(), generator.orbit.view((0.2, 0.1))), stages)
    return Prepared(plan, portrait, compose.Built(generator, None, None), problem, (), {})  # type: ignore[arg-type]


def states(run: Prepared, tuned: bool = False) -> tuple[State, State]:
    """The state as the inversion ended and that as the run ended: one deviation further along every dimension."""
    generator, start = run.problem.generator, run.problem.start
    inversion = replace(start, stage="tune", offset=torch.full((1, 2, 5), 0.5))
    source = inversion.latent(generator.deviation())
    basis = generator.tunable()["basis"].detach()
    end = replace(start, stage="edit", source=source, offset=torch.ones(1, 2, 5), noise={"noise": torch.ones(8, 8)})
    return inversion, replace(end, weights={"basis": basis * 1.5}) if tuned else end


def exported(run: Prepared, folder: Path, tuned: bool = False) -> tuple[dict[str, Path], dict[str, Any], list[Event]]:
    told: list[Event] = []
    files, measured = results.export_run(folder, run, *states(run, tuned), told.append)
    return files, measured, told


def test_the_result_lies_between_inversion_and_edit_by_the_strength() -> None:
    deviation = ToyGenerator().deviation()
    for strength in (0.0, 0.5, 1.0, 1.5):
        run = prepared(EDIT.changed(strength=strength))
        inversion, end = states(run)
        found = results.outcome(run, inversion, end)
        assert found.inverted is not None
        assert torch.equal(found.inverted.w, inversion.latent(deviation).w)
        assert torch.equal(found.edited.w, end.latent(deviation).w)
        assert torch.allclose(found.final.w, found.inverted.w + strength * deviation, atol=1e-6)
        between = (1 - strength) * inversion.noise["noise"] + strength * end.noise["noise"]
        assert torch.allclose(found.final.noise["noise"], between, atol=1e-6)


def test_an_inversion_is_its_own_result_and_the_papers_recipe_has_none() -> None:
    run = prepared(INVERT)
    found = results.outcome(run, *states(run))
    assert found.inverted is not None
    assert torch.equal(found.inverted.w, found.final.w)
    assert torch.equal(found.final.w, found.edited.w)
    run = prepared(PAPER)
    found = results.outcome(run, *states(run))
    assert found.inverted is None
    assert torch.equal(found.final.w, states(run)[1].latent(ToyGenerator().deviation()).w)


def test_a_tuned_generator_draws_the_result_and_the_base_is_left_alone() -> None:
    run = prepared()
    base = run.problem.generator
    before = base.tunable()["basis"].clone()
    assert results.outcome(run, *states(run)).generator is base
    tuned = results.outcome(run, *states(run, tuned=True)).generator
    assert torch.equal(tuned.basis, before * 1.5)  # type: ignore[attr-defined]
    assert torch.equal(base.tunable()["basis"], before)


PICTURES = {
    "edit": ["before", "inverted", "after", "comparison", "sheet"],
    "paper": ["before", "after", "comparison", "sheet"],
    "invert": ["before", "inverted", "comparison", "sheet"],
}


@pytest.mark.parametrize(("task", "recipe"), [("edit", EDIT), ("paper", PAPER), ("invert", INVERT)])
def test_every_file_is_written_and_told_of(task: str, recipe: Recipe, tmp_path: Path) -> None:
    files, _, told = exported(prepared(recipe), tmp_path, tuned=True)
    assert list(files) == ["latent", "tuned", *PICTURES[task], "turntable"]
    assert [(event.path, event.what) for event in told if isinstance(event, Saved)] == [(b, a) for a, b in files.items()]
    assert sorted(tmp_path.iterdir()) == sorted(files.values())
    for name in PICTURES[task][:-2]:
        assert Image.open(files[name]).size == (8, 8)
    with av.open(str(files["turntable"])) as film:
        assert len(list(film.decode(video=0))) == 3


def test_without_frames_there_is_no_film_and_without_tuning_no_tuned_tensors(tmp_path: Path) -> None:
    files, _, _ = exported(prepared(EDIT.changed(frames=0)), tmp_path)
    assert "turntable" not in files
    assert "tuned" not in files


def test_tensors_are_those_of_the_result(tmp_path: Path) -> None:
    run = prepared(EDIT.changed(strength=0.5, frames=0))
    inversion, end = states(run, tuned=True)
    files, _, _ = exported(run, tmp_path, tuned=True)
    found, saved = results.outcome(run, inversion, end), load_file(files["latent"])
    assert found.inverted is not None
    assert saved.keys() == {"w", "edited.w", "inverted.w", "camera", "noise.noise"}
    assert torch.equal(saved["w"], found.final.w)
    assert torch.equal(saved["edited.w"], found.edited.w)
    assert torch.equal(saved["inverted.w"], found.inverted.w)
    assert torch.equal(saved["noise.noise"], found.final.noise["noise"])
    assert torch.equal(saved["camera"], end.camera.camera)
    assert torch.equal(load_file(files["tuned"])["basis"], end.weights["basis"])
    files, _, _ = exported(prepared(PAPER.changed(frames=0)), tmp_path)
    assert "inverted.w" not in load_file(files["latent"])


def test_pictures_are_renderings_at_the_photos_camera_on_the_photos_background(tmp_path: Path) -> None:
    run = prepared()
    files, _, _ = exported(run, tmp_path, tuned=True)
    result = results.outcome(run, *states(run, tuned=True))
    assert result.inverted is not None
    for name, latent in (("inverted", result.inverted), ("after", result.final)):
        drawn = result.generator.render(result.generator.synthesize(latent), result.camera, jitter=None)
        shown = export.on_background(drawn, "white", run.portrait.background)
        assert not torch.equal(shown, drawn.image)
        assert (np.asarray(Image.open(files[name])) == export.pixels(shown)[0, 0]).all()
    assert (np.asarray(Image.open(files["before"])) == export.pixels(run.portrait.image)[0, 0]).all()


def test_few_views_are_rendered_together(tmp_path: Path) -> None:
    run = prepared(EDIT.changed(frames=11))
    exported(run, tmp_path)
    views = run.problem.generator.count.views  # type: ignore[attr-defined]
    assert max(views) <= results.TOGETHER
    assert sum(views) == 2 + 2 * len(export.sheet_angles(ToyGenerator().orbit)) + 11
    assert run.problem.generator.count.synthesize == 2  # type: ignore[attr-defined]


def test_what_is_measured_of_an_edit(tmp_path: Path) -> None:
    run = prepared()
    files, measured, _ = exported(run, tmp_path)
    result = results.outcome(run, *states(run))
    assert result.inverted is not None
    drawn = run.problem.generator.render(run.problem.generator.synthesize(result.inverted), result.camera, jitter=None)
    assert run.portrait.mask is not None
    truth = composited(run.portrait, "white")[0, 0]
    expected = metrics.psnr(drawn.image[0, 0], truth, run.portrait.mask[0, 0])
    assert measured["inversion_psnr"] == pytest.approx(expected, abs=0.01)
    assert measured["latent_moved"] == pytest.approx(1.0, abs=1e-4), "in units of W's deviation"
    assert set(measured["changes"]) <= set(metrics.REGIONS)
    one, other = (torch.from_numpy(np.asarray(Image.open(files[name])).copy()).float() for name in ("inverted", "after"))
    mean = float((one - other).abs().mean()) / 255
    assert min(measured["changes"].values()) <= mean + 0.01
    assert max(measured["changes"].values()) >= mean - 0.01
    assert len(measured["said"]) == 2
    assert measured["said"][0].endswith("dB from the photo, inside the mask")
    _, half, _ = exported(prepared(EDIT.changed(strength=0.5)), tmp_path)
    assert half["latent_moved"] == pytest.approx(0.5, abs=1e-4)
    assert half["inversion_psnr"] == measured["inversion_psnr"]


def test_what_is_measured_where_something_is_missing(tmp_path: Path) -> None:
    _, measured, _ = exported(prepared(INVERT, mask=False), tmp_path)
    assert set(measured) == {"inversion_psnr", "said"}
    assert measured["said"][0].endswith("dB from the photo, of the whole crop")
    assert exported(prepared(PAPER), tmp_path)[1] == {"said": []}
    assert set(exported(prepared(mask=False), tmp_path)[1]["changes"]) == {"picture"}


class Ruler(Metric):
    """Keeps what it is given, and measures how far the picture moved."""

    networks = ("a ruler",)

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    def measure(self, before, after, subject, recipe):
        print("I print")
        self.seen.append((before, after, subject, recipe))
        return {"moved": 0.0 if before is None else float((after.image - before.image).abs().mean()), "words": ["a"]}


def ruled(recipe: Recipe, folder: Path, **card: Any) -> tuple[Ruler, dict[str, Any]]:
    ruler = Ruler()
    weights = LocalWeights(WeightsCard("ruler/any", "ruler", "metric", "any", "Lines."), {})
    run = prepared(recipe, {"ruler": part("ruler", lambda device, weights: ruler, weights, **card)})
    return ruler, exported(run, folder, tuned=True)[1]


def all_round(recipe: Recipe = EDIT, judges: Mapping[str, plans.Part] | None = None) -> Prepared:
    """The same over a generator that is trusted all round, and a photo that is turned by 0.4."""
    run = prepared(recipe, judges)
    generator = run.problem.generator
    generator.orbit = replace(generator.orbit, yaw=math.pi)
    start = State.begin(generator.mean(), generator.orbit.view((0.4, 0.1)))
    return replace(run, problem=replace(run.problem, start=start))


def test_a_head_trusted_all_round_is_shown_all_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = all_round(EDIT.changed(frames=12))
    generator, rendered = run.problem.generator, []
    render = generator.render

    def watched(scene, view, **how):
        rendered.append(view.camera[0])
        return render(scene, view, **how)

    monkeypatch.setattr(generator, "render", watched)
    exported(run, tmp_path)
    film = torch.cat(rendered)[-12:]
    wanted = torch.tensor(export.turntable_angles(generator.orbit, 12))
    yaw, pitch = angles(film)
    assert torch.allclose(yaw.cos(), wanted[:, 0].cos(), atol=1e-4)
    assert torch.allclose(yaw.sin(), wanted[:, 0].sin(), atol=1e-4)
    assert torch.allclose(pitch, wanted[:, 1], atol=1e-4)
    onwards = generator.orbit.cameras(wanted[:, 0], wanted[:, 1])
    assert torch.allclose(film, onwards, atol=1e-4), (
        "its pivot stands in the middle of each frame, whatever the photo's angle"
    )


def test_metrics_look_at_faces_where_the_orbit_goes_all_round(tmp_path: Path) -> None:
    ruler = Ruler()
    judges = {"ruler": part("ruler", lambda device, weights: ruler, sees=0.7)}
    exported(all_round(judges=judges), tmp_path)
    ((_, after, _, _),) = ruler.seen
    assert yaws(after) == pytest.approx([0.4, -results.ASIDE_MOST, results.ASIDE_MOST], abs=1e-4)


def yaws(rendering: Rendering) -> list[float]:
    return angles(rendering.view.camera)[0][0].tolist()


def test_a_metric_sees_inversion_and_result_at_the_same_views(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ruler, measured = ruled(EDIT, tmp_path)
    ((before, after, subject, recipe),) = ruler.seen
    assert recipe == EDIT
    assert torch.equal(subject.image, composited(prepared().portrait, "white"))
    aside = results.ASIDE * ToyGenerator().orbit.yaw
    assert yaws(before) == yaws(after) == pytest.approx([0.2, -aside, aside], abs=1e-4)
    expected = results.outcome(prepared(), *states(prepared(), tuned=True))
    for shot, latent in ((before, expected.inverted), (after, expected.final)):
        assert latent is not None
        drawn = expected.generator.render(expected.generator.synthesize(latent), expected.camera, jitter=None)
        assert torch.allclose(shot.image[:, :1], drawn.image, atol=1e-6)
    moved = float((after.image - before.image).abs().mean())
    assert moved > 0
    assert measured["judged"] == {
        "ruler": {"numbers": {"moved": moved, "words": ["a"]}, "networks": ["ruler/any", "a ruler"]}
    }
    assert measured["said"][-1] == f"ruler: moved {moved:.4g}"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("recipe", [INVERT, PAPER])
def test_a_metric_of_a_run_without_an_edit_of_an_inversion_has_no_before(recipe: Recipe, tmp_path: Path) -> None:
    ruler, _ = ruled(recipe, tmp_path)
    ((before, after, _, _),) = ruler.seen
    assert before is None
    assert after.image.shape == (1, 3, 3, 8, 8)


def test_a_metric_that_sees_little_is_shown_the_photos_view_alone(tmp_path: Path) -> None:
    ruler, _ = ruled(EDIT, tmp_path, sees=0.1)
    ((before, after, _, _),) = ruler.seen
    assert yaws(before) == yaws(after) == pytest.approx([0.2], abs=1e-4)


class Gives(Metric):
    def __init__(self, value: Any) -> None:
        self.value = value

    def measure(self, before, after, subject, recipe):
        return {"x": self.value(after)}


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda device, weights: 1 / 0, "ZeroDivisionError"),
        (lambda device, weights: Gives(lambda after: after.depth.mean()), "AttributeError"),
        (lambda device, weights: Gives(lambda after: after.image.mean()), "TypeError"),
        (lambda device, weights: Gives(lambda after: math.nan), "ValueError"),
    ],
)
def test_a_metric_that_fails_is_noted_and_costs_nothing_else(make, reason: str, tmp_path: Path) -> None:
    judges = {"sick": part("sick", make), "well": part("well", lambda device, weights: Gives(lambda after: 2))}
    files, measured, told = exported(prepared(EDIT, judges), tmp_path)
    assert "turntable" in files
    assert measured["judged"]["sick"]["failed"].startswith(reason)
    assert measured["judged"]["well"] == {"numbers": {"x": 2}, "networks": []}
    assert measured["said"][-1] == "well: x 2"
    (note,) = [event for event in told if isinstance(event, Noted)]
    assert note.message.startswith(f"the metric 'sick' failed ({reason}")
    json.dumps(measured, allow_nan=False)
