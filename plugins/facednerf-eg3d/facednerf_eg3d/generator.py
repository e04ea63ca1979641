"""EG3D behind the interface of facednerf."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facednerf_core import statedicts
from facednerf_core.atlas import load
from facednerf_core.errors import InputError
from facednerf_core.interfaces import Generator
from facednerf_core.scene import Atlas, Latent, Rendering, Scene
from facednerf_core.views import Orbit, View
from facednerf_eg3d.mapping import Statistics, principal_axes, statistics
from facednerf_eg3d.network import TriPlaneGenerator
from facednerf_eg3d.retuning import with_tensors
from facednerf_eg3d.sampling import random_draws
from facednerf_eg3d.superresolution import resized
from facednerf_eg3d.volume import Rules

if TYPE_CHECKING:
    from facednerf_eg3d.options import Eg3dOptions


@dataclass(frozen=True)
class Planes(Scene):
    """EG3D's scene: the three planes, and the latent that styles the super-resolution."""

    planes: Tensor  # (N, 3, C, H, W)
    w: Tensor  # (N, L, C)


class Eg3d(Generator):
    """EG3D as a frozen generator.

    Noise maps of a latent are named after their layer ('b16.conv0'); a layer without one uses the checkpoint's own map.
    """

    untuned: tuple[str, ...] = ("backbone.mapping.",)
    """What pivotal tuning leaves alone: the networks that no latent passes through."""

    def __init__(
        self,
        network: TriPlaneGenerator,
        orbit: Orbit,
        *,
        rules: Rules = "view",
        known: Statistics | None = None,
        atlas: Path | None = None,
        axes: Tensor | None = None,
    ) -> None:
        self.network = network
        self.orbit = orbit
        self.rules: Rules = rules
        self.size = (network.img_resolution, network.img_resolution)
        self._known = known
        self._directions = axes  # that W is known to have, (K, w_dim)
        self._axes: Tensor | None = None
        self._sheet = atlas
        self._atlas: Atlas | None = None

    @property
    def statistics(self) -> Statistics:
        """Mean and deviation of W, estimated once, with the mapping conditioned on the frontal camera."""
        if self._known is None:
            self._known = statistics(self.network.backbone.mapping, self.orbit.camera())
        return self._known

    def mean(self) -> Latent:
        """The mean of W in every row, (1, L, C), with the checkpoint's noise maps."""
        return self._latent(self.statistics.mean[None])

    def deviation(self) -> Tensor:
        """The standard deviation of W along each dimension, (C,)."""
        return self.statistics.deviation

    def axes(self) -> Tensor:
        """W's axes (C, C), estimated once: those that the weights tell, and the principal ones of the rest."""
        if self._axes is None:
            self._axes = principal_axes(self.network.backbone.mapping, self.orbit.camera(), self._directions)
        return self._axes

    def atlas(self) -> Atlas | None:
        """The heads of the sheet beside the weights, read once; None without one."""
        if self._atlas is None and self._sheet is not None:
            self._atlas = load(self._sheet, self)
        return self._atlas

    @torch.no_grad()
    def sample(self, rng: torch.Generator, truncation: float = 0.7) -> Latent:
        """A random latent (1, L, C) under the frontal camera; drawn on the CPU."""
        mapping = self.network.backbone.mapping
        mean = self.statistics.mean
        z = torch.randn(1, mapping.z_dim, generator=rng).to(mean)
        row: Tensor = mapping.row(z, self.orbit.camera()[None].to(mean))
        return self._latent(mean.lerp(row, truncation))

    def _latent(self, row: Tensor) -> Latent:
        noise = {name: value.detach().clone() for name, value in self.network.own_noise().items()}
        return Latent(row[:, None].repeat(1, self.network.num_ws, 1), noise)

    def synthesize(self, latent: Latent) -> Scene:
        """The planes of a latent (N, L, C).

        Raises:
            KeyError: the latent has a noise map for a layer that does not exist.
        """
        return Planes(self.network.planes(latent.w, self._maps(latent)), latent.w)

    def _maps(self, latent: Latent) -> dict[str, Tensor]:
        """A map for each layer: the latent's own, or the checkpoint's."""
        own = self.network.own_noise()
        unknown = [name for name in latent.noise if name not in own]
        if unknown:
            raise KeyError(f"no layer {unknown[0]!r} takes noise; these do: {', '.join(own)}")
        return {**own, **latent.noise}

    def render(
        self, scene: Scene, view: View, *, jitter: Sequence[torch.Generator] | None, size: int | None = None
    ) -> Rendering:
        """All views in one call; another `size` casts as many rays as it deserves, and the finished image is resized.

        Depth and mask come at the resolution of the rays. The mask is the opacity of the subject.
        """
        assert isinstance(scene, Planes)
        network, options = self.network, self.network.options
        resolution = network.neural_rendering_resolution
        if size is not None:
            resolution = max(1, round(resolution * size / network.img_resolution))
        draws = None
        if jitter is not None:
            if len(jitter) != view.count:
                raise ValueError(f"{view.count} views want as many random generators, not {len(jitter)}")
            draws = random_draws(jitter, resolution**2, options.coarse, options.fine, scene.w)
        volume = network.render(scene.planes, view.camera, resolution=resolution, draws=draws, rules=self.rules)
        image = network.enlarge(volume.feature, scene.w)
        if size is not None and size != network.img_resolution:
            image = resized(image.flatten(0, 1), size).unflatten(0, image.shape[:2])
        return Rendering(scene, view, image, depth=volume.depth, mask=volume.alpha)

    def tunable(self) -> Mapping[str, nn.Parameter]:
        """Everything a latent passes through: synthesis, decoder and super-resolution, without the mapping."""
        return {name: value for name, value in self.network.named_parameters() if not name.startswith(self.untuned)}

    def tuned(self, tensors: Mapping[str, Tensor]) -> Self:
        """This generator with some tensors replaced; the statistics of W, which tuning does not move, are kept."""
        if not tensors:
            return self
        network = with_tensors(self.network, tensors)
        own = self.statistics
        return type(self)(network, self.orbit, rules=self.rules, known=own, atlas=self._sheet, axes=self._directions)

    def density(self, scene: Scene, points: Tensor, view: View) -> Tensor:
        """Volume density (N, P) at world points (N, P, 3), per world unit; nothing stands outside the planes' cube."""
        assert isinstance(scene, Planes)
        sigma, _ = self.network.field(scene.planes)(points)
        inside = (points.abs() <= 0.5 * self.network.options.box_warp).all(dim=-1)
        return torch.where(inside, F.softplus(sigma - 1.0), 0.0)


