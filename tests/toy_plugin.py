"""A plugin with one of everything, for tests of what is made of plugins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facednerf_core.cards import Card, WeightsCard
from facednerf_core.hookspecs import hookimpl
from facednerf_core.interfaces import Guidance, Identity, Inverter
from facednerf_core.recipe import Recipe
from facednerf_core.terms import Loss, Stage
from tests.toy import ToyGenerator

RECIPE = Recipe(prompt="a woman, blue hair", backbone="toy", guidance="words")


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
