"""Inversions and edits by the product's own stages: `prepare` and `optimize`, with an inversion shared by many sentences."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from facednerf_core import Recipe, optimize
from facednerf_core.loop import State
from facednerf_core.photos import Portrait
from facednerf_core.runs import Prepared, prepare
from facednerf_core.scene import Latent, Rendering
from facednerf_core.views import View, orbited
from facednerf_starter.measures.effort import Effort

SIDES = (-0.4, 0.4)
"""Yaws, from the portrait's own, of the views that the portrait does not show, radians."""


@dataclass(frozen=True)
class Inversion:
    """A portrait brought into the generator: latent, camera and tuned tensors, as before an edit."""

    prepared: Prepared
    state: State  # as the last stage before an edit ended

    @property
    def latent(self) -> Latent:
        """The portrait's latent."""
        return self.state.latent(self.prepared.problem.generator.deviation()).detach()

    @torch.no_grad()
    def seen(self, latent: Latent, turns: tuple[float, ...]) -> Rendering:
        """A latent in the tuned generator, one subject, from the portrait's camera turned by some yaws."""
        tuned = self.prepared.problem.generator.tuned(self.state.weights)
        camera = self.state.camera.detach().camera[0]  # (1, 25)
        yaw = torch.tensor(turns, dtype=camera.dtype, device=camera.device)
        view = View(orbited(camera.expand(len(turns), -1), tuned.orbit, yaw, torch.zeros_like(yaw))[None])
        return tuned.render(tuned.synthesize(latent), view, jitter=None)

    def pictures(self, latent: Latent, turns: tuple[float, ...] = (0.0, *SIDES)) -> Tensor:
        """Its pictures (V, 3, H, W) on the CPU, within [-1, 1]."""
        return self.seen(latent, turns).image[0].clamp(-1, 1).cpu()


def _recipe(effort: Effort, **fields: str) -> Recipe:
    steps = {name: count for name, count in effort.steps.items() if fields["task"] == "edit" or name != "edit"}
    return Recipe.from_dict({"device": effort.device, "steps": steps, "seed": 0, **fields})


def inverted(subject: Portrait, effort: Effort) -> Inversion:
    """The portrait's inversion by the default recipe."""
    prepared = prepare(_recipe(effort, task="invert"), portrait=subject)
    state = prepared.problem.start
    for step in optimize(prepared.problem):
        state = step.state
    return Inversion(prepared, state)


def edited(inversion: Inversion, sentence: str, effort: Effort) -> Latent:
    """The latent of an edit by the default recipe, gone on with from the inversion: what `edit` would end with."""
    recipe = _recipe(effort, task="edit", prompt=sentence)
    prepared = prepare(recipe, portrait=inversion.prepared.portrait)
    state = inversion.state
    for step in optimize(prepared.problem, state):
        state = step.state
    return state.latent(prepared.problem.generator.deviation()).detach()