def read(tensors: Path, config: Path) -> TriPlaneGenerator:
    """The frozen float32 network of a safetensors file and the JSON file of `TriPlaneGenerator`'s arguments.

    Raises:
        InputError: the files do not describe such a network.
    """
    try:
        arguments: dict[str, Any] = json.loads(config.read_text())
    except ValueError as error:
        raise InputError(f"'{config}' is not a JSON file of the network's arguments: {error}") from error
    arguments.pop("class", None)
    return TriPlaneGenerator.from_state_dict(statedicts.read(tensors), **arguments)


def orbit_of(network: TriPlaneGenerator, known: Mapping[str, Any]) -> Orbit:
    """The orbit that a weights card knows, completed by what the checkpoint says of its cameras."""
    kwargs = network.rendering_kwargs
    stored: dict[str, Any] = {}
    if "avg_camera_radius" in kwargs:
        stored["radius"] = float(kwargs["avg_camera_radius"])
    if "avg_camera_pivot" in kwargs:
        stored["pivot"] = tuple(float(value) for value in kwargs["avg_camera_pivot"])
    orbit = Orbit(**(stored | dict(known)))
    if not all(math.isfinite(value) and value > 0 for value in (orbit.radius, orbit.focal)):
        raise InputError(f"radius {orbit.radius} and focal length {orbit.focal} of a camera must be above 0.")
    return orbit


def adjusted(network: TriPlaneGenerator, options: Eg3dOptions) -> TriPlaneGenerator:
    """The network with the rays that the user asked for."""
    network.neural_rendering_resolution = options.rays or network.neural_rendering_resolution
    network.options = replace(
        network.options,
        coarse=network.options.coarse if options.coarse is None else options.coarse,
        fine=network.options.fine if options.fine is None else options.fine,
        faint=options.faint,
    )
    return network
