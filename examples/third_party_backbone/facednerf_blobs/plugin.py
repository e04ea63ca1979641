"""The cards of blobs. Importing this file imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facednerf_core.cards import Card, LocalWeights, WeightsCard
from facednerf_core.errors import MissingWeights
from facednerf_core.hookspecs import hookimpl

if TYPE_CHECKING:
    import torch

    from facednerf_core.interfaces import Generator

ORBIT = {"radius": 2.7, "pivot": (0.0, 0.0, 0.2), "focal": 4.2647, "yaw": 0.6, "pitch": 0.3}
FRAMING = {  # where the head's own eyes, nose and mouth lie in its world: see sculpture.py
    "eye_x": 0.07,
    "eye_y": 0.03,
    "eye_z": 0.20,
    "nose_y": -0.03,
    "nose_z": 0.25,
    "mouth_x": 0.06,
    "mouth_y": -0.11,
    "mouth_z": 0.20,
}


@dataclass(frozen=True)
class BlobsOptions:
    """Options of blobs: `--option blobs.samples=48`."""

    samples: int = 24  # of a ray


def build(device: torch.device, weights: LocalWeights | None, **options: Any) -> Generator:
    """The blobs in the safetensors file in the role "tensors"; libraries are imported here."""
    from safetensors.torch import load_file

    from facednerf_blobs.generator import Blobs
    from facednerf_core.views import Orbit

    if weights is None:
        raise MissingWeights("blobs needs its head.safetensors; install facednerf-blobs again.")
    tensors = load_file(weights["tensors"], device=str(device))
    return Blobs(tensors["base"], tensors["basis"], Orbit(**weights.card.orbit), BlobsOptions(**options).samples)


@hookimpl
def register_generators(register: Callable[[Card[Generator]], None]) -> None:
    """Registers `blobs`."""
    register(Card("blobs", "A head of nine coloured blobs.", build, domains=("face",), options=BlobsOptions))


@hookimpl
def register_weights(register: Callable[[WeightsCard], None]) -> None:
    """Registers `blobs/head`, which this distribution ships."""
    register(
        WeightsCard(
            name="blobs/head",
            plugin="blobs",
            kind="generator",
            pack="any",  # it may be used beside the networks of every pack
            summary="nine blobs set by hand",
            domains=("face",),
            files={"tensors": "head.safetensors"},
            folder=Path(__file__).parent,
            licence="Apache-2.0",
            resolution=48,
            latent=(9, 16),
            provides=("depth", "mask", "density"),
            crop=FRAMING,
            orbit=ORBIT,
            background="white",
        )
    )
