"""The cards of EVA3D and of its published weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from facednerf_core.cards import Card, LocalWeights, WeightsCard
from facednerf_core.errors import InputError, MissingWeights
from facednerf_core.hookspecs import hookimpl
from facednerf_eva3d.options import Eva3dOptions
from facednerf_eva3d.orbit import BodyOrbit

if TYPE_CHECKING:
    import torch

    from facednerf_core.interfaces import Generator

PUBLISHED = {
    "deepfashion": "fashion photos, standing people (DeepFashion)",
    "shhq": "fashion photos, standing people (SHHQ)",
    "ubcfashion": "fashion videos (UBCFashion)",
    "aist": "dance videos (AIST++)",
}
TERMS_OF_USE = (
    "S-Lab License 1.0: no commercial use. The body model SMPL has its own licence and comes from its own authors: give "
    "your file as --option eva3d.body=FILE."
)


def build(device: torch.device, weights: LocalWeights | None, **options: Any) -> Generator:
    """EVA3D from the tensors in the role "tensors", its arguments in the role "config", and the body of the options."""
    from facednerf_eva3d.bodyfile import open_body
    from facednerf_eva3d.generator import Eva3d, adjusted, read

    if weights is None:
        raise MissingWeights("eva3d needs a generator's weights; see `fdn weights`.")
    chosen = Eva3dOptions(**options)
    network = adjusted(read(weights["tensors"], weights["config"]), chosen).to(device)
    body = open_body(chosen.body, chosen.template_sdf).to(device)
    if network.is_aist:
        body = body.scaled()
    height, width = network.size
    orbit = BodyOrbit(**{"aspect": height / width, **weights.card.orbit})
    if abs(orbit.aspect * width - height) > 1:
        raise InputError(
            f"the weights card {weights.card.name} says that pictures are {orbit.aspect:g} times as high as wide; this "
            f"checkpoint draws {height} x {width}. Give its orbit the aspect {height / width:g}."
        )
    return Eva3d(network, body, orbit, near=None if chosen.rules == "official" else 0.0)


@hookimpl
def register_generators(register: Callable[[Card[Generator]], None]) -> None:
    """Registers `eva3d`."""
    summary = "EVA3D (Hong et al. 2023): clothed human bodies in any pose, sixteen small networks around a body model."
    register(Card("eva3d", summary, build, domains=("body",), options=Eva3dOptions))


@hookimpl
def register_weights(register: Callable[[WeightsCard], None]) -> None:
    """Registers the four published sets of weights; their files are the user's to get."""
    for name, drawn in PUBLISHED.items():
        register(
            WeightsCard(
                f"eva3d/{name}",
                "eva3d",
                "generator",
                "official",
                f"EVA3D, {drawn}",
                domains=("body",),
                files={"tensors": "eva3d.safetensors", "config": "eva3d.json"},
                licence="S-Lab License 1.0 (non-commercial)",
                terms_of_use=TERMS_OF_USE,
                source="https://github.com/hongfz16/EVA3D",
                converter="facednerf_eva3d.checkpoint:convert",
                resolution=512,
                latent=(63 if name == "aist" else 68, 128),
                provides=("depth", "mask", "density"),
                pose=85,
                orbit=asdict(BodyOrbit()),
                background="white",
            )
        )
