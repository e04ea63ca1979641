"""The card of dpr."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from facednerf_core.cards import Card, LocalWeights
from facednerf_core.errors import MissingWeights
from facednerf_core.hookspecs import hookimpl
from facednerf_dpr.options import DprOptions

if TYPE_CHECKING:
    import torch

    from facednerf_core.interfaces import Relighter


def build(device: torch.device, weights: LocalWeights | None, **options: Any) -> Relighter:
    """DPR from the tensors in the role "tensors" and its constructor's arguments in the role "config"."""
    from facednerf_dpr.relighter import Dpr, read

    if weights is None:
        raise MissingWeights("dpr needs the tensors of a light network; see `fdn weights`.")
    return Dpr(read(weights["tensors"], weights["config"]).to(device), DprOptions(**options))


@hookimpl
def register_relighters(register: Callable[[Card[Relighter]], None]) -> None:
    """Registers `dpr`."""
    summary = "DPR (Zhou et al. 2019): the light of a portrait, estimated and changed."
    register(Card("dpr", summary, build, domains=("face", "head"), sees=0.7, options=DprOptions))
