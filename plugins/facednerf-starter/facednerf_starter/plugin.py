"""The starter pack: its weights cards, and the card of its detector."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facednerf_core.cards import Card, LocalWeights, WeightsCard
from facednerf_core.errors import MissingWeights
from facednerf_core.hookspecs import hookimpl

if TYPE_CHECKING:
    import torch

    from facednerf_core.interfaces import Detector

FOLDER = Path(__file__).parent / "weights"
HASHES = FOLDER / "sha256.json"  # file or folder -> SHA-256; written by `python -m facednerf_starter.train.exports`
WORDS = FOLDER / "diffusion" / "tokenizer" / "vocabulary.txt"
LICENCE = "Apache-2.0"
DOMAINS = ("face", "head")
FRAMING = {  # of the world's mean head: world.landmarks.points over 4000 draws
    "eye_x": 0.0630,
    "eye_y": 0.0300,
    "eye_z": 0.2140,
    "nose_y": -0.0506,
    "nose_z": 0.2605,
    "mouth_x": 0.0539,
    "mouth_y": -0.1054,
    "mouth_z": 0.2100,
}
BESIDE = {"atlas": "atlas.jpg", "axes": "axes.safetensors"}  # of both generators, whose W is the same
ORBIT = {"radius": 2.7, "pivot": (0.0, 0.0, 0.2), "focal": 4.2647, "yaw": 0.6, "pitch": 0.3}
ROUND = {"radius": 2.7, "pivot": (0.0, 0.0, 0.0), "focal": 4.2647, "yaw": math.pi, "pitch": 0.3}


@cache
def _hashes() -> dict[str, str]:
    found: dict[str, str] = json.loads(HASHES.read_text(encoding="utf-8"))
    return found


def _hash(name: str) -> str:
    """The SHA-256 that a file or folder of the weights should have."""
    if name not in _hashes():
        raise MissingWeights(f"{HASHES.name} has no {name}; run: python -m facednerf_starter.train.exports")
    return _hashes()[name]


def _card(kind: str, plugin: str, summary: str, files: dict[str, str], **more: Any) -> WeightsCard:
    """A weights card of files that this distribution ships."""
    size = sum(
        part.stat().st_size
        for name in files.values()
        for part in ([FOLDER / name] if (FOLDER / name).is_file() else (FOLDER / name).rglob("*"))
        if part.is_file()
    )
    return WeightsCard(
        more.pop("name", f"{plugin}/starter"),
        plugin,
        kind,
        more.pop("pack", "starter"),
        summary,
        domains=more.pop("domains", DOMAINS),
        files=files,
        folder=FOLDER,
        sha256={role: _hash(name) for role, name in files.items()},
        licence=LICENCE,
        size=size,
        **more,
    )


def build_detector(device: torch.device, weights: LocalWeights | None, **options: Any) -> Detector:
    """The face finder."""
    from facednerf_starter.detector.finder import FaceFinder

    if weights is None:
        raise MissingWeights("the starter's detector needs its weights; install facednerf-starter again.")
    return FaceFinder.from_files(weights["tensors"], weights["config"], weights["segmenter"], device)


@hookimpl
def register_detectors(register: Callable[[Card[Detector]], None]) -> None:
    """Registers `starter`."""
    summary = "scikit-image's face cascade, then small networks for landmarks, pose and the person's mask."
    register(Card("starter", summary, build_detector, domains=DOMAINS))


@hookimpl
def register_weights(register: Callable[[WeightsCard], None]) -> None:
    """Registers the pack `starter`: trained by this project on synthetic heads, small, and looking it.

    The detector's segmenter alone is another's: MediaPipe's, under the same licence.
    """
    register(
        _card(
            "generator",
            "eg3d",
            "synthetic heads at 128 pixels; EG3D's architecture, 5 M parameters",
            {"tensors": "generator.safetensors", "config": "generator.json", **BESIDE},
            resolution=128,
            latent=(12, 256),
            provides=("depth", "mask", "density"),
            crop=FRAMING,
            orbit=ORBIT,
            background="white",
        )
    )
    register(
        _card(
            "generator",
            "panohead",
            "synthetic heads from all round at 128 pixels; PanoHead's architecture, 3 M parameters",
            {"tensors": "panohead.safetensors", "config": "panohead.json", **BESIDE},
            resolution=128,
            latent=(12, 256),
            provides=("depth", "mask", "density"),
            crop=FRAMING,
            orbit=ROUND,
            background="white",
        )
    )
    register(
        _card(
            "guidance",
            "sds",
            "latent diffusion of synthetic heads at 128 pixels, a small closed vocabulary",
            {"pipeline": "diffusion"},
            resolution=128,
            options={"scale": 30.0, "t_min": 0.5, "t_max": 0.9, "clip": 1.0},
            vocabulary=tuple(WORDS.read_text(encoding="utf-8").split()),
        )
    )
    register(
        _card(
            "guidance",
            "clip",
            "a CLIP of synthetic heads at 128 pixels, the same small vocabulary",
            {"model": "clip"},
            resolution=128,
            vocabulary=tuple((FOLDER / "clip" / "vocabulary.txt").read_text(encoding="utf-8").split()),
        )
    )
    register(
        _card("identity", "arcface", "IResNet for synthetic heads", {"tensors": "identity.safetensors"}, resolution=112)
    )
    register(
        _card(
            "relighter",
            "dpr",
            "the light of synthetic heads at 128 pixels; DPR's architecture, half as wide",
            {"tensors": "light.safetensors", "config": "light.json"},
            resolution=128,
        )
    )
    register(
        _card(
            "perceptual",
            "vgg16",
            "a VGG16 of an eighth of the width",
            {"tensors": "perceptual.safetensors"},
            domains=("any",),
            resolution=128,
            options={"size": 128},
        )
    )
    register(
        _card(
            "detector",
            "starter",
            "landmarks, pose and mask of a face",
            {"tensors": "detector.safetensors", "config": "detector.json", "segmenter": "segmenter.safetensors"},
            name="starter/detector",
            pack="any",  # it judges photos, whatever draws the heads
            resolution=128,
        )
    )
