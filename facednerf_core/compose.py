"""Recipe and installed plugins in, problem out. Every rule of what fits what lives here, and is checked on cards,
before anything is loaded."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from facednerf_core.cards import Card, LocalWeights, WeightsCard
from facednerf_core.errors import DomainMismatch, InputError, MissingWeights, UnknownName, Unsupported
from facednerf_core.recipe import Recipe, Weights
from facednerf_core.terms import Against, Constant, Fade, Ramp, Stage, Term
from facednerf_core.views import Fixed, Nearby, Orbit, within
from facednerf_core.weights import AUTO

if TYPE_CHECKING:
    import torch

    from facednerf_core.events import Observer
    from facednerf_core.interfaces import Generator, Guidance, Identity, Inverter
    from facednerf_core.loop import Problem
    from facednerf_core.plugins import Shelves
    from facednerf_core.scene import Subject
    from facednerf_core.weights import Registry

NONE = "none"  # what a user says to leave a part out
JOINT, EDIT = "joint", "edit"
ELSEWHERE = "elsewhere"  # the reconstruction of what a sentence does not speak of
WITHIN = "within"  # the latent prior along W's principal axes
DEFAULT_IDENTITY = "arcface"
PERCEPTUAL = "vgg16"
STEPS = {EDIT: 80, JOINT: 500}
PIXELS = 4.0  # of the pixel part of the reconstruction: a small VGG16 alone leaves colours loose
NOISE_WEIGHT = 1e3  # of the regularity of noise maps, as published
REACH = 0.75  # of an edit, in W's radius: beyond that a sentence makes somebody else
LEARNING_RATE = {EDIT: 0.25, JOINT: 0.03}  # in units of W's deviation
WEIGHTS: Mapping[str, Mapping[str, float]] = {  # of each term; the plugin's card and the user multiply them
    EDIT: {"reconstruction": 15.0, "identity": 0.2, "guidance": 60.0, "latent": 0.2},
    JOINT: {"reconstruction": 1.0, "identity": 0.5, "guidance": 1.0},
}

SUBJECTS = {"face": "a person", "head": "a person", "body": "a person", "cat": "a cat", "car": "a car"}
"""What a photo shows, by domain, where the user does not say it: an edit's guidance is by the difference from that."""


@dataclass(frozen=True)
class Part:
    """A plugin chosen, with the weights it will be built from and its checked options."""

    card: Card[Any]
    weights: LocalWeights | None
    options: Mapping[str, Any] = field(default_factory=dict)

    def build(self, device: torch.device) -> Any:
        """The plugin itself; its libraries are imported now."""
        return self.card.build(device, self.weights, **self.options)


@dataclass(frozen=True)
class Plan:
    """What a run will be made of, decided before anything is loaded."""

    recipe: Recipe
    pack: str
    generator: Part
    perceptual: LocalWeights
    detector: Part
    inverter: Part
    tuner: Part | None
    guidance: Part | None
    identity: Part | None
    metrics: Mapping[str, Part] = field(default_factory=dict)  # what judges the result; no term uses them
    notes: tuple[str, ...] = ()

    @property
    def scene(self) -> WeightsCard:
        """The generator's weights card: domains, crop, background, orbit."""
        assert self.generator.weights is not None
        return self.generator.weights.card

    @property
    def source_prompt(self) -> str | None:
        """What the photo shows, to whose score the sentence's is compared (Hertz et al. 2023, "Delta Denoising Score"):
        in the user's words, or in the default recipe by the domain's name. None, or "" from the user: plain guidance."""
        if self.recipe.source_prompt is not None or self.recipe.recipe != "default":
            return self.recipe.source_prompt or None
        return next((SUBJECTS[domain] for domain in self.scene.domains if domain in SUBJECTS), None)

    def parts(self) -> dict[str, Part]:
        """Every plugin that takes part in the run, by kind."""
        named = {
            "generator": self.generator,
            "detector": self.detector,
            "inverter": self.inverter,
            "tuner": self.tuner,
            "guidance": self.guidance,
            "identity": self.identity,
        }
        return {kind: part for kind, part in named.items() if part is not None}


