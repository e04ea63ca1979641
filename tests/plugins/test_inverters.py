"""The stages of the inverters, and what they do to a generator that one can reason about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from facednerf_inverters.options import PtiOptions, WPlusOptions
from facednerf_inverters.plugin import build_pti, build_w_plus, register_inverters
from facednerf_inverters.pti import PivotalTuning
from facednerf_inverters.weighing import EveryNth
from facednerf_inverters.wplus import WPlus

from facednerf_core import losses
from facednerf_core.cards import Card
from facednerf_core.compute import rng
from facednerf_core.loop import Problem, State, optimize
from facednerf_core.recipe import Recipe
from facednerf_core.scene import Rendering, Subject
from facednerf_core.terms import Constant, Loss, Stage, Step, Term
from facednerf_core.views import Fixed, Nearby
from tests.toy import ToyGenerator

RECIPE = Recipe(photo="photo.png")
GENERATOR = ToyGenerator()


def photo() -> Subject:
    """Someone who is in W, seen from a little to the left of where the camera was estimated to be."""
    mean = GENERATOR.mean()
    change = torch.tensor([1.0, -0.5, 0.8, -1.0, 0.5]) * GENERATOR.deviation()
    where = GENERATOR.orbit.view((0.3, 0.0))
    seen = GENERATOR.render(GENERATOR.synthesize(mean.with_w(mean.w + change)), where, jitter=None)
    return Subject(GENERATOR.orbit.view((0.25, 0.0)), seen.image, seen.mask)


def pixels(subject: Subject) -> Term:
    def loss(rendering: Rendering | None, step: Step) -> Loss:
        assert rendering is not None
        assert subject.image is not None
        return Loss((rendering.image - subject.image).square().flatten(1).mean(1))

    return Term("reconstruction", Fixed(), loss)


def offered(subject: Subject) -> dict[str, Term]:
    """The terms that compose offers."""
    return {
        "reconstruction": pixels(subject),
        "latent": Term("latent", None, losses.latent_prior(GENERATOR.deviation())),
        "locality": Term("locality", Nearby(0.5, 0.2), losses.locality(), against="nearby"),
        "silhouette": Term("silhouette", Fixed(), losses.silhouette(subject)),
        "identity": Term("identity", Fixed(), lambda rendering, step: Loss(torch.zeros(1)), sees=0.7),
        "guidance": Term("guidance", Nearby(), lambda rendering, step: Loss(torch.zeros(1))),
    }


def walked(
    stages: list[Stage], start: State, generator: ToyGenerator = GENERATOR
) -> tuple[State, list[float], dict[str, State]]:
    """The last state, the reconstruction at each step, and the state as each stage ended."""
    values, ends, state = [], {}, start
    for step in optimize(Problem(GENERATOR, start, stages)):
        values.append(step.losses["reconstruction"])
        state = ends[step.stage] = step.state
    return state, values, ends


def weights(stage: Stage) -> Mapping[str, float]:
    return {term.name: term.weight(0.5) for term in stage.terms}


def test_w_plus_begins_at_the_mean_for_each_subject() -> None:
    two = Subject(GENERATOR.orbit.view((0.0, 0.0), subjects=2))
    latent = WPlus().begin(GENERATOR, two, rng(0))
    assert torch.equal(latent.w, GENERATOR.mean().w.repeat(2, 1, 1))
    assert set(latent.noise) == {"noise"}


def test_the_rows_of_w_stay_together_unless_steps_are_given_to_part_them() -> None:
    def names(own: WPlusOptions, **steps: int) -> list[str]:
        return [stage.name for stage in WPlus(own).stages(RECIPE.changed(steps=steps), offered(photo()))]

    assert names(WPlusOptions()) == ["invert"]
    assert names(WPlusOptions(refine_steps=3)) == ["invert", "refine"]
    assert names(WPlusOptions(), refine=3) == ["invert", "refine"]
    assert names(WPlusOptions(), refine=0) == ["invert", "refine"]


def test_w_plus_searches_w_with_the_camera_then_a_little_of_w_plus() -> None:
    own = WPlusOptions(identity=0.3, silhouette=0.7, refine_steps=30)
    invert, refine = WPlus(own).stages(RECIPE, offered(photo()))
    assert (invert.name, refine.name) == ("invert", "refine")
    assert (invert.tied, refine.tied) == (True, False)
    assert invert.solve_for == refine.solve_for == {"latent", "camera"}
    assert (invert.steps, refine.steps) == (own.invert_steps, own.refine_steps)
    assert invert.lr["latent"] > refine.lr["latent"]
    assert invert.lr["camera"] > refine.lr["camera"]
    kept = {"reconstruction": 1.0, "identity": 0.3, "silhouette": 0.7}
    assert weights(invert) == {**kept, "latent": own.invert_prior}
    assert weights(refine) == {**kept, "latent": own.refine_prior}


def test_steps_of_the_recipe_go_before_and_size_is_taken() -> None:
    recipe = Recipe(photo="p", steps={"invert": 5, "refine": 0, "tune": 7}, size=32)
    stages = [*WPlus().stages(recipe, offered(photo())), *PivotalTuning().stages(recipe, offered(photo()))]
    assert [(stage.steps, stage.size) for stage in stages] == [(5, 32), (0, 32), (7, 32)]


def test_terms_that_are_not_offered_are_left_out() -> None:
    few = {"reconstruction": pixels(photo())}
    stages = [*WPlus(WPlusOptions(refine_steps=1)).stages(RECIPE, few), *PivotalTuning().stages(RECIPE, few)]
    assert [[term.name for term in stage.terms] for stage in stages] == [["reconstruction"]] * 3


def test_w_plus_finds_the_latent_and_the_camera() -> None:
    subject = photo()
    inverter = WPlus(WPlusOptions(invert_prior=0.01, refine_prior=0.05, refine_steps=30))  # held less near to the mean
    start = State.begin(inverter.begin(GENERATOR, subject, rng(0)), subject.view)
    terms = {name: term for name, term in offered(subject).items() if name != "identity"}
    _, values, ends = walked(list(inverter.stages(RECIPE, terms)), start)
    assert values[-1] < 0.05 * values[0]
    found, refined = ends["invert"], ends["refine"]
    assert torch.allclose(found.offset[:, 0], found.offset[:, 1])  # in W, in units of deviation
    assert not torch.allclose(refined.offset[:, 0], refined.offset[:, 1])
    assert float(refined.offset.abs().max()) < 0.3 * float(found.offset.abs().max())
    assert float(found.increment.abs().max()) > 1e-4


def test_tuning_moves_the_generator_alone_and_fits_the_photo() -> None:
    subject = photo()
    terms = {name: term for name, term in offered(subject).items() if name in ("reconstruction", "silhouette")}
    latent = PivotalTuning().begin(GENERATOR, subject, rng(0))
    stages = list(PivotalTuning(PtiOptions(rate=0.01)).stages(RECIPE, terms))
    state, values, _ = walked(stages, State.begin(latent, subject.view))
    assert values[-1] < 0.2 * values[0]
    assert set(state.weights) == {"basis"}
    assert float(state.offset.abs().max()) == float(state.increment.abs().max()) == 0.0


def test_locality_keeps_what_the_photo_does_not_show() -> None:
    subject = photo()
    latent = GENERATOR.mean()
    near = latent.with_w(latent.w + 0.3 * torch.randn(1, 2, 5, generator=rng(3)))
    side = GENERATOR.orbit.view((-0.3, 0.0))

    def harm(options: PtiOptions) -> float:
        terms = {name: term for name, term in offered(subject).items() if name in ("reconstruction", "locality")}
        stages = list(PivotalTuning(options).stages(RECIPE, terms))
        state, _, _ = walked(stages, State.begin(latent, subject.view))
        tuned = GENERATOR.tuned(state.weights)
        before = GENERATOR.render(GENERATOR.synthesize(near), side, jitter=None).image
        return float((tuned.render(tuned.synthesize(near), side, jitter=None).image - before).square().mean())

    free, kept = harm(PtiOptions(rate=0.01, locality=0.0)), harm(PtiOptions(rate=0.01, locality=3.0))
    assert kept < 0.7 * free


def test_tune_looks_at_the_photo_and_keeps_nearby_heads_and_side_views() -> None:
    (stage,) = PivotalTuning().stages(RECIPE, offered(photo()))
    assert stage.solve_for == {"weights"}
    against = {term.name: term.against for term in stage.terms}
    assert against == {
        "reconstruction": None,
        "identity": None,
        "silhouette": None,
        "locality": "nearby",
        "sides": "untuned",
    }
    (more,) = PivotalTuning(PtiOptions(locality=4.0)).stages(RECIPE, offered(photo()))
    shares = [{term.name: term.weight(1 / own.steps) for term in own.terms}["sides"] for own in (stage, more)]
    assert shares[1] == pytest.approx(4 / PtiOptions().locality * shares[0])
    assert shares[0] > 0
    assert "locality" not in weights(PivotalTuning(PtiOptions(locality=0.0)).stages(RECIPE, offered(photo()))[0])


def test_the_papers_tuning_goes_on_with_the_terms_before() -> None:
    terms = offered(photo())
    del terms["latent"], terms["locality"]
    terms["guidance"] = replace(terms["guidance"], weight=Constant(0.7))
    paper = Recipe(photo="p", recipe="paper")
    (stage,) = PivotalTuning().stages(paper, terms)
    assert weights(stage) == {"reconstruction": 1.0, "silhouette": 1.0, "identity": 1.0, "guidance": 0.7}


def test_nearby_latents_are_watched_at_one_step_of_three() -> None:
    weight = EveryNth(2.0, every=3, steps=60)
    values = [weight(index / 60) for index in range(60)]
    assert values[:4] == [6.0, 0.0, 0.0, 6.0]
    assert sum(values) / 60 == 2.0
    later = EveryNth(2.0, every=3, steps=60, first=1)
    assert [later(index / 60) for index in range(5)] == [0.0, 6.0, 0.0, 0.0, 6.0]
    assert sum(EveryNth(1.0, every=3, steps=7)(index / 7) > 0 for index in range(7)) == 3


def test_cards_build_both() -> None:
    cards: list[Card] = []
    register_inverters(cards.append)
    assert [card.name for card in cards] == ["w-plus", "pti"]
    assert not any(card.needs_weights for card in cards)
    built = [card.build(torch.device("cpu"), None, **card.checked({})) for card in cards]
    assert [type(each) for each in built] == [WPlus, PivotalTuning]
    quick = build_w_plus(torch.device("cpu"), None, invert_steps=3)
    assert isinstance(quick, WPlus)
    assert quick.options.invert_steps == 3
    assert isinstance(build_pti(torch.device("cpu"), None, every=1), PivotalTuning)
