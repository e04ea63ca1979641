"""Pivotal tuning: the latent found for the photo is held, and the generator is bent until it draws the photo there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from facednerf_core.interfaces import Inverter
from facednerf_core.terms import Ramp, Stage
from facednerf_inverters.options import TUNE, PtiOptions
from facednerf_inverters.weighing import EveryNth, weighed

if TYPE_CHECKING:
    import torch

    from facednerf_core.interfaces import Generator
    from facednerf_core.recipe import Recipe
    from facednerf_core.scene import Latent, Subject
    from facednerf_core.terms import Term


class PivotalTuning(Inverter):
    """One stage, `tune` (Roich et al. 2022, "Pivotal Tuning for Latent-based Editing of Real Images", Eq. 2 and 4).

    In the default recipe it looks at the photo, and is kept local in two ways: heads near the subject, and the subject
    itself from the side, must look, and lie in depth, as the untuned generator draws them. Without that, what the photo
    does not show fills with speckles. In the paper's recipe (Eq. 8) it goes on with the terms and weights of the search
    before, guidance included.
    """

    def __init__(self, options: PtiOptions | None = None) -> None:
        self.options = options or PtiOptions()

    def begin(self, generator: Generator, subject: Subject, rng: torch.Generator) -> Latent:
        """The subject's latent, or the mean where it has none: tuning alone searches no latent."""
        latent = subject.latent or generator.mean()
        subjects = subject.view.camera.shape[0]
        return latent if latent.w.shape[0] == subjects else latent.with_w(latent.w.repeat(subjects, 1, 1))

    def stages(self, recipe: Recipe, terms: Mapping[str, Term]) -> Sequence[Stage]:
        """`tune`, on the terms that are offered."""
        steps = recipe.steps.get(TUNE, self.options.tune_steps)
        chosen = self._photo(terms) if recipe.recipe == "default" else self._same(terms)
        return [
            Stage(
                TUNE,
                frozenset({"weights"}),
                [*chosen, *self._kept(terms, steps)],
                steps,
                {"weights": self.options.rate},
                Ramp(rise=0.1, fall=0.3),
                size=recipe.size,
            )
        ]

    def _photo(self, terms: Mapping[str, Term]) -> Sequence[Term]:
        own = self.options
        return weighed(terms, {"reconstruction": 1.0, "identity": own.identity, "silhouette": own.silhouette})

    def _same(self, terms: Mapping[str, Term]) -> Sequence[Term]:
        """The terms of the search before, as they were weighed there; the latent does not move any more."""
        return [term for name, term in terms.items() if name not in ("latent", "noise", "locality")]

    def _kept(self, terms: Mapping[str, Term], steps: int) -> Sequence[Term]:
        """Locality at nearby latents, and at the subject's own side views."""
        if "locality" not in terms:
            return []
        own = self.options
        factor = own.locality
        if not factor:
            return []
        near = replace(terms["locality"], against="nearby", weight=EveryNth(factor, own.every, steps))
        turns = EveryNth(factor * own.sides, own.every, steps, first=1)
        sides = replace(terms["locality"], name="sides", against="untuned", weight=turns)
        return [near, sides] if own.sides else [near]
