"""A plan in, a problem out: plugins built, and their losses as the terms of stages."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from facednerf_core.errors import UnknownName
from facednerf_core.recipe import Recipe, Weights
from facednerf_core.terms import Against, Constant, Fade, Ramp, Stage, Term
from facednerf_core.views import Fixed, Nearby, within

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from facednerf_core.departure import Departure
    from facednerf_core.events import Observer
    from facednerf_core.interfaces import Generator, Guidance, Identity, Inverter
    from facednerf_core.loop import Problem
    from facednerf_core.plans import Plan
    from facednerf_core.plugins import Shelves
    from facednerf_core.scene import Subject

JOINT, EDIT = "joint", "edit"
ELSEWHERE = "elsewhere"  # the reconstruction of what a sentence does not speak of
WITHIN = "within"  # the latent prior along W's principal axes
STEPS = {EDIT: 30, JOINT: 500}
PIXELS = 4.0  # of the pixel part of the reconstruction: a small VGG16 alone leaves colours loose
FOCUS = 4.0  # how much more pixels of eyes, nose and mouth count in it, in the default recipe
BODY = 0.5  # how much neck and clothes count in it, there: a generator of heads bends the head for a collar it does not know
NOISE_WEIGHT = 1e3  # of the regularity of noise maps, as published
REACH = 0.75  # of an edit, in W's radius: beyond that a sentence makes somebody else
LEARNING_RATE = {EDIT: 0.1, JOINT: 0.03}  # in units of W's deviation
WEIGHTS: Mapping[str, Mapping[str, float]] = {  # of each term; the plugin's card and the user multiply them
    EDIT: {"reconstruction": 15.0, "identity": 4.0, "guidance": 60.0, "latent": 0.2},
    JOINT: {"reconstruction": 1.0, "identity": 0.5, "guidance": 1.0},
}


@dataclass(frozen=True)
class Built:
    """The plugins of a plan, built on a device."""

    generator: Generator
    inverter: Inverter
    features: Any  # perceptual.VGG16
    tuner: Inverter | None = None
    guidance: Guidance | None = None
    identity: Identity | None = None


def build(plan: Plan, device: torch.device) -> Built:
    """Build every plugin that the stages need (the detector is built where the photo is read)."""
    from facednerf_core.perceptual import load

    return Built(
        plan.generator.build(device),
        plan.inverter.build(device),
        load(plan.perceptual, device),
        plan.tuner.build(device) if plan.tuner else None,
        plan.guidance.build(device) if plan.guidance else None,
        plan.identity.build(device) if plan.identity else None,
    )


def guests(recipe: Recipe, shelves: Shelves, device: torch.device) -> tuple[dict[str, Observer], list[str]]:
    """The observers of plugins, built, and notes on those that cannot be: a viewer that fails stops no run."""
    built: dict[str, Observer] = {}
    notes = []
    for name in shelves.observers:
        card = shelves.observers[name]
        options = card.checked(recipe.options.get(name, {}))
        try:
            with redirect_stdout(sys.stderr):
                built[name] = card.build(device, None, **options)
        except Exception as error:
            notes.append(f"the observer {name!r} cannot be built ({type(error).__name__}: {error}); it sees nothing")
    return built, notes


def problem(plan: Plan, built: Built, subject: Subject) -> Problem:
    """The stages of the plan's recipe over a subject."""
    from facednerf_core.compute import rng
    from facednerf_core.loop import Problem, State

    departure = _departure(plan, built, subject)
    offered = _terms(plan, built, subject, departure)
    terms = {key: replace(term, scale=_scale(plan, term.name)) for key, term in offered.items()}
    recipe = plan.recipe.changed(weights=Weights())  # the terms carry the user's: no stage must count them twice
    if recipe.recipe == "paper":
        start, stages = _paper(recipe, built, subject, terms)
    else:
        start = built.inverter.begin(built.generator, subject, rng(recipe.seed, "begin"))
        stages = list(built.inverter.stages(recipe, terms))
        if built.tuner is not None:
            stages += built.tuner.stages(recipe, terms)
        if recipe.task == "edit":
            stages.append(_edit(recipe, terms, departure))
    known = {stage.name for stage in stages}
    for name in recipe.steps:
        if name not in known:
            raise UnknownName("stage", name, known, "Give steps as --steps STAGE=NUMBER.")
    stages = _weighed(plan.recipe, stages)
    return Problem(built.generator, State.begin(start, subject.view), stages, recipe.seed, built.guidance)


