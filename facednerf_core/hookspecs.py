"""The hooks of facednerf: one for each kind of plugin. Each receives `register` and calls it once per card."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pluggy import HookimplMarker, HookspecMarker

from facednerf_core.cards import Card, WeightsCard
from facednerf_core.entrypoints import PLUGINS

if TYPE_CHECKING:
    from facednerf_core.interfaces import Detector, Generator, Guidance, Identity, Inverter, Metric, Relighter

hookspec = HookspecMarker(PLUGINS)
hookimpl = HookimplMarker(PLUGINS)


@hookspec
def register_generators(register: Callable[[Card[Generator]], None]) -> None:
    """Generators: a frozen 3D GAN that turns a latent into a radiance field (`fdn edit --backbone NAME`)."""


@hookspec
def register_guidances(register: Callable[[Card[Guidance]], None]) -> None:
    """Guidances: what makes a rendering follow a sentence (`--guidance NAME`)."""


@hookspec
def register_identities(register: Callable[[Card[Identity]], None]) -> None:
    """Identities: what tells whether two pictures show the same individual."""


@hookspec
def register_relighters(register: Callable[[Card[Relighter]], None]) -> None:
    """Relighters: what estimates the light of a picture, as spherical harmonics."""


@hookspec
def register_inverters(register: Callable[[Card[Inverter]], None]) -> None:
    """Inverters: stages that bring the generator to the photo (latent search, pivotal tuning)."""


@hookspec
def register_detectors(register: Callable[[Card[Detector]], None]) -> None:
    """Detectors: what finds faces, landmarks, pose and foreground in a photo."""


@hookspec
def register_metrics(register: Callable[[Card[Metric]], None]) -> None:
    """Metrics: what is measured after every run, with networks that were not optimised against."""


@hookspec
def register_weights(register: Callable[[WeightsCard], None]) -> None:
    """Weights: cards of trained weights for this plugin or another."""


@hookspec
def register_observers(register: Callable[[Card[Any]], None]) -> None:
    """Observers: built once per run and called with every event (viewers, loggers)."""
