"""The contract of inverters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

import torch

from facednerf_core.recipe import Recipe
from facednerf_core.scene import Latent, Rendering, Subject
from facednerf_core.terms import Loss, LossFn, Stage, Step, Term, Variable
from facednerf_core.testing.probes import pictures, seeded

if TYPE_CHECKING:
    from facednerf_core.interfaces import Generator, Inverter


class InverterContract(ABC):
    """What every inverter keeps: where it begins, and stages that are made of the terms it was offered."""

    @abstractmethod
    def make(self) -> Inverter:
        """The inverter to be tested."""

    @abstractmethod
    def generator(self) -> Generator:
        """A generator, as small as you like."""

    def terms(self) -> Mapping[str, Term]:
        """The terms that compose offers."""

        return {
            name: Term(name, None, unrun()) for name in ("reconstruction", "identity", "latent", "locality", "silhouette")
        }

    def begun(self, count: int, seed: int = 0) -> Latent:
        """Where a search for `count` subjects begins."""
        generator = self.generator()
        subject = Subject(generator.orbit.view((0.0, 0.0), subjects=count), pictures(count, 1, generator.size))
        return self.make().begin(generator, subject, seeded(seed))

    def stages(self, **changes: Any) -> Sequence[Stage]:
        """The stages of a recipe."""
        return self.make().stages(Recipe(photo="photo.png", prompt="old", **changes), self.terms())

    def test_it_begins_with_one_latent_for_each_subject(self) -> None:
        _, length, channels = self.generator().mean().w.shape
        latent = self.begun(2)
        assert latent.w.shape == (2, length, channels), f"the start is (N, L, C), not {tuple(latent.w.shape)}"
        assert latent.w.isfinite().all(), "the start is finite"
        assert set(latent.noise) == set(self.generator().mean().noise), "the start has the generator's noise maps"

    def test_the_start_depends_on_its_rng_alone(self) -> None:
        state = torch.get_rng_state()
        assert torch.equal(self.begun(1).w, self.begun(1).w), "the same rng gives the same start"
        assert torch.equal(state, torch.get_rng_state()), "begin must not draw from torch's global generator"

    def test_stages_have_names_and_terms_that_were_offered(self) -> None:
        offered = self.terms()
        stages = self.make().stages(Recipe(photo="photo.png", prompt="old"), offered)
        assert stages, "an inverter has at least one stage"
        assert len({stage.name for stage in stages}) == len(stages), "each stage has a name of its own"
        for stage in stages:
            assert stage.terms, f"stage {stage.name} has terms"
            assert made_of(stage, offered), f"stage {stage.name} is made of the losses that were offered"

    def test_stages_say_how_fast_each_variable_moves(self) -> None:
        for stage in self.stages():
            assert stage.solve_for <= set(get_args(Variable)), f"stage {stage.name} moves unknown variables"
            assert stage.solve_for, f"stage {stage.name} moves something"
            missing = stage.solve_for - set(stage.lr)
            assert not missing, f"stage {stage.name} has no learning rate for {sorted(missing)}"

    def test_the_user_sets_the_steps(self) -> None:
        names = [stage.name for stage in self.stages()]
        steps = [stage.steps for stage in self.stages(steps=dict.fromkeys(names, 3))]
        assert steps == [3] * len(names), "recipe.steps sets the steps of each stage by its name"

    def test_a_term_that_is_not_offered_is_not_needed(self) -> None:
        only = {"reconstruction": self.terms()["reconstruction"], "locality": self.terms()["locality"]}
        for stage in self.make().stages(Recipe(photo="photo.png", prompt="old"), only):
            assert made_of(stage, only), "identity, latent and silhouette may be missing"


def unrun() -> LossFn:
    """A loss of its own identity, which is never evaluated: stages are posed, not run, by the contract."""

    def loss(rendering: Rendering | None, step: Step) -> Loss:
        raise NotImplementedError("the contract of inverters runs no stage")

    return loss


def made_of(stage: Stage, offered: Mapping[str, Term]) -> bool:
    """Whether the stage's losses are those of the offered terms; names, weights and looks are the inverter's own."""
    return all(any(term.loss is other.loss for other in offered.values()) for term in stage.terms)
