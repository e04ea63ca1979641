"""The cards of the inverters."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from facednerf_core.cards import Card, LocalWeights
from facednerf_core.hookspecs import hookimpl
from facednerf_inverters.options import PtiOptions, WPlusOptions

if TYPE_CHECKING:
    import torch

    from facednerf_core.interfaces import Inverter


def build_w_plus(device: torch.device, weights: LocalWeights | None, **options: Any) -> Inverter:
    """The search in W, then W+."""
    from facednerf_inverters.wplus import WPlus

    return WPlus(WPlusOptions(**options))


def build_pti(device: torch.device, weights: LocalWeights | None, **options: Any) -> Inverter:
    """Pivotal tuning."""
    from facednerf_inverters.pti import PivotalTuning

    return PivotalTuning(PtiOptions(**options))


@hookimpl
def register_inverters(register: Callable[[Card[Inverter]], None]) -> None:
    """Registers `w-plus` and `pti`."""
    found = "The photo's latent and camera by gradient descent, in W and then a little in W+."
    register(Card("w-plus", found, build_w_plus, options=WPlusOptions, needs_weights=False))
    bent = "Pivotal tuning: the generator is bent to draw the photo, and kept as it was elsewhere."
    register(Card("pti", bent, build_pti, options=PtiOptions, needs_weights=False))
