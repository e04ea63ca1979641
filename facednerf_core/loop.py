"""The loop: a latent becomes a scene, a scene becomes renderings, terms score renderings, a stage says what to move.

Invert, edit, relight and generate differ only in their stages. Everything that a step needs is a function of
(`State`, index): random numbers come from `compute.rng` by name, so a resumed run equals an uninterrupted one bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from facednerf_core.compute import rng
from facednerf_core.errors import Diverged
from facednerf_core.events import Stepped
from facednerf_core.scene import Latent, Rendering, Scene
from facednerf_core.terms import Loss, Stage, Step, Term, Variable
from facednerf_core.views import Look, View, angles, nudged, stack

if TYPE_CHECKING:
    from facednerf_core.interfaces import Generator, Guidance

NEARBY = 0.3  # how far towards a random latent the locality of tuning is watched


@dataclass(frozen=True)
class State:
    """All that a step changes or needs: with the index, enough to go on bit for bit."""

    stage: str
    index: int  # steps done in this stage
    source: Latent  # as the stage began
    offset: Tensor  # (N, L, C), from the source's w, in units of W's deviation
    noise: Mapping[str, Tensor]
    home: View  # the photo's camera as it was found, (N, 1, 25)
    increment: Tensor  # (N, 1, 7), see views.nudged
    weights: Mapping[str, Tensor] = field(default_factory=dict)  # tuned tensors
    moments: Mapping[str, Tensor] = field(default_factory=dict)  # Adam's, "variable/moment"
    guidance: Mapping[str, Tensor] = field(default_factory=dict)  # what a guidance learnt in this run

    @classmethod
    def begin(cls, latent: Latent, home: View) -> State:
        """The state before the first stage."""
        increment = torch.zeros(*home.camera.shape[:2], 7, device=home.camera.device)
        return cls("", 0, latent, torch.zeros_like(latent.w), dict(latent.noise), home, increment)

    def latent(self, deviation: Tensor) -> Latent:
        """Today's latent; `deviation` (C,) is the generator's."""
        return Latent(self.source.w + self.offset * deviation, self.noise)

    @property
    def camera(self) -> View:
        """Today's camera of the photo."""
        return View(nudged(self.home.camera, self.increment), self.home.pose)

    def enter(self, stage: Stage, deviation: Tensor) -> State:
        """The state as a stage begins: its source is today's latent, and Adam has no memory."""
        latent = self.latent(deviation).detach()
        offset = torch.zeros_like(latent.w)
        if stage.opening is not None:
            offset = (stage.opening.begin(latent.w) - latent.w) / deviation.clamp_min(1e-12)
        return replace(self, stage=stage.name, index=0, source=latent, offset=offset, moments={})


@dataclass(frozen=True)
class Problem:
    """What compose made of a recipe: a generator, where to begin, and the stages to go through."""

    generator: Generator
    start: State
    stages: Sequence[Stage]
    seed: int = 0
    guidance: Guidance | None = None  # for guidances that train


def optimize(problem: Problem, state: State | None = None) -> Iterator[Stepped]:
    """Go through the stages, yielding after every step; the last event's state is the result.

    A plain generator function: `for step in optimize(problem): ...`, look, break when you like, and pass
    `step.state` in again to go on.

    Raises:
        Diverged: a term's value or gradient is not finite; the message names the term, stage and step.
    """
    state = state or problem.start
    names = [stage.name for stage in problem.stages]
    first = names.index(state.stage) if state.stage else 0
    if problem.guidance is not None and state.guidance:
        problem.guidance.load_state(state.guidance)
    deviation = problem.generator.deviation()
    for stage in problem.stages[first:]:
        if state.stage != stage.name:
            state = state.enter(stage, deviation)
        climb = _Descent(problem, stage, state)
        for index in range(state.index, stage.steps):
            began = time.perf_counter()
            losses, metrics = climb.step(index)
            state = climb.state(index + 1)
            yield Stepped(stage.name, index, stage.steps, losses, metrics, time.perf_counter() - began, state)


