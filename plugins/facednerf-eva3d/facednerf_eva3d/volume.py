"""Volume rendering of a signed distance (Or-El et al. 2022, StyleSDF, Eq. 6; EVA3D, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

SHARPEST = 2e-3  # the least scale of a surface's softness


class Composite(NamedTuple):
    """What R rays gather over their S samples."""

    rgb: Tensor  # (R, 3), [0, 1], on black
    depth: Tensor  # (R,)
    alpha: Tensor  # (R,), how much of the ray ends on the body
    weights: Tensor  # (R, S)


@dataclass(frozen=True)
class Volume:
    """What V cameras see of N bodies."""

    image: Tensor  # (N, V, 3, H, W), [-1, 1]
    mask: Tensor  # (N, V, 1, H, W), how much of the pixel is body, [0, 1]
    depth: Tensor  # (N, V, 1, H, W), metres along the ray, the view's largest where no box is met
    xyz: Tensor  # (N, V, 3, H, W), where the pixel's ray ends in the world, times mask; 0 where no box is met


def density(distance: Tensor, beta: Tensor) -> Tensor:
    """Volume density, per metre, of signed distances: sigmoid(-distance / beta) / beta.

    beta is held to at least 0.002; the original writes that into its parameter at every pass, which we do not.
    """
    beta = beta.clamp_min(SHARPEST)
    return torch.sigmoid(-distance / beta) / beta


def sample_weights(depths: Tensor, sigma: Tensor) -> Tensor:
    """What each sample adds to its ray, (R, S), of depths and densities (R, S).

    The last interval is taken to be as long as the one before.
    """
    steps = depths[:, 1:] - depths[:, :-1]
    steps = torch.cat([steps, steps[:, -1:]], dim=1)
    alpha = 1 - torch.exp(-sigma * steps)
    through = torch.cumprod(1 - alpha + 1e-10, dim=1)
    through = torch.cat([torch.ones_like(through[:, :1]), through[:, :-1]], dim=1)
    return alpha * through


def composite(depths: Tensor, sigma: Tensor, raw: Tensor) -> Composite:
    """Rays of depths and densities (R, S), and colours (R, S, 3) before their sigmoid."""
    weights = sample_weights(depths, sigma)
    rgb = (weights[..., None] * torch.sigmoid(raw)).sum(dim=1)
    return Composite(rgb, (weights * depths).sum(dim=1), weights.sum(dim=1), weights)


def spread(values: Tensor, rays: Tensor, size: tuple[int, int], background: Tensor | float) -> Tensor:
    """An image (C, H, W) of values (R, C) at some pixels (R,), row by row, and a background value elsewhere."""
    height, width = size
    image = torch.zeros(height * width, values.shape[1], dtype=values.dtype, device=values.device) + background
    return image.index_copy(0, rays, values).mT.unflatten(1, (height, width))


def beside(volumes: Sequence[Volume], dim: int) -> Volume:
    """Subjects (dim 0) or views (dim 1) side by side."""
    names = ("image", "mask", "depth", "xyz")
    return Volume(*(torch.cat([getattr(volume, name) for volume in volumes], dim=dim) for name in names))