def plan(recipe: Recipe, shelves: Shelves, registry: Registry) -> Plan:
    """Choose plugins and weights for a recipe.

    Raises:
        UnknownName: a plugin, pack or weights card that is not installed.
        DomainMismatch: a plugin that the user named does not know what the generator draws.
        MissingWeights: weights that are neither shipped nor imported.
        InputError: an empty prompt, or options that do not exist.
        Unsupported: a strength where the recipe has none.
    """
    if recipe.task == "edit" and not any(letter.isalpha() for letter in recipe.prompt):
        raise InputError('the sentence is empty; say what the result should show, such as "a woman with glasses".')
    check_strength(recipe)
    _check_options(recipe, shelves)
    backbone, detector = shelves.generators[recipe.backbone], shelves.detectors[recipe.detector]
    inverter = shelves.inverters[recipe.inverter]
    tuner = None if recipe.tuner == NONE else shelves.inverters[recipe.tuner]
    identity = None if recipe.identity == NONE else shelves.identities[recipe.identity or DEFAULT_IDENTITY]
    guidance = shelves.guidances[recipe.guidance] if recipe.task == "edit" else None
    kinds = {"generator": backbone, "detector": detector, "identity": identity, "guidance": guidance}
    drawn = _drawn(recipe, backbone, registry)
    if identity is not None and recipe.identity is None and not identity.fits(drawn):
        del kinds["identity"]  # it will be left out, and so no pack needs to have it
    needs = [(kind, card.name) for kind, card in kinds.items() if card is not None and card.needs_weights]
    pack = recipe.weights_pack
    if pack == AUTO:
        pack = registry.pack([*needs, ("perceptual", PERCEPTUAL)], drawn)
    choice = _Choice(recipe, registry, pack)
    generator = choice.part("generator", backbone, backbone.domains)
    assert generator.weights is not None
    domains = generator.weights.card.domains
    notes: list[str] = []
    return Plan(
        recipe,
        pack,
        generator,
        choice.weights("perceptual", PERCEPTUAL, domains),
        choice.part("detector", detector, domains),
        choice.part("inverter", inverter, domains),
        None if tuner is None else choice.part("inverter", tuner, domains),
        None if guidance is None else choice.fitting("guidance", guidance, domains, True, notes),
        None if identity is None else choice.fitting("identity", identity, domains, recipe.identity is not None, notes),
        choice.metrics(shelves, domains, notes),
        tuple(notes),
    )


def _drawn(recipe: Recipe, backbone: Card[Any], registry: Registry) -> tuple[str, ...]:
    """What the generator will draw: as its weights say where the user named them, else as its plugin does."""
    named = recipe.weights_cards.get("generator")
    return backbone.domains if named is None else registry[named].domains


def _check_options(recipe: Recipe, shelves: Shelves) -> None:
    known = {name for shelf in shelves.shelves() for name in shelf}
    for name in recipe.options:
        if name not in known:
            raise UnknownName("plugin", name, known, "Options are given per plugin, as [options.NAME] in a config file.")


