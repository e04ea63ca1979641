"""What is taken away from a head before it is seen: what stands outside its crop, and faint clouds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from facednerf_eg3d.volume import Field, RayOptions
from torch import Tensor

from facednerf_core.errors import InputError

VOID = -2000.0
"""Raw density of nothing. The original's -1000 leaves e^-500 where it is averaged with what stands beside it, which only
single precision takes for nothing."""
SOLID = 1000.0
"""Raw density of what is solid; where clouds are binarized, minus as much is nothing, so that between them stands a 0."""
CROP = 0.1
"""The original's margin, world units."""


@dataclass(frozen=True)
class HeadRayOptions(RayOptions):
    """How rays are sampled and composed, under the original's names where it adds to EG3D's."""

    triplane_crop: float | None = CROP  # margin inside the cube that is empty, along x and z, world units; None for none
    cull_clouds: float | None = None  # what has less opacity per world unit than this, [0, 1], is empty; None: nothing
    binarize_clouds: float | None = None  # likewise, and all the rest is solid; goes before `cull_clouds`

    @classmethod
    def read(cls, kwargs: Mapping[str, Any]) -> HeadRayOptions:
        """From a checkpoint's `rendering_kwargs`, in which the original's per-call arguments may stand as well.

        Features are taken from [0, 1] to [-1, 1] only where the decoder ends in a sigmoid.

        Raises:
            InputError: see `RayOptions.read`, or an argument is no number.
        """
        base = RayOptions.read(kwargs)
        known = {item.name: getattr(base, item.name) for item in fields(base)}
        known["signed"] = kwargs.get("decoder_activation", "sigmoid") == "sigmoid"
        for name, default in (("triplane_crop", CROP), ("cull_clouds", None), ("binarize_clouds", None)):
            value = kwargs.get(name, default)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise InputError(f"{name} is {value!r}; give a number, or none at all.")
            known[name] = value
        return cls(**known)


def trimmed(field: Field, options: HeadRayOptions) -> Field:
    """The field as the renderer sees it: cropped, then culled or binarized."""

    def look(points: Tensor) -> tuple[Tensor, Tensor]:
        sigma, colours = field(points)
        return without_clouds(cropped(sigma, points, options), options), colours

    return look


def cropped(sigma: Tensor, points: Tensor, options: HeadRayOptions) -> Tensor:
    """Raw densities (N, P) at points (N, P, 3), nothing being left beyond the margin.

    Height is not limited. A point on the limit stays.
    """
    if options.triplane_crop is None:
        return sigma
    limit = options.box_warp / 2 - options.triplane_crop
    outside = (points[..., 0].abs() > limit) | (points[..., 2].abs() > limit)
    return torch.where(outside, VOID, sigma)


def without_clouds(sigma: Tensor, options: HeadRayOptions) -> Tensor:
    """Raw densities (N, P), the faint ones taken for nothing and, if asked for, the others for solid."""
    binary = options.binarize_clouds is not None
    threshold = options.binarize_clouds if binary else options.cull_clouds
    if threshold is None:
        return sigma
    faint = 1.0 - torch.exp(-F.softplus(sigma - 1.0)) < threshold  # the opacity of a world unit
    return torch.where(faint, -SOLID, torch.full_like(sigma, SOLID)) if binary else torch.where(faint, VOID, sigma)
