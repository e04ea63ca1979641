"""The card of arcface."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from facednerf_arcface.options import ArcFaceOptions
from facednerf_core.cards import Card, LocalWeights
from facednerf_core.errors import MissingWeights
from facednerf_core.hookspecs import hookimpl

if TYPE_CHECKING:
    import torch

    from facednerf_core.interfaces import Identity


def build(device: torch.device, weights: LocalWeights | None, **options: Any) -> Identity:
    """An ArcFace network from the safetensors file in the role "tensors"."""
    from facednerf_arcface.identity import ArcFace, load

    if weights is None:
        raise MissingWeights("arcface needs the tensors of a recognition network; see `fdn weights`.")
    return ArcFace(load(weights["tensors"], device), ArcFaceOptions(**options))


@hookimpl
def register_identities(register: Callable[[Card[Identity]], None]) -> None:
    """Registers `arcface`."""
    summary = "Whether two pictures show the same person, by an ArcFace recognition network."
    register(Card("arcface", summary, build, domains=("face", "head"), sees=0.7, options=ArcFaceOptions))
