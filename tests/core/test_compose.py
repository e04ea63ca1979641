"""A plan in, a problem out: which stages, terms and weights, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from facednerf_core import compose, losses, plans
from facednerf_core.cards import Card
from facednerf_core.departure import Departure
from facednerf_core.errors import UnknownName
from facednerf_core.hookspecs import hookimpl
from facednerf_core.loop import Problem, optimize
from facednerf_core.perceptual import Perceptual, Vgg16
from facednerf_core.plugins import Shelves
from facednerf_core.recipe import Recipe, Weights
from facednerf_core.scene import Atlas, Subject
from facednerf_core.terms import Stage
from facednerf_core.views import Fixed, Nearby
from facednerf_core.weights import Registry
from tests.toy import ToyGenerator
from tests.toy_plugin import RECIPE, Aim, Options, Search

CPU = torch.device("cpu")


def posed(recipe: Recipe, shelves: Shelves, registry: Registry, mask: bool = True) -> tuple[plans.Plan, Problem]:
    plan = plans.plan(recipe, shelves, registry)
    parts = {kind: part.build(CPU) for kind, part in plan.parts().items() if kind != "detector"}
    features = Perceptual(Vgg16([2, 2, 2, 2, 2]), 16)
    built = compose.Built(features=features, **parts)
    view = parts["generator"].orbit.view((0.0, 0.0))
    subject = Subject(view, torch.zeros(1, 1, 3, 8, 8), torch.ones(1, 1, 1, 8, 8) if mask else None)
    return plan, compose.problem(plan, built, subject)


def weights(stage: Stage) -> dict[str, float]:
    return {term.name: term.counts(0.5) for term in stage.terms}


def test_the_default_recipe_inverts_tunes_and_edits(shelves: Shelves, registry: Registry) -> None:
    _, problem = posed(RECIPE, shelves, registry)
    assert [stage.name for stage in problem.stages] == ["invert", "tune", "edit"]
    edit = problem.stages[-1]
    assert edit.solve_for == {"latent"}
    assert weights(edit) == compose.WEIGHTS["edit"]
    looks = {term.name: term.look for term in edit.terms}
    assert looks["reconstruction"] == looks["identity"] == Fixed()
    assert looks["latent"] is None
    assert looks["guidance"] == Nearby(0.15), "held to what the guidance sees"
    assert {term.name: term.sees for term in edit.terms}["identity"] == 0.7
    assert {term.name: term.against for term in edit.terms if term.against} == {"guidance": "source"}
    assert edit.tied, "an edit is a direction of W"
    assert edit.principal, "and of its principal axes"
    assert edit.reach == compose.REACH
    assert edit.steps == compose.STEPS["edit"]


@pytest.mark.parametrize("everywhere", [True, False])
def test_an_edit_is_held_to_the_photo_only_where_the_sentence_does_not_speak(
    shelves: Shelves, registry: Registry, monkeypatch: pytest.MonkeyPatch, everywhere: bool
) -> None:
    asked = []

    def region(self: Aim, prompt: str, subject: Subject, **how: Any) -> torch.Tensor:
        asked.append((prompt, how["source_prompt"]))
        return torch.full((1, 1, 4, 4), float(everywhere))

    monkeypatch.setattr(Aim, "region", region)
    plan, problem = posed(RECIPE, shelves, registry)
    assert asked == [(RECIPE.prompt, plan.source_prompt)]
    last = list(optimize(problem))[-1]
    assert last.stage == "edit"
    assert (last.losses["reconstruction"] == 0.0) == everywhere
    assert next(event for event in optimize(problem) if event.stage == "invert").losses["reconstruction"] > 0.0


def test_an_inversion_has_no_edit_and_no_guidance(shelves: Shelves, registry: Registry) -> None:
    plan, problem = posed(Recipe(task="invert", backbone="toy", guidance="words"), shelves, registry)
    assert [stage.name for stage in problem.stages] == ["invert", "tune"]
    assert plan.guidance is None
    assert problem.guidance is None


def test_the_papers_recipe_is_joint_from_near_the_mean_then_tuned_on_the_same_terms(
    shelves: Shelves, registry: Registry
) -> None:
    _, problem = posed(RECIPE.changed(recipe="paper"), shelves, registry)
    joint, tune = problem.stages
    assert (joint.name, tune.name) == ("joint", "tune")
    assert joint.solve_for == {"latent", "noise"}
    assert weights(joint) == {
        **{name: value for name, value in compose.WEIGHTS["joint"].items() if name != "latent"},
        "silhouette": 1.0,
        "noise": compose.NOISE_WEIGHT,
    }
    assert tune.terms[0] == next(term for term in joint.terms if term.name == "reconstruction")
    assert joint.wander is not None
    assert joint.wander(0.0) > 0
    assert joint.wander(0.8) == 0
    start, mean = problem.start.source.w, ToyGenerator().mean().w
    away = (start - mean).abs().max()
    assert 0 < away < 0.5
    assert torch.equal(start[:, 0], start[:, 1]), "near the mean in W, not in W+"
    _, again = posed(RECIPE.changed(recipe="paper"), shelves, registry)
    assert torch.equal(again.start.source.w, start)
    _, other = posed(RECIPE.changed(recipe="paper", seed=1), shelves, registry)
    assert not torch.equal(other.start.source.w, start)


def test_eyes_nose_and_mouth_count_more_in_the_default_recipe_alone(
    shelves: Shelves, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[bool, float, float]] = []

    def reconstruction(*given: Any, spared: Any = None, focus: float = 0.0, body: float = 1.0, **more: Any) -> Any:
        asked.append((spared is None, focus, body))
        return whole(*given, spared=spared, focus=focus, body=body, **more)

    whole = losses.reconstruction
    monkeypatch.setattr(losses, "reconstruction", reconstruction)
    posed(RECIPE, shelves, registry)
    assert (True, compose.FOCUS, compose.BODY) in asked
    assert compose.FOCUS > 0
    assert {body for _, _, body in asked} == {compose.BODY} != {1.0}
    asked.clear()
    posed(RECIPE.changed(recipe="paper"), shelves, registry)
    assert {(focus, body) for _, focus, body in asked} == {(0.0, 1.0)}


def test_the_users_steps_go_before(shelves: Shelves, registry: Registry) -> None:
    _, problem = posed(RECIPE.changed(steps={"edit": 7, "tune": 0}, size=16), shelves, registry)
    assert [stage.steps for stage in problem.stages] == [5, 0, 7]
    assert problem.stages[-1].size == 16


@pytest.mark.parametrize("task", ["edit", "invert"])
def test_a_users_weight_is_a_factor_in_every_stage_that_has_the_term(
    task: Any, shelves: Shelves, registry: Registry
) -> None:
    recipe = RECIPE.changed(task=task)
    plain = posed(recipe, shelves, registry)[1].stages
    changed = posed(recipe.changed(weights=Weights(reconstruction=3.0)), shelves, registry)[1].stages
    assert [stage.name for stage in changed] == ["invert", "tune", "edit"][: len(plain)]
    for before, after in zip(plain, changed, strict=True):
        assert weights(after) == {**weights(before), "reconstruction": 3 * weights(before)["reconstruction"]}


def test_a_users_weight_can_be_for_one_stage(shelves: Shelves, registry: Registry) -> None:
    factors = {"edit": {"identity": 0.0, "guidance": 2.0}, "invert": {"reconstruction": 0.5}}
    _, problem = posed(RECIPE.changed(weights=Weights(guidance=1.5), stage_weights=factors), shelves, registry)
    invert, tune, edit = problem.stages
    own = compose.WEIGHTS["edit"]
    assert weights(edit) == {**own, "identity": 0.0, "guidance": 3 * own["guidance"]}
    assert weights(invert) == {"reconstruction": 0.5}
    assert weights(tune) == {"reconstruction": 1.0}


def test_a_plugins_own_factor_is_on_its_term(shelves: Shelves, registry: Registry) -> None:
    for recipe, stage in ((RECIPE, "edit"), (RECIPE.changed(recipe="paper"), "joint")):
        loud = recipe.changed(guidance="loud", weights=Weights(guidance=2.0))
        stages = {item.name: weights(item) for item in posed(loud, shelves, registry)[1].stages}
        assert stages[stage]["guidance"] == 0.25 * 2.0 * compose.WEIGHTS[stage]["guidance"]
        assert stages[stage]["identity"] == compose.WEIGHTS[stage]["identity"]


def test_an_inverter_finds_no_weights_to_count_twice(
    shelves: Shelves, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    stages = Search.stages
    monkeypatch.setattr(Search, "stages", lambda self, recipe, terms: seen.append(recipe) or stages(self, recipe, terms))
    for recipe in ("default", "paper"):
        posed(RECIPE.changed(recipe=recipe, weights=Weights(reconstruction=3.0)), shelves, registry)
    assert [recipe.weights for recipe in seen] == [Weights()] * 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"recipe": "paper", "weights": Weights(latent=2.0)}, "no term named 'latent'.*would do nothing"),
        ({"task": "invert", "weights": Weights(guidance=2.0)}, "no term named 'guidance'"),
        ({"identity": "none", "weights": Weights(identity=2.0)}, "no term named 'identity'"),
        ({"stage_weights": {"edti": {"identity": 2.0}}}, "no stage named 'edti'.*Did you mean 'edit'"),
        (
            {"stage_weights": {"edit": {"identiti": 2.0}}},
            "no term of stage 'edit' named 'identiti'.*Did you mean 'identity'",
        ),
        ({"stage_weights": {"invert": {"guidance": 2.0}}}, "no term of stage 'invert' named 'guidance'"),
    ],
)
def test_a_weight_that_would_do_nothing_is_refused(changes: Any, said: str, shelves: Shelves, registry: Registry) -> None:
    with pytest.raises(UnknownName, match=said):
        posed(RECIPE.changed(**changes), shelves, registry)


def test_parts_are_left_out_on_request(shelves: Shelves, registry: Registry) -> None:
    plan, problem = posed(RECIPE.changed(tuner="none", identity="none"), shelves, registry)
    assert [stage.name for stage in problem.stages] == ["invert", "edit"]
    assert plan.identity is None
    assert plan.tuner is None
    assert "identity" not in weights(problem.stages[-1])


@pytest.mark.parametrize(
    ("changes", "source"),
    [
        ({}, "a person"),
        ({"source_prompt": "a woman"}, "a woman"),
        ({"source_prompt": ""}, None),
        ({"recipe": "paper"}, None),
        ({"recipe": "paper", "source_prompt": "a woman"}, "a woman"),
    ],
)
def test_guidance_compares_with_what_the_photo_shows(
    changes: Any, source: str | None, shelves: Shelves, registry: Registry
) -> None:
    plan, problem = posed(RECIPE.changed(**changes), shelves, registry)
    assert plan.source_prompt == source
    against = {term.name: term.against for stage in problem.stages for term in stage.terms if term.name == "guidance"}
    assert against == {"guidance": "source" if source else None}


def test_a_stage_that_is_not_there_takes_no_steps(shelves: Shelves, registry: Registry) -> None:
    with pytest.raises(UnknownName, match=r"'edti'.*Did you mean 'edit'"):
        posed(RECIPE.changed(steps={"edti": 4}), shelves, registry)
    with pytest.raises(UnknownName, match="'joint'"):
        posed(RECIPE.changed(steps={"joint": 4}), shelves, registry)


def test_a_silhouette_needs_masks_on_both_sides(shelves: Shelves, registry: Registry) -> None:
    paper = RECIPE.changed(recipe="paper")
    assert "silhouette" in weights(posed(paper, shelves, registry)[1].stages[0])
    assert "silhouette" not in weights(posed(paper, shelves, registry, mask=False)[1].stages[0])


def test_observers_of_plugins_are_built_with_their_options() -> None:
    seen: list[object] = []

    class Watching:
        @hookimpl
        def register_observers(self, register):
            register(Card("watch", "Watches.", lambda d, w, depth: lambda event: seen.append(depth), options=Options))
            register(Card("sick", "Fails.", lambda d, w: 1 / 0))

    shelves = Shelves(watching=Watching())
    guests, notes = compose.guests(RECIPE.changed(options={"watch": {"depth": 5}}), shelves, CPU)
    guests["watch"](None)  # type: ignore[arg-type]
    assert seen == [5]
    assert list(guests) == ["watch"]
    assert notes == ["the observer 'sick' cannot be built (ZeroDivisionError: division by zero); it sees nothing"]


def test_an_edit_begins_where_heads_of_the_atlas_follow_the_sentence(
    shelves: Shelves, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    latents = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    known = Atlas(latents, torch.zeros(60, 3, 8, 8))
    asked = []

    def score(self: Aim, pictures: torch.Tensor, prompt: str, **how: Any) -> torch.Tensor:
        assert pictures is known.pictures
        asked.append((prompt, how["source_prompt"], how["negative"]))
        return latents[:, 2]

    monkeypatch.setattr(ToyGenerator, "atlas", lambda self: known)
    _, plain = posed(RECIPE, shelves, registry)
    here = torch.rand(1, 2, 5)
    assert plain.stages[-1].opening is not None
    assert torch.equal(plain.stages[-1].opening.begin(here), here), "a guidance that gives no scores"
    monkeypatch.setattr(Aim, "score", score)
    plan, problem = posed(RECIPE, shelves, registry)
    opening = problem.stages[-1].opening
    assert opening is not None
    assert opening.says
    assert not asked, "a run that goes on beyond the edit's start needs no scores"
    moved = opening.begin(torch.zeros(1, 2, 5))
    opening.begin(here)
    assert asked == [(RECIPE.prompt, plan.source_prompt, RECIPE.negative)]
    assert torch.equal(moved[0, 0], moved[0, 1])
    assert moved[0, 0, 2] > 1.0
    assert moved[0, 0].abs().argmax() == 2
    monkeypatch.setattr(Aim, "score", lambda self, pictures, prompt, **how: torch.zeros(60))
    opening = posed(RECIPE, shelves, registry)[1].stages[-1].opening
    assert opening is not None
    assert torch.equal(opening.begin(here), here), "a sentence that no head follows more than another"
    _, paper = posed(RECIPE.changed(recipe="paper"), shelves, registry)
    assert all(stage.opening is None for stage in paper.stages), "the paper's recipe begins near the mean"


def test_without_an_atlas_an_edit_begins_at_the_photo(shelves: Shelves, registry: Registry) -> None:
    _, problem = posed(RECIPE, shelves, registry)
    assert problem.stages[-1].opening is None


def test_with_an_atlas_the_edit_spares_what_its_axes_change(
    shelves: Shelves, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Atlas(torch.randn(60, 5, generator=torch.Generator().manual_seed(0)), torch.zeros(60, 3, 8, 8))
    regions: list[str] = []

    def region(self: Aim, prompt: str, subject: Subject, **how: Any) -> torch.Tensor:
        regions.append(prompt)
        return torch.ones(1, 1, 4, 4)

    monkeypatch.setattr(ToyGenerator, "atlas", lambda self: known)
    monkeypatch.setattr(Aim, "region", region)
    _, problem = posed(RECIPE, shelves, registry)
    assert not regions, "nothing is looked for before the edit begins"
    last = list(optimize(problem))[-1]
    assert regions == [RECIPE.prompt], "scores that tell nothing leave it to the guidance"
    assert last.losses["reconstruction"] == 0.0
    regions.clear()
    monkeypatch.setattr(Aim, "score", lambda self, pictures, prompt, **how: known.latents[:, 2])
    _, problem = posed(RECIPE, shelves, registry)
    last = list(optimize(problem))[-1]
    assert not regions
    opening = problem.stages[-1].opening
    assert isinstance(opening, Departure)
    spared = opening.spared()
    assert spared is not None
    assert spared.max() > 0.5
