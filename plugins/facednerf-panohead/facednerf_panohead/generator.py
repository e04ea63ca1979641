"""PanoHead behind the interface of facednerf."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from facednerf_eg3d.generator import Eg3d
from facednerf_eg3d.sampling import random_draws
from facednerf_eg3d.superresolution import resized
from torch import Tensor

from facednerf_core import statedicts
from facednerf_core.errors import InputError
from facednerf_core.scene import Latent, Rendering, Scene
from facednerf_core.views import Orbit, View
from facednerf_panohead.clouds import trimmed
from facednerf_panohead.network import TriGridGenerator

if TYPE_CHECKING:
    from facednerf_panohead.options import PanoHeadOptions

PIVOT = (0.0, 0.0, 0.0)
"""What the original's scripts look at: the head's middle, although a checkpoint's `avg_camera_pivot` lies 0.2 before it."""
ALL_ROUND = math.pi
"""The largest |yaw|, radians: there is none that PanoHead cannot be seen from."""


@dataclass(frozen=True)
class Head(Scene):
    """PanoHead's scene: the tri-grid, what stands behind it on the screen, and the latent that styles the rest."""

    grids: Tensor  # (N, 3, C, D, H, W)
    background: Tensor | None  # (N, C, R, R)
    w: Tensor  # (N, L, C)


class PanoHead(Eg3d):
    """PanoHead as a frozen generator.

    Noise maps of a latent are named after their layer: 'b16.conv0', and 'bcg_synthesis.b16.conv0' of the background; a layer
    without one uses the checkpoint's own map. The learnt offset of cameras plays no part, as in the original's scripts.
    """

    network: TriGridGenerator  # type: ignore[assignment]  # Eg3d asks of it only what both networks have
    untuned = ("backbone.mapping.", "t_mapping.")

    def synthesize(self, latent: Latent) -> Head:
        """The tri-grid and background of a latent (N, L, C).

        Raises:
            KeyError: the latent has a noise map for a layer that does not exist.
        """
        noise = self._maps(latent)
        return Head(self.network.grids(latent.w, noise), self.network.background(latent.w, noise), latent.w)

    def render(
        self, scene: Scene, view: View, *, jitter: Sequence[torch.Generator] | None, size: int | None = None
    ) -> Rendering:
        """All views in one call; another `size` casts as many rays as it deserves, and the finished image is resized.

        The background is part of the image. Depth and mask come at the resolution of the rays. The mask is the opacity of
        the subject, as it was blended with; the original widens the one that it returns (`Composed.mask`).
        """
        assert isinstance(scene, Head)
        network, options = self.network, self.network.options
        resolution = network.neural_rendering_resolution
        if size is not None:
            resolution = max(1, round(resolution * size / network.img_resolution))
        draws = None
        if jitter is not None:
            if len(jitter) != view.count:
                raise ValueError(f"{view.count} views want as many random generators, not {len(jitter)}")
            like = scene.w.new_zeros((), dtype=torch.float32)
            draws = random_draws(jitter, resolution**2, options.coarse, options.fine, like)
        composed = network.render(
            scene.grids, view.camera, scene.w, scene.background, resolution=resolution, draws=draws, rules=self.rules
        )
        image = network.enlarge(composed, scene.w)
        image = image.to(torch.promote_types(image.dtype, torch.float32))
        if size is not None and size != network.img_resolution:
            image = resized(image.flatten(0, 1), size).unflatten(0, image.shape[:2])
        return Rendering(scene, view, image, depth=composed.depth, mask=composed.alpha)

    def density(self, scene: Scene, points: Tensor, view: View) -> Tensor:
        """Volume density (N, P) at world points (N, P, 3), per world unit, cropped as it is rendered; nothing stands
        outside the grids' cube."""
        assert isinstance(scene, Head)
        options = self.network.options
        grids = scene.grids.to(torch.promote_types(scene.grids.dtype, torch.float32))
        sigma, _ = trimmed(self.network.field(grids), options)(points.to(grids))
        inside = (points.abs() <= 0.5 * options.box_warp).all(dim=-1)
        return torch.where(inside, F.softplus(sigma - 1.0), 0.0)


def read(tensors: Path, config: Path) -> TriGridGenerator:
    """The frozen float32 network of a safetensors file and the JSON file of `TriGridGenerator`'s arguments.

    Raises:
        InputError: the files do not describe such a network.
    """
    try:
        arguments: dict[str, Any] = json.loads(config.read_text())
    except ValueError as error:
        raise InputError(f"'{config}' is not a JSON file of the network's arguments: {error}") from error
    arguments.pop("class", None)
    return TriGridGenerator.from_state_dict(statedicts.read(tensors), **arguments)


def orbit_of(network: TriGridGenerator, known: Mapping[str, Any]) -> Orbit:
    """The orbit that a weights card knows, completed by what the checkpoint says of its cameras.

    The pivot is not taken from the checkpoint: see `PIVOT`.
    """
    stored: dict[str, Any] = {"pivot": PIVOT, "yaw": ALL_ROUND}
    if "avg_camera_radius" in network.rendering_kwargs:
        stored["radius"] = float(network.rendering_kwargs["avg_camera_radius"])
    orbit = Orbit(**(stored | dict(known)))
    if not all(math.isfinite(value) and value > 0 for value in (orbit.radius, orbit.focal)):
        raise InputError(f"radius {orbit.radius} and focal length {orbit.focal} of a camera must be above 0.")
    return orbit


def adjusted(network: TriGridGenerator, options: PanoHeadOptions) -> TriGridGenerator:
    """The network with the rays, samples and crop that the user asked for."""
    network.neural_rendering_resolution = options.rays or network.neural_rendering_resolution
    own = network.options
    network.options = replace(
        own,
        coarse=own.coarse if options.coarse is None else options.coarse,
        fine=own.fine if options.fine is None else options.fine,
        faint=options.faint,
        cull_clouds=own.cull_clouds if options.cull is None else options.cull,
    )
    if options.crop is not None:
        network.options = replace(network.options, triplane_crop=None if options.crop == "off" else options.crop)
    return network
