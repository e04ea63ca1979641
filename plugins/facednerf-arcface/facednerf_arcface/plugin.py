"""The cards of arcface and of insightface's detector, and the official weights of the networks that judge pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from facednerf_arcface.options import ArcFaceOptions, ScrfdOptions
from facednerf_core.cards import Card, LocalWeights, WeightsCard
from facednerf_core.errors import MissingWeights
from facednerf_core.hookspecs import hookimpl

if TYPE_CHECKING:
    import torch

    from facednerf_core.interfaces import Detector, Identity

DOMAINS = ("face", "head")
RESEARCH = "for non-commercial research only"


def build(device: torch.device, weights: LocalWeights | None, **options: Any) -> Identity:
    """An ArcFace network from the safetensors file in the role "tensors"."""
    from facednerf_arcface.identity import ArcFace, load

    if weights is None:
        raise MissingWeights("arcface needs the tensors of a recognition network; see `fdn weights`.")
    return ArcFace(load(weights["tensors"], device), ArcFaceOptions(**options))


def build_detector(device: torch.device, weights: LocalWeights | None, **options: Any) -> Detector:
    """insightface's SCRFD from its own model pack, on the CPU whatever the device."""
    from facednerf_arcface.scrfd import load

    return load(ScrfdOptions(**options))


@hookimpl
def register_identities(register: Callable[[Card[Identity]], None]) -> None:
    """Registers `arcface`."""
    summary = "Whether two pictures show the same person, by an ArcFace recognition network."
    register(Card("arcface", summary, build, domains=DOMAINS, sees=0.7, options=ArcFaceOptions))


@hookimpl
def register_detectors(register: Callable[[Card[Detector]], None]) -> None:
    """Registers `insightface`."""
    summary = f"insightface's SCRFD, where that package and a model pack of its are installed; models {RESEARCH}."
    register(
        Card("insightface", summary, build_detector, domains=DOMAINS, options=ScrfdOptions, needs_weights=False),
    )


@hookimpl
def register_weights(register: Callable[[WeightsCard], None]) -> None:
    """Registers the official recognition networks, and VGG16, which the core's reconstruction term reads."""
    register(
        WeightsCard(
            "arcface/ir_se50",
            "arcface",
            "identity",
            "official",
            "IR-SE50 of pixel2style2pixel and FaceDNeRF; cuts the face out by a fixed box",
            domains=DOMAINS,
            files={"tensors": "ir_se50.safetensors"},
            licence="MIT code; none stated for the weights",
            terms_of_use=f"Trained on photos of people that were collected {RESEARCH}.",
            source="https://github.com/eladrich/pixel2style2pixel, pretrained models: IR-SE50, model_ir_se50.pth",
            converter="facednerf_arcface.conversion:ir_se50",
            resolution=112,
        )
    )
    register(
        WeightsCard(
            "arcface/w600k_r50",
            "arcface",
            "identity",
            "official",
            "insightface's IResNet50 of the pack buffalo_l; aligns the face by landmarks",
            domains=DOMAINS,
            files={"tensors": "w600k_r50.safetensors"},
            licence="insightface model zoo: non-commercial research",
            terms_of_use=f"insightface offers its pretrained models {RESEARCH}.",
            source="https://github.com/deepinsight/insightface, model zoo: buffalo_l.zip, w600k_r50.onnx in it",
            converter="facednerf_arcface.conversion:insightface",
            resolution=112,
            options={"fit": "template"},
        )
    )
    register(
        WeightsCard(
            "vgg16/nvidia",
            "vgg16",
            "perceptual",
            "official",
            "VGG16 with LPIPS's channel weights, of StyleGAN's metrics and FaceDNeRF",
            files={"tensors": "vgg16.safetensors"},
            licence="not stated in the file; see where you get it",
            source="NVIDIA's StyleGAN2-ADA (PyTorch) pretrained metrics: vgg16.pt",
            converter="facednerf_arcface.vgg16:convert",
            resolution=256,
        )
    )
    register(
        WeightsCard(
            "vgg16/torchvision",
            "vgg16",
            "perceptual",
            "official",
            "VGG16 of torchvision; every channel counts alike",
            files={"tensors": "vgg16.safetensors"},
            licence="BSD-3-Clause code; weights trained on ImageNet",
            terms_of_use="ImageNet's photos are for non-commercial research; torchvision leaves the judgement to you.",
            source="https://download.pytorch.org/models/vgg16-397923af.pth",
            converter="facednerf_arcface.vgg16:convert",
            resolution=256,
        )
    )
