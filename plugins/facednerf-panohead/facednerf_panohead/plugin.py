"""The card of PanoHead."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from facednerf_core.cards import Card, LocalWeights
from facednerf_core.errors import MissingWeights
from facednerf_core.hookspecs import hookimpl
from facednerf_panohead.options import PanoHeadOptions

if TYPE_CHECKING:
    import torch

    from facednerf_core.interfaces import Generator


def build(device: torch.device, weights: LocalWeights | None, **options: Any) -> Generator:
    """PanoHead from the tensors in the role "tensors" and its constructor's arguments in the role "config"; the weights may
    have an "atlas" too, and "axes" of W."""
    from facednerf_eg3d import axesfile

    from facednerf_core.atlas import ROLE
    from facednerf_panohead.generator import PanoHead, adjusted, orbit_of, read

    if weights is None:
        raise MissingWeights("panohead needs a generator's weights; see `fdn weights`.")
    chosen = PanoHeadOptions(**options)
    network = adjusted(read(weights["tensors"], weights["config"]), chosen).to(device)
    sheet = weights.paths.get(ROLE) if chosen.atlas else None
    orbit = orbit_of(network, weights.card.orbit)
    told = weights.paths.get(axesfile.ROLE)
    axes = None if told is None else axesfile.read(told, len(network.backbone.mapping.w_avg))
    return PanoHead(network, orbit, rules=chosen.rules, atlas=sheet, axes=axes)  # type: ignore[arg-type]  # its own network


@hookimpl
def register_generators(register: Callable[[Card[Generator]], None]) -> None:
    """Registers `panohead`."""
    summary = "PanoHead (An et al. 2023): whole heads on a tri-grid, from all round, before a background of their own."
    register(Card("panohead", summary, build, domains=("face", "head"), options=PanoHeadOptions))