def _terms(plan: Plan, built: Built, subject: Subject, departure: Departure | None) -> dict[str, Term]:
    """Every term that the plan's plugins offer, with the look each is made for."""
    from facednerf_core import losses

    deviation = built.generator.deviation()
    focus, body = (FOCUS, BODY) if plan.recipe.recipe == "default" else (0.0, 1.0)
    near = losses.reconstruction(built.features, subject, pixels=PIXELS, focus=focus, body=body)
    terms = {
        "reconstruction": Term("reconstruction", Fixed(), near),
        "latent": Term("latent", None, losses.latent_prior(deviation)),
        "locality": Term("locality", Nearby(0.5, 0.2), losses.locality(built.features), against="nearby"),
    }
    if subject.mask is not None and "mask" in plan.scene.provides:
        terms["silhouette"] = Term("silhouette", Fixed(), losses.silhouette(subject))
    if built.identity is not None and plan.identity is not None:
        sees = plan.identity.card.sees
        terms["identity"] = Term("identity", Fixed(), built.identity.aim(subject), sees=sees)
    if built.guidance is not None and plan.guidance is not None:
        recipe, sees, source = plan.recipe, plan.guidance.card.sees, plan.source_prompt
        aim = built.guidance.aim(recipe.prompt, subject, source_prompt=source, negative=recipe.negative)
        look = within(Nearby(), sees)
        against: Against | None = "source" if source else None
        terms["guidance"] = Term("guidance", look, aim, against=against, sees=sees)
        if recipe.recipe == "default":
            spared = _region(plan, built.guidance, subject) if departure is None else departure.spared
            elsewhere = losses.reconstruction(built.features, subject, pixels=PIXELS, spared=spared, body=body)
            terms[ELSEWHERE] = Term("reconstruction", Fixed(), elsewhere)
            terms[WITHIN] = Term("latent", None, losses.latent_prior(deviation, axes=built.generator.axes()))
    return terms


def _scale(plan: Plan, term: str) -> float:
    """What the weights of a term are multiplied by in all stages: the plugin's own factor and the user's."""
    part = {"identity": plan.identity, "guidance": plan.guidance}.get(term)
    return (1.0 if part is None else part.card.weight) * plan.recipe.weights.given().get(term, 1.0)


def _weighed(recipe: Recipe, stages: Sequence[Stage]) -> list[Stage]:
    """The stages with the factors that the user gives for terms of one stage.

    Raises:
        UnknownName: a factor, of one stage or of all, is for a term that is not there, and so would do nothing.
    """
    terms = {stage.name: {term.name for term in stage.terms} for stage in stages}
    every = set().union(*terms.values())
    for name in recipe.weights.given():
        if name not in every:
            raise UnknownName("term", name, every, "Its weight would do nothing in this run.")
    for stage, factors in recipe.stage_weights.items():
        if stage not in terms:
            raise UnknownName("stage", stage, terms, "Give weights as --weight STAGE.TERM=FACTOR.")
        for name in factors:
            if name not in terms[stage]:
                raise UnknownName(f"term of stage {stage!r}", name, terms[stage])
    own = recipe.stage_weights
    return [replace(stage, terms=[_scaled(term, own.get(stage.name, {})) for term in stage.terms]) for stage in stages]


def _scaled(term: Term, factors: Mapping[str, float]) -> Term:
    return replace(term, scale=term.scale * factors.get(term.name, 1.0))


