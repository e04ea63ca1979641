"""Recipe and installed plugins in, plan out. Every rule of what fits what lives here, and is checked on cards, before
anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from facednerf_core.cards import Card, LocalWeights, WeightsCard
from facednerf_core.errors import DomainMismatch, InputError, MissingWeights, UnknownName, Unsupported
from facednerf_core.recipe import Recipe
from facednerf_core.views import Orbit
from facednerf_core.weights import AUTO

if TYPE_CHECKING:
    import torch

    from facednerf_core.plugins import Shelves
    from facednerf_core.weights import Registry

NONE = "none"  # what a user says to leave a part out
DEFAULT_IDENTITY = "arcface"
PERCEPTUAL = "vgg16"
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
