"""The card of the guidance by a CLIP."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from facednerf_clip.options import ClipOptions
from facednerf_core.cards import Card, LocalWeights
from facednerf_core.errors import MissingWeights
from facednerf_core.hookspecs import hookimpl

if TYPE_CHECKING:
    import torch

    from facednerf_core.interfaces import Guidance


def build(device: torch.device, weights: LocalWeights | None, **options: Any) -> Guidance:
    """Guidance by the CLIP of the open_clip folder in the role "model"."""
    from facednerf_clip.encoder import load
    from facednerf_clip.guidance import ClipGuidance

    if weights is None:
        raise MissingWeights("clip needs an open_clip folder; see `fdn weights`.")
    return ClipGuidance(load(weights["model"], device), ClipOptions(**options))


@hookimpl
def register_guidances(register: Callable[[Card[Guidance]], None]) -> None:
    """Registers `clip`."""
    summary = "A CLIP in open_clip's format: pictures and sentences as vectors, by the direction of their differences."
    register(Card("clip", summary, build, weight=0.2, options=ClipOptions))