def _weighted(stage: str, term: Term) -> Term:
    """The term with the weight that a stage of the core gives it."""
    return replace(term, weight=Constant(WEIGHTS[stage].get(term.name, 1.0)))


def _departure(plan: Plan, built: Built, subject: Subject) -> Departure | None:
    """Where an edit begins, and what of the photo it spares, by the generator's atlas.

    None, that is at the photo, without an atlas or a guidance. The heads are scored only when the edit does begin.
    """
    from facednerf_core.departure import Departure

    recipe, guidance = plan.recipe, built.guidance
    atlas = None if guidance is None or recipe.recipe == "paper" else built.generator.atlas()
    if atlas is None or guidance is None:
        return None

    def score(pictures: Tensor) -> Tensor | None:
        source, negative = plan.source_prompt, recipe.negative
        return guidance.score(pictures, recipe.prompt, source_prompt=source, negative=negative)

    return Departure(atlas, built.generator.axes(), score, lambda: _region(plan, guidance, subject))


def _region(plan: Plan, guidance: Guidance, subject: Subject) -> Tensor | None:
    """Where in the photo the sentence leads, by the guidance."""
    recipe, source = plan.recipe, plan.source_prompt
    return guidance.region(recipe.prompt, subject, source_prompt=source, negative=recipe.negative)


def _edit(recipe: Recipe, terms: Mapping[str, Term], departure: Departure | None) -> Stage:
    """The default recipe's last stage: only the latent moves, inside the tuned generator, and all its rows together: what
    a sentence asks for is a direction of W, and rows that move apart leave the heads that the generator knows. For the
    same reason it moves along W's principal axes: along the others lie heads that nobody drew, such as green light. What
    the sentence does not speak of is held to the photo. It begins where `departure` brings the photo's latent."""
    names = [name for name in ("guidance", ELSEWHERE, "identity", WITHIN) if name in terms]
    return Stage(
        EDIT,
        frozenset({"latent"}),
        [_weighted(EDIT, terms[name]) for name in names],
        recipe.steps.get(EDIT, STEPS[EDIT]),
        {"latent": LEARNING_RATE[EDIT]},
        Ramp(1.0, rise=0.05, fall=0.3),
        tied=True,
        principal=True,
        reach=REACH,
        opening=departure,
        size=recipe.size,
    )


def _paper(recipe: Recipe, built: Built, subject: Subject, terms: Mapping[str, Term]) -> tuple[Any, list[Stage]]:
    """The published recipe: Eq. 1 jointly from near the mean, then pivotal tuning on the same terms (Eq. 8)."""
    import torch

    from facednerf_core import losses
    from facednerf_core.compute import rng

    generator = built.generator
    mean = generator.mean()
    subjects = subject.view.camera.shape[0]
    draws = torch.randn(subjects, 1, mean.w.shape[-1], generator=rng(recipe.seed, "begin")).to(mean.w)
    near = mean.w.expand(subjects, -1, -1) + 0.05 * draws * generator.deviation()
    start = mean.with_w(near.contiguous())
    names = [name for name in ("reconstruction", "identity", "guidance", "silhouette") if name in terms]
    same = [_weighted(JOINT, terms[name]) for name in names]
    joint = [*same, Term("noise", None, losses.noise_regularity(), Constant(NOISE_WEIGHT))] if start.noise else same
    stages = [
        Stage(
            JOINT,
            frozenset({"latent", "noise"}),
            joint,
            recipe.steps.get(JOINT, STEPS[JOINT]),
            {"latent": LEARNING_RATE[JOINT], "noise": 0.01},
            Ramp(1.0, rise=0.05, fall=0.25),
            wander=Fade(0.05 * mean.w.shape[-1] ** 0.5, 0.75, 2.0),  # 0.05 of W's radius, as StyleGAN2's projector
            size=recipe.size,
        )
    ]
    if built.tuner is not None:
        stages += built.tuner.stages(recipe, {term.name: term for term in same} | {"locality": terms["locality"]})
    return start, stages
