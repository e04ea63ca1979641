"""Recipe and plugins in, problem out: which parts, weights, stages and terms, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from facednerf_core import compose
from facednerf_core.cards import Card, WeightsCard
from facednerf_core.errors import DomainMismatch, InputError, MissingWeights, UnknownName, Unsupported
from facednerf_core.hookspecs import hookimpl
from facednerf_core.interfaces import Guidance, Identity, Inverter
from facednerf_core.loop import Problem, optimize
from facednerf_core.perceptual import Perceptual, Vgg16
from facednerf_core.plugins import Shelves
from facednerf_core.recipe import Recipe, Weights
from facednerf_core.scene import Subject
from facednerf_core.terms import Loss, Stage
from facednerf_core.views import Fixed, Nearby
from facednerf_core.weights import Registry
from tests.toy import ToyGenerator

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Options:
    depth: int = 3


def zero(rendering, step) -> Loss:
    return Loss(step.latent.w.mean(dim=(1, 2)))


class Aim(Guidance, Identity):
    """A guidance, and an identity."""

    def aim(self, *given: Any, **named: Any):
        return zero

    def embed(self, image, landmarks=None):
        return image.flatten(2)


class Search(Inverter):
    """One stage of the reconstruction."""

    def __init__(self, name: str, variable: Any) -> None:
        self.name, self.variable = name, variable

    def begin(self, generator, subject, rng):
        return generator.mean()

    def stages(self, recipe, terms):
        steps = recipe.steps.get(self.name, 5)
        return [Stage(self.name, frozenset({self.variable}), [terms["reconstruction"]], steps, {self.variable: 0.1})]


class Toys:
    """A plugin with one of everything, and weights for it in two packs, of which the official ones are elsewhere."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "net").write_bytes(b"net")

    @hookimpl
    def register_generators(self, register):
        register(Card("toy", "Toy.", lambda d, w, **o: ToyGenerator(), domains=("face", "cat"), options=Options))

    @hookimpl
    def register_guidances(self, register):
        register(Card("words", "Words.", lambda d, w: Aim(), sees=0.15, needs_weights=False))
        register(Card("loud", "A large loss.", lambda d, w: Aim(), weight=0.25, needs_weights=False))
        register(Card("cars", "Cars only.", lambda d, w: Aim(), domains=("car",), needs_weights=False))

    @hookimpl
    def register_identities(self, register):
        register(Card("arcface", "Faces.", lambda d, w: Aim(), domains=("face",), sees=0.7))

    @hookimpl
    def register_inverters(self, register):
        register(Card("w-plus", "Search.", lambda d, w: Search("invert", "latent"), needs_weights=False))
        register(Card("pti", "Tune.", lambda d, w: Search("tune", "weights"), needs_weights=False))

    @hookimpl
    def register_detectors(self, register):
        register(Card("starter", "Finds.", lambda d, w: None, needs_weights=False))

    def card(self, name: str, plugin: str, kind: str, pack: str = "starter", here: bool = True, **more: Any) -> WeightsCard:
        where = {"files": {"net": "net"}, "folder": self.folder if here else self.folder / "elsewhere"}
        return WeightsCard(name, plugin, kind, pack, "A net.", **where, **more)

    @hookimpl
    def register_weights(self, register):
        face = {"domains": ("face",), "resolution": 8}
        provides = {"provides": ("mask",), "options": {"depth": 9}}
        register(self.card("toy/starter", "toy", "generator", **face, **provides))
        register(self.card("toy/cats", "toy", "generator", "cats", domains=("cat",), resolution=8))
        register(self.card("toy/official", "toy", "generator", "official", here=False, **face))
        register(self.card("arcface/starter", "arcface", "identity", domains=("face",)))
        register(self.card("arcface/official", "arcface", "identity", "official", domains=("face",)))
        register(self.card("vgg16/starter", "vgg16", "perceptual"))
        register(self.card("vgg16/cats", "vgg16", "perceptual", "cats"))


@pytest.fixture
def shelves(tmp_path: Path) -> Shelves:
    found = Shelves(toys=Toys(tmp_path))
    assert not found.broken
    return found


@pytest.fixture
def registry(shelves: Shelves, tmp_path: Path) -> Registry:
    return Registry(shelves.weights, tmp_path / "cache")


RECIPE = Recipe(prompt="a woman, blue hair", backbone="toy", guidance="words")


def posed(recipe: Recipe, shelves: Shelves, registry: Registry, mask: bool = True) -> tuple[compose.Plan, Problem]:
    plan = compose.plan(recipe, shelves, registry)
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


def test_what_a_photo_shows_is_the_domains_name(shelves: Shelves, registry: Registry) -> None:
    plan, _ = posed(RECIPE, shelves, registry)
    for domain, name in {"cat": "a cat", "car": "a car", "body": "a person", "teapot": None}.items():
        weights_of = plan.generator.weights
        card = replace(weights_of.card, domains=frozenset({domain}))
        other = replace(plan, generator=replace(plan.generator, weights=replace(weights_of, card=card)))
        assert other.source_prompt == name


def test_a_stage_that_is_not_there_takes_no_steps(shelves: Shelves, registry: Registry) -> None:
    with pytest.raises(UnknownName, match=r"'edti'.*Did you mean 'edit'"):
        posed(RECIPE.changed(steps={"edti": 4}), shelves, registry)
    with pytest.raises(UnknownName, match="'joint'"):
        posed(RECIPE.changed(steps={"joint": 4}), shelves, registry)


