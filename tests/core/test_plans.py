"""Recipe and plugins in, plan out: which parts, weights and options, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from facednerf_core import plans
from facednerf_core.cards import Card, WeightsCard
from facednerf_core.errors import DomainMismatch, InputError, MissingWeights, UnknownName, Unsupported
from facednerf_core.hookspecs import hookimpl
from facednerf_core.plugins import Shelves
from facednerf_core.weights import Registry
from tests.toy_plugin import RECIPE, Options, Toys


def test_the_pack_is_the_first_that_is_complete_on_this_machine(shelves: Shelves, registry: Registry) -> None:
    plan = plans.plan(RECIPE, shelves, registry)
    assert plan.pack == "starter"
    assert plan.scene.name == "toy/starter"
    assert plan.identity is not None
    assert plan.identity.weights is not None
    assert plan.identity.weights.card.name == "arcface/starter", "packs never mix"
    with pytest.raises(MissingWeights):
        plans.plan(RECIPE.changed(weights_pack="official"), shelves, registry)
    with pytest.raises(UnknownName, match="Did you mean 'starter'"):
        plans.plan(RECIPE.changed(weights_pack="startre"), shelves, registry)


def test_a_default_identity_that_does_not_fit_is_left_out_with_a_note(shelves: Shelves, registry: Registry) -> None:
    plan = plans.plan(RECIPE.changed(weights_cards={"generator": "toy/cats"}), shelves, registry)
    assert plan.pack == "cats", "a pack of cats is complete without an identity for faces"
    assert plan.identity is None
    assert plan.notes == ("arcface knows face; this generator draws cat, so it is left out.",)


def test_an_identity_or_guidance_that_the_user_named_and_does_not_fit_is_refused(
    shelves: Shelves, registry: Registry
) -> None:
    cats = RECIPE.changed(weights_cards={"generator": "toy/cats"}, weights_pack="cats", identity="arcface")
    with pytest.raises(DomainMismatch, match=r"arcface knows face; this generator draws cat.*--identity none"):
        plans.plan(cats, shelves, registry)
    with pytest.raises(DomainMismatch, match="cars knows car; this generator draws face"):
        plans.plan(RECIPE.changed(guidance="cars"), shelves, registry)


def test_weights_by_name_must_be_for_that_part(shelves: Shelves, registry: Registry) -> None:
    with pytest.raises(InputError, match="are for the identity 'arcface', not for the generator 'toy'"):
        plans.plan(RECIPE.changed(weights_cards={"generator": "arcface/starter"}), shelves, registry)


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
    plan = plans.plan(recipe, shelves, registry)
    assert list(plan.metrics) == ["ruler", "score"]
    assert plan.metrics["ruler"].options == {"depth": 7}
    assert plan.metrics["score"].weights is not None
    assert plan.metrics["score"].weights.card.name == "score/one"
    assert not {"ruler", "score"} & {part.card.name for part in plan.parts().values()}, "no term uses them"
    domain, missing = plan.notes
    assert domain == "purr knows cat; this generator draws face, so it is left out."
    assert missing.startswith("the metric lost is left out: the weights lost/one should lie in")
    with pytest.raises(InputError, match="ruler has no option 'width'"):
        plans.plan(RECIPE.changed(options={"ruler": {"width": 7}}), shelves, registry)


def test_options_are_the_cards_then_the_users_and_checked(shelves: Shelves, registry: Registry) -> None:
    assert plans.plan(RECIPE, shelves, registry).generator.options == {"depth": 9}
    own = RECIPE.changed(options={"toy": {"depth": "4"}})
    assert plans.plan(own, shelves, registry).generator.options == {"depth": 4}
    with pytest.raises(InputError, match="toy has no option 'width'; it has: depth"):
        plans.plan(RECIPE.changed(options={"toy": {"width": 4}}), shelves, registry)
    with pytest.raises(UnknownName, match="Did you mean 'toy'"):
        plans.plan(RECIPE.changed(options={"toi": {}}), shelves, registry)


def test_what_a_photo_shows_is_the_domains_name(shelves: Shelves, registry: Registry) -> None:
    plan = plans.plan(RECIPE, shelves, registry)
    for domain, name in {"cat": "a cat", "car": "a car", "body": "a person", "teapot": None}.items():
        weights_of = plan.generator.weights
        card = replace(weights_of.card, domains=frozenset({domain}))
        other = replace(plan, generator=replace(plan.generator, weights=replace(weights_of, card=card)))
        assert other.source_prompt == name


@pytest.mark.parametrize("prompt", ["", " \n", "12 !"])
def test_an_empty_sentence_is_refused(prompt: str, shelves: Shelves, registry: Registry) -> None:
    with pytest.raises(InputError, match="the sentence is empty"):
        plans.plan(RECIPE.changed(prompt=prompt), shelves, registry)


def test_a_picture_is_as_wide_as_its_orbit_says() -> None:
    card = WeightsCard("toy/tall", "toy", "generator", "starter", "Tall.", resolution=512)
    assert plans.frame(card) == (512, 512)
    assert plans.frame(replace(card, orbit={"aspect": 2.0})) == (512, 256)
    assert plans.frame(replace(card, orbit={"aspect": 0.75})) == (512, 683)


def test_strength_belongs_to_edits_of_the_default_recipe() -> None:
    plans.check_strength(RECIPE.changed(strength=0.5))
    with pytest.raises(Unsupported, match="tunes the generator after the edit"):
        plans.check_strength(RECIPE.changed(strength=0.5, recipe="paper"))
    with pytest.raises(Unsupported, match="there is no edit"):
        plans.check_strength(RECIPE.changed(strength=0.5, task="invert"))
