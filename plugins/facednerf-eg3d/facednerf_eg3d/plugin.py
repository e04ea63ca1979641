"""The card of EG3D, and those of the published networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from facednerf_core.cards import Card, LocalWeights, WeightsCard
from facednerf_core.errors import MissingWeights
from facednerf_core.hookspecs import hookimpl
from facednerf_eg3d.official import RELEASES
from facednerf_eg3d.options import Eg3dOptions

if TYPE_CHECKING:
    import torch

    from facednerf_core.interfaces import Generator


def build(device: torch.device, weights: LocalWeights | None, **options: Any) -> Generator:
    """EG3D from the tensors in the role "tensors" and its constructor's arguments in the role "config"; the weights may have
    an "atlas" too, and "axes" of W."""
    from facednerf_core.atlas import ROLE
    from facednerf_eg3d import axesfile
    from facednerf_eg3d.generator import Eg3d, adjusted, orbit_of, read

    if weights is None:
        raise MissingWeights("eg3d needs a generator's weights; see `fdn weights`.")
    chosen = Eg3dOptions(**options)
    network = adjusted(read(weights["tensors"], weights["config"]), chosen).to(device)
    sheet = weights.paths.get(ROLE) if chosen.atlas else None
    told = weights.paths.get(axesfile.ROLE)
    axes = None if told is None else axesfile.read(told, len(network.backbone.mapping.w_avg))
    return Eg3d(network, orbit_of(network, weights.card.orbit), rules=chosen.rules, atlas=sheet, axes=axes)


@hookimpl
def register_generators(register: Callable[[Card[Generator]], None]) -> None:
    """Registers `eg3d`."""
    summary = "EG3D (Chan et al. 2022): faces, cats or cars on three planes, as its weights were trained."
    register(Card("eg3d", summary, build, domains=("face", "cat", "car"), options=Eg3dOptions))


@hookimpl
def register_weights(register: Callable[[WeightsCard], None]) -> None:
    """Registers the published networks of faces, cats and cars, which users bring themselves."""
    for release in RELEASES.values():
        register(release.card())