def test_the_pack_is_the_first_that_is_complete_on_this_machine(shelves: Shelves, registry: Registry) -> None:
    plan = compose.plan(RECIPE, shelves, registry)
    assert plan.pack == "starter"
    assert plan.scene.name == "toy/starter"
    assert plan.identity is not None
    assert plan.identity.weights is not None
    assert plan.identity.weights.card.name == "arcface/starter", "packs never mix"
    with pytest.raises(MissingWeights):
        compose.plan(RECIPE.changed(weights_pack="official"), shelves, registry)
    with pytest.raises(UnknownName, match="Did you mean 'starter'"):
        compose.plan(RECIPE.changed(weights_pack="startre"), shelves, registry)


def test_a_default_identity_that_does_not_fit_is_left_out_with_a_note(shelves: Shelves, registry: Registry) -> None:
    plan = compose.plan(RECIPE.changed(weights_cards={"generator": "toy/cats"}), shelves, registry)
    assert plan.pack == "cats", "a pack of cats is complete without an identity for faces"
    assert plan.identity is None
    assert plan.notes == ("arcface knows face; this generator draws cat, so it is left out.",)


def test_an_identity_or_guidance_that_the_user_named_and_does_not_fit_is_refused(
    shelves: Shelves, registry: Registry
) -> None:
    cats = RECIPE.changed(weights_cards={"generator": "toy/cats"}, weights_pack="cats", identity="arcface")
    with pytest.raises(DomainMismatch, match=r"arcface knows face; this generator draws cat.*--identity none"):
        compose.plan(cats, shelves, registry)
    with pytest.raises(DomainMismatch, match="cars knows car; this generator draws face"):
        compose.plan(RECIPE.changed(guidance="cars"), shelves, registry)


def test_weights_by_name_must_be_for_that_part(shelves: Shelves, registry: Registry) -> None:
    with pytest.raises(InputError, match="are for the identity 'arcface', not for the generator 'toy'"):
        compose.plan(RECIPE.changed(weights_cards={"generator": "arcface/starter"}), shelves, registry)


def test_metrics_that_fit_are_planned_and_the_others_noted(tmp_path: Path) -> None:
    class Judges(Toys):
        @hookimpl
        def register_metrics(self, register):
            register(Card("ruler", "Measures.", lambda d, w, **o: None, options=Options, needs_weights=False))
            register(Card("purr", "Judges cats.", lambda d, w: None, domains=("cat",), needs_weights=False))
            register(Card("score", "Judges.", lambda d, w: None))
            register(Card("lost", "Has no weights here.", lambda d, w: None))

        @hookimpl
        def register_weights(self, register):
            super().register_weights(register)
            register(self.card("score/one", "score", "metric", "any"))
            register(self.card("lost/one", "lost", "metric", "any", here=False))

    shelves = Shelves(judges=Judges(tmp_path))
    assert not shelves.broken
    registry = Registry(shelves.weights, tmp_path / "cache")
    recipe = RECIPE.changed(options={"ruler": {"depth": 7}})
    plan = compose.plan(recipe, shelves, registry)
    assert list(plan.metrics) == ["ruler", "score"]
    assert plan.metrics["ruler"].options == {"depth": 7}
    assert plan.metrics["score"].weights is not None
    assert plan.metrics["score"].weights.card.name == "score/one"
    assert not {"ruler", "score"} & {part.card.name for part in plan.parts().values()}, "no term uses them"
    domain, missing = plan.notes
    assert domain == "purr knows cat; this generator draws face, so it is left out."
    assert missing.startswith("the metric lost is left out: the weights lost/one should lie in")
    with pytest.raises(InputError, match="ruler has no option 'width'"):
        compose.plan(RECIPE.changed(options={"ruler": {"width": 7}}), shelves, registry)


def test_options_are_the_cards_then_the_users_and_checked(shelves: Shelves, registry: Registry) -> None:
    assert compose.plan(RECIPE, shelves, registry).generator.options == {"depth": 9}
    own = RECIPE.changed(options={"toy": {"depth": "4"}})
    assert compose.plan(own, shelves, registry).generator.options == {"depth": 4}
    with pytest.raises(InputError, match="toy has no option 'width'; it has: depth"):
        compose.plan(RECIPE.changed(options={"toy": {"width": 4}}), shelves, registry)
    with pytest.raises(UnknownName, match="Did you mean 'toy'"):
        compose.plan(RECIPE.changed(options={"toi": {}}), shelves, registry)


def test_a_silhouette_needs_masks_on_both_sides(shelves: Shelves, registry: Registry) -> None:
    paper = RECIPE.changed(recipe="paper")
    assert "silhouette" in weights(posed(paper, shelves, registry)[1].stages[0])
    assert "silhouette" not in weights(posed(paper, shelves, registry, mask=False)[1].stages[0])


@pytest.mark.parametrize("prompt", ["", " \n", "12 !"])
def test_an_empty_sentence_is_refused(prompt: str, shelves: Shelves, registry: Registry) -> None:
    with pytest.raises(InputError, match="the sentence is empty"):
        compose.plan(RECIPE.changed(prompt=prompt), shelves, registry)


def test_a_picture_is_as_wide_as_its_orbit_says() -> None:
    card = WeightsCard("toy/tall", "toy", "generator", "starter", "Tall.", resolution=512)
    assert compose.frame(card) == (512, 512)
    assert compose.frame(replace(card, orbit={"aspect": 2.0})) == (512, 256)
    assert compose.frame(replace(card, orbit={"aspect": 0.75})) == (512, 683)


def test_strength_belongs_to_edits_of_the_default_recipe() -> None:
    compose.check_strength(RECIPE.changed(strength=0.5))
    with pytest.raises(Unsupported, match="tunes the generator after the edit"):
        compose.check_strength(RECIPE.changed(strength=0.5, recipe="paper"))
    with pytest.raises(Unsupported, match="there is no edit"):
        compose.check_strength(RECIPE.changed(strength=0.5, task="invert"))


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
