"""The card of score distillation."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from facednerf_core.cards import Card, LocalWeights
from facednerf_core.errors import MissingWeights
from facednerf_core.hookspecs import hookimpl
from facednerf_sds.options import SdsOptions

if TYPE_CHECKING:
    import torch

    from facednerf_core.interfaces import Guidance


def build(device: torch.device, weights: LocalWeights | None, **options: Any) -> Guidance:
    """Score distillation from the pipeline folder in the role "pipeline"."""
    import torch

    from facednerf_sds.guidance import ScoreDistillation
    from facednerf_sds.pipeline import load

    if weights is None:
        raise MissingWeights("sds needs a diffusers pipeline folder; see `fdn weights`.")
    chosen = SdsOptions(**options)
    name = chosen.dtype if chosen.dtype != "auto" else "float16" if device.type == "cuda" else "float32"
    pipeline = load(weights["pipeline"], device, getattr(torch, name), posterior=chosen.posterior)
    return ScoreDistillation(pipeline, chosen)


@hookimpl
def register_guidances(register: Callable[[Card[Guidance]], None]) -> None:
    """Registers `sds`."""
    summary = "Score distillation from a latent diffusion model (Stable Diffusion 1.x and 2.x, or the starter's)."
    register(Card("sds", summary, build, options=SdsOptions))