@dataclass(frozen=True)
class _Choice:
    """Weights and options for cards, under one recipe and one pack."""

    recipe: Recipe
    registry: Registry
    pack: str

    def weights(self, kind: str, plugin: str, domains: tuple[str, ...]) -> LocalWeights:
        """The ones that the user named for this kind, else the pack's."""
        named = self.recipe.weights_cards.get(kind)
        if named is None:
            return self.registry.resolve(kind, plugin, self.pack, domains)
        card = self.registry[named]
        if (card.kind, card.plugin) != (kind, plugin):
            raise InputError(f"weights {named!r} are for the {card.kind} {card.plugin!r}, not for the {kind} {plugin!r}.")
        return self.registry.local(card)

    def part(self, kind: str, card: Card[Any], domains: tuple[str, ...]) -> Part:
        """A plugin with its weights, and the options that its weights card and then the user give."""
        weights = self.weights(kind, card.name, domains) if card.needs_weights else None
        given = dict(weights.card.options) if weights else {}
        return Part(card, weights, card.checked(given | dict(self.recipe.options.get(card.name, {}))))

    def fitting(self, kind: str, card: Card[Any], domains: tuple[str, ...], named: bool, notes: list[str]) -> Part | None:
        """The part if its card knows the generator's domain; else a note, or an error where the user named it."""
        if card.fits(domains):
            return self.part(kind, card, domains)
        what = f"{card.name} knows {', '.join(card.domains)}; this generator draws {', '.join(domains)}"
        if named:
            raise DomainMismatch(f"{what}. Choose another {kind}, or --{kind} none.")
        notes.append(f"{what}, so it is left out.")
        return None

    def metrics(self, shelves: Shelves, domains: tuple[str, ...], notes: list[str]) -> dict[str, Part]:
        """The installed metrics that know the generator's domain and whose weights are here; notes on the others."""
        found = {}
        for name in shelves.metrics:
            try:
                found[name] = self.fitting("metric", shelves.metrics[name], domains, False, notes)
            except MissingWeights as error:
                notes.append(f"the metric {name} is left out: {error}")
        return {name: part for name, part in found.items() if part is not None}


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

    terms = {key: replace(term, scale=_scale(plan, term.name)) for key, term in _terms(plan, built, subject).items()}
    recipe = plan.recipe.changed(weights=Weights())  # the terms carry the user's: no stage must count them twice
    if recipe.recipe == "paper":
        start, stages = _paper(recipe, built, subject, terms)
    else:
        start = built.inverter.begin(built.generator, subject, rng(recipe.seed, "begin"))
        stages = list(built.inverter.stages(recipe, terms))
        if built.tuner is not None:
            stages += built.tuner.stages(recipe, terms)
        if recipe.task == "edit":
            stages.append(_edit(recipe, terms))
    known = {stage.name for stage in stages}
    for name in recipe.steps:
        if name not in known:
            raise UnknownName("stage", name, known, "Give steps as --steps STAGE=NUMBER.")
    stages = _weighed(plan.recipe, stages)
    return Problem(built.generator, State.begin(start, subject.view), stages, recipe.seed, built.guidance)


def _terms(plan: Plan, built: Built, subject: Subject) -> dict[str, Term]:
    """Every term that the plan's plugins offer, with the look each is made for."""
    from facednerf_core import losses

    deviation = built.generator.deviation()
    terms = {
        "reconstruction": Term("reconstruction", Fixed(), losses.reconstruction(built.features, subject, pixels=PIXELS)),
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
            region = built.guidance.region(recipe.prompt, subject, source_prompt=source, negative=recipe.negative)
            elsewhere = losses.reconstruction(built.features, subject, pixels=PIXELS, spared=region)
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


def _edit(recipe: Recipe, terms: Mapping[str, Term]) -> Stage:
    """The default recipe's last stage: only the latent moves, inside the tuned generator, and all its rows together: what
    a sentence asks for is a direction of W, and rows that move apart leave the heads that the generator knows. For the
    same reason it moves along W's principal axes: along the others lie heads that nobody drew, such as green light. What
    the sentence does not speak of is held to the photo."""
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


def orbit(card: WeightsCard) -> Orbit:
    """The orbit that a weights card trusts."""
    return Orbit(**card.orbit)


def frame(card: WeightsCard) -> tuple[int, int]:
    """Height and width, pixels, of the pictures that a weights card speaks of; `resolution` is the height."""
    return card.resolution, max(1, round(card.resolution / orbit(card).aspect))


def strength_refusal(recipe: Recipe) -> str | None:
    """Why a recipe has no strength to set, or None where it has one."""
    if recipe.recipe == "paper":
        return "the paper's recipe tunes the generator after the edit, so there is no inversion to come from"
    if recipe.task != "edit":
        return "this run is an inversion; there is no edit to weaken or strengthen"
    return None


def check_strength(recipe: Recipe) -> None:
    """Raises Unsupported where the recipe's strength is set and cannot be."""
    reason = strength_refusal(recipe)
    if recipe.strength != 1.0 and reason is not None:
        raise Unsupported(f"--strength {recipe.strength} does not apply: {reason}.")