class _Descent:
    """One stage being walked: its variables, its optimiser, and the scenes that do not change meanwhile."""

    def __init__(self, problem: Problem, stage: Stage, state: State) -> None:
        self.problem, self.stage, self.base = problem, stage, state
        self.deviation = problem.generator.deviation()
        solve = stage.solve_for
        self.offset = state.offset.clone().requires_grad_("latent" in solve)
        self.noise = {name: value.clone().requires_grad_("noise" in solve) for name, value in state.noise.items()}
        self.increment = state.increment.clone().requires_grad_("camera" in solve)
        # a step along the principal axes; it is added to the offset and begins at nothing again
        self.stride = torch.zeros_like(self.offset, requires_grad=True) if stage.principal and "latent" in solve else None
        self.axes = problem.generator.axes() / self.deviation if self.stride is not None else None  # (C, C)
        tensors = dict(state.weights)
        if "weights" in solve:
            for name, parameter in problem.generator.tunable().items():
                tensors.setdefault(name, parameter.detach())
        self.weights = {name: value.clone().requires_grad_("weights" in solve) for name, value in tensors.items()}
        self.variables = self._variables()
        groups = [
            {"params": list(tensors.values()), "lr": stage.lr[kind], "kind": kind}
            for kind, tensors in self.variables.items()
            if tensors
        ]
        self.adam = torch.optim.Adam(groups) if groups else None
        self._recall(state.moments)
        self._scenes: dict[str, Scene] = {}
        if stage.opening is not None and state.index < stage.steps:
            stage.opening.look(state.source.w, self._drawn)

    def _variables(self) -> dict[Variable, dict[str, Tensor]]:
        every: dict[Variable, dict[str, Tensor]] = {
            "latent": {"offset": self.offset if self.stride is None else self.stride},
            "noise": {f"noise.{name}": value for name, value in self.noise.items()},
            "camera": {"increment": self.increment},
            "weights": {f"weights.{name}": value for name, value in self.weights.items()},
        }
        return {kind: tensors for kind, tensors in every.items() if kind in self.stage.solve_for}

    def _named(self) -> dict[str, Tensor]:
        return {name: value for tensors in self.variables.values() for name, value in tensors.items()}

    def _recall(self, moments: Mapping[str, Tensor]) -> None:
        if self.adam is None:
            return
        for name, variable in self._named().items():
            kept = {key.split("/", 1)[1]: value for key, value in moments.items() if key.split("/", 1)[0] == name}
            if kept:
                self.adam.state[variable] = {key: value.clone() for key, value in kept.items()}

    def state(self, index: int) -> State:
        """A snapshot that nothing later changes."""
        moments = {}
        if self.adam is not None:
            for name, variable in self._named().items():
                for key, value in self.adam.state[variable].items():
                    moments[f"{name}/{key}"] = value.detach().clone()
        guidance = self.problem.guidance
        return replace(
            self.base,
            index=index,
            offset=self.offset.detach().clone(),
            noise=self._snapshot("noise", self.noise),
            increment=self.increment.detach().clone(),
            weights=self._snapshot("weights", self.weights),
            moments=moments,
            guidance={} if guidance is None else {name: value.clone() for name, value in guidance.state().items()},
        )

    def _snapshot(self, kind: Variable, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        moving = kind in self.stage.solve_for
        return {name: value.detach().clone() if moving else value for name, value in tensors.items()}

    def step(self, index: int) -> tuple[dict[str, float], dict[str, float]]:
        """One step of gradient descent; returns each term's weighted loss, and what terms wish to show."""
        terms = [term for term in self.stage.terms if term.counts(index / self.stage.steps) != 0]
        verdicts = self._score(terms, index)
        weighted = {term.name: term.counts(index / self.stage.steps) * verdicts[term.name].value.sum() for term in terms}
        for name, value in weighted.items():
            if not torch.isfinite(value):
                raise Diverged(self._complaint(name, index, f"its value is {value.item()}"))
        if self.adam is not None and weighted:
            self._descend(torch.stack(list(weighted.values())).sum(), terms, index)
        losses = {name: value.item() for name, value in weighted.items()}
        metrics = {f"{name}.{key}": number for name, loss in verdicts.items() for key, number in loss.metrics.items()}
        return losses, metrics

    def _descend(self, total: Tensor, terms: Sequence[Term], index: int) -> None:
        assert self.adam is not None
        self.adam.zero_grad()
        if total.requires_grad:
            total.backward()
        if self.stride is not None and self.offset.grad is not None:
            assert self.axes is not None
            self.stride.grad = self.offset.grad @ self.axes.T
            self.offset.grad = None
        variables = self._named()
        if not all(value.grad is None or bool(torch.isfinite(value.grad).all()) for value in variables.values()):
            raise Diverged(self._complaint(self._guilty(terms, index), index, "its gradient is not finite"))
        searched = self.offset if self.stride is None else self.stride
        if self.stage.tied and searched.grad is not None:
            searched.grad.copy_(searched.grad.mean(dim=1, keepdim=True).expand_as(searched))
        factor = self.stage.schedule((index + 0.5) / self.stage.steps)  # at 0 a ramp would waste the step
        for group in self.adam.param_groups:
            group["lr"] = self.stage.lr[group["kind"]] * factor
        self.adam.step()
        if self.stride is not None:
            assert self.axes is not None
            with torch.no_grad():
                moment = self.adam.state[self.stride].get("exp_avg_sq")
                if moment is not None:  # one scale for all, so that a step is W's covariance times the gradient
                    moment.copy_(moment.mean(dim=(1, 2), keepdim=True).expand_as(moment))
                self.offset += self.stride @ self.axes
                self.stride.zero_()
        if self.stage.reach is not None and "latent" in self.stage.solve_for:
            with torch.no_grad():
                gone = (self.offset * self.deviation).norm(dim=-1, keepdim=True)  # (N, L, 1)
                self.offset *= (self.stage.reach * self.deviation.norm() / gone.clamp_min(1e-12)).clamp_max(1.0)
        if "noise" in self.stage.solve_for and self.stage.renormalise_noise:
            for value in self.noise.values():
                value.data = (value.data - value.data.mean()) / value.data.std(correction=0).clamp_min(1e-8)

    def _guilty(self, terms: Sequence[Term], index: int) -> str:
        """The name of the first term whose gradient, alone, is not finite."""
        variables = list(self._named().values())
        for term in terms:
            value = self._score([term], index)[term.name].value.sum()
            if not value.requires_grad:
                continue
            grads = torch.autograd.grad(value, [*variables, self.offset], allow_unused=True)
            if not all(grad is None or bool(torch.isfinite(grad).all()) for grad in grads):
                return term.name
        return "the sum of all terms"

    def _complaint(self, term: str, index: int, what: str) -> str:
        return (
            f"term {term!r} diverged at step {index} of stage {self.stage.name!r}: {what}. The last checkpoint is kept; "
            f"lower that term's weight or the stage's learning rate, and start again."
        )

    def _score(self, terms: Sequence[Term], index: int) -> dict[str, Loss]:
        """Every term's verdict; one synthesis and one render call, and one more of each per distinct reference."""
        latent = Latent(self.base.source.w + self.offset * self.deviation, self.noise)
        moved = self._wandering(latent, index)
        looks = self._looks(terms)
        views = {look: self._view(look, index) for look in looks}
        generator = self._generator()
        plain = [look for look in looks if any(t.look == look and t.against != "nearby" for t in terms)]
        scene = generator.synthesize(moved) if plain else None
        shots = self._render(generator, scene, {look: views[look] for look in plain}, index)
        result = {}
        for term in terms:
            step = Step(index, self.stage.steps, self._rng(term.name, index), latent, origin=self.base.source)
            if term.look is None:
                result[term.name] = term.loss(None, step)
                continue
            kept = self._seen(term, views[term.look])
            if kept is None:
                result[term.name] = Loss(torch.zeros(latent.w.shape[0], device=latent.w.device))
                continue
            rendering, reference = shots.get(term.look), None
            if term.against == "nearby":
                rendering, reference = self._nearby(generator, views[term.look], latent, term.look, index)
            elif term.against is not None:
                reference = self._reference(generator, term, views[term.look], latent, index)
            assert rendering is not None
            step = replace(step, reference=None if reference is None else _kept(reference, kept))
            result[term.name] = term.loss(_kept(rendering, kept), step)
        return result

    @torch.no_grad()
    def _drawn(self, w: Tensor) -> Tensor:
        """Latents as the photo was taken, before the stage's first step: pictures (N, 3, S, S)."""
        generator = self._generator()
        scene = generator.synthesize(Latent(w, self.noise))
        return generator.render(scene, self._home(), jitter=None, size=self.stage.size).image[:, 0]

    def _generator(self) -> Generator:
        """The generator as it is bent so far."""
        return self.problem.generator.tuned(self.weights) if self.weights else self.problem.generator

    def _home(self) -> View:
        """The photo's camera as it is found so far."""
        return View(nudged(self.base.home.camera, self.increment), self.base.home.pose)

    def _looks(self, terms: Sequence[Term]) -> list[Look]:
        return list(dict.fromkeys(term.look for term in terms if term.look is not None))

    def _rng(self, *names: str | int) -> torch.Generator:
        return rng(self.problem.seed, self.stage.name, *names)

    def _wandering(self, latent: Latent, index: int) -> Latent:
        amount = 0.0 if self.stage.wander is None else self.stage.wander(index / self.stage.steps)
        if amount == 0.0:
            return latent
        draws = torch.randn(latent.w.shape, generator=self._rng("wander", index)).to(latent.w)
        return latent.with_w(latent.w + draws * self.deviation * amount)

    def _view(self, look: Look, index: int) -> View:
        return look.view(self._home(), self.problem.generator.orbit, self._rng("look", repr(look), index))

    def _render(
        self, generator: Generator, scene: Scene | None, views: Mapping[Look, View], index: int
    ) -> dict[Look, Rendering]:
        """All looks in one call, cut apart again."""
        if scene is None or not views:
            return {}
        jitter = [
            self._rng("jitter", repr(look), number, index) for look, view in views.items() for number in range(view.count)
        ]
        every = generator.render(scene, stack(list(views.values())), jitter=jitter, size=self.stage.size)
        shots, first = {}, 0
        for look, view in views.items():
            shots[look] = every[first : first + view.count]
            first += view.count
        return shots

    def _seen(self, term: Term, view: View) -> list[int] | None:
        """Which views the term's network can judge; None where there is none."""
        yaw = angles(view.camera.detach())[0].abs().amax(dim=0)  # (V,)
        kept = [number for number, value in enumerate(yaw.tolist()) if value <= term.sees + 1e-6]
        return kept or None

    @torch.no_grad()
    def _reference(self, generator: Generator, term: Term, view: View, latent: Latent, index: int) -> Rendering:
        """The rendering that the term's `against` asks for, without gradient, at the same views and ray depths."""
        assert term.look is not None
        if term.against == "source":
            steady, chosen, what = "weights" not in self.stage.solve_for, generator, self.base.source
        else:
            steady = not {"latent", "noise"} & self.stage.solve_for
            chosen, what = self.problem.generator, latent.detach()
        assert term.against is not None
        if not steady or term.against not in self._scenes:
            self._scenes[term.against] = chosen.synthesize(what)
        return self._render(chosen, self._scenes[term.against], {term.look: view.detach()}, index)[term.look]

    def _nearby(
        self, generator: Generator, view: View, latent: Latent, look: Look, index: int
    ) -> tuple[Rendering, Rendering]:
        """A latent on the way to a random one, by the tuned generator with gradient and by the base without."""
        base = self.problem.generator
        other = base.sample(self._rng("nearby", index)).to(latent.w.device)
        near = latent.detach().with_w(latent.w.detach().lerp(other.w.expand_as(latent.w), NEARBY))
        view = view.detach()
        rendering = self._render(generator, generator.synthesize(near), {look: view}, index)[look]
        with torch.no_grad():
            reference = self._render(base, base.synthesize(near), {look: view}, index)[look]
        return rendering, reference


def _kept(rendering: Rendering, views: Sequence[int]) -> Rendering:
    if len(views) == rendering.view.count:
        return rendering
    index = torch.tensor(views, device=rendering.image.device)

    def part(value: Tensor | None) -> Tensor | None:
        return None if value is None else value[:, index.to(value.device)]

    pose = part(rendering.view.pose)
    return Rendering(
        rendering.scene,
        View(rendering.view.camera[:, index], pose),
        rendering.image[:, index],
        part(rendering.depth),
        part(rendering.mask),
        part(rendering.landmarks),
    )
