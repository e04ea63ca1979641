"""Where along a ray the scene is looked at: first everywhere, then where something is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Draws:
    """The uniform numbers in [0, 1) behind the depths of N x V x R rays; leading dimensions may be 1 and are shared."""

    coarse: Tensor  # (N, V, R, S)
    fine: Tensor  # (N, V, R, F)
    density: Tensor | None = None  # (N, V, R, S + F) normals, for a `density_noise` above 0; coarse samples first

    def to(self, like: Tensor) -> Draws:
        """The same in the dtype and on the device of a tensor."""
        density = None if self.density is None else self.density.to(like)
        return Draws(self.coarse.to(like), self.fine.to(like), density)


def random_draws(rngs: Sequence[torch.Generator], rays: int, coarse: int, fine: int, like: Tensor) -> Draws:
    """Draws (1, V, R, .), one CPU generator per view and all subjects alike, moved to where `like` is."""
    pairs = [(torch.rand(rays, coarse, generator=rng), torch.rand(rays, fine, generator=rng)) for rng in rngs]
    return Draws(
        torch.stack([pair[0] for pair in pairs])[None].to(like), torch.stack([pair[1] for pair in pairs])[None].to(like)
    )


def middle_draws(coarse: int, fine: int, like: Tensor) -> Draws:
    """No chance: the middle of every coarse interval, and evenly spaced quantiles, (1, 1, 1, .)."""
    quantiles = (torch.arange(fine, device=like.device, dtype=like.dtype) + 0.5) / max(1, fine)
    return Draws(like.new_full((1, 1, 1, coarse), 0.5), quantiles[None, None, None])


def coarse_depths(near: Tensor | float, far: Tensor | float, draws: Tensor, *, disparity: bool = False) -> Tensor:
    """Depths increasing along each ray, one at random in each of S intervals (Mildenhall et al. 2020, Eq. 2).

    As in the original, the jitter is one-sided and the last interval begins at `far`.

    Args:
        near: distance along the ray, a number or (N, V, R, 1).
        far: likewise.
        draws: (N, V, R, S) in [0, 1).
        disparity: even in 1 / depth rather than in depth.
    """
    count = draws.shape[-1]
    steps = torch.linspace(0.0, 1.0, count, device=draws.device, dtype=draws.dtype)
    progress = steps + draws / (count - 1)
    if disparity:
        return 1.0 / ((1.0 - progress) / near + progress / far)
    return near + (far - near) * progress


@torch.no_grad()
def fine_depths(depths: Tensor, weights: Tensor, draws: Tensor) -> Tensor:
    """Depths (..., F) where the coarse weights are large, by inversion of their distribution; unsorted.

    The weights are first blurred by a maximum and a mean of neighbours (Barron et al. 2021, Eq. 18). As in the
    original, the mass of an interval is placed half an interval too near the camera, and the last bin is never hit.

    Args:
        depths: coarse depths (..., S), sorted.
        weights: of the S - 1 intervals, (..., S - 1).
        draws: (..., F) in [0, 1).
    """
    largest = torch.maximum(weights[..., 1:], weights[..., :-1])
    largest = torch.cat([weights[..., :1], largest, weights[..., -1:]], dim=-1)  # (..., S)
    blurred = 0.5 * (largest[..., 1:] + largest[..., :-1]) + 0.01  # (..., S - 1)
    mass = blurred[..., 1:-1] + 1e-5
    cdf = torch.cumsum(mass / mass.sum(dim=-1, keepdim=True), dim=-1)
    cdf = torch.cat([torch.zeros_like(cdf[..., :1]), cdf], dim=-1)  # (..., S - 2)
    middles = 0.5 * (depths[..., 1:] + depths[..., :-1])  # (..., S - 1)
    draws = draws.expand(*cdf.shape[:-1], -1).contiguous()
    index = torch.searchsorted(cdf, draws, right=True)
    below, above = (index - 1).clamp_min(0), index.clamp_max(cdf.shape[-1] - 1)
    cdf_below, cdf_above = cdf.gather(-1, below), cdf.gather(-1, above)
    near, far = middles.gather(-1, below), middles.gather(-1, above)
    span = cdf_above - cdf_below
    span = torch.where(span < 1e-5, 1.0, span)
    return near + (draws - cdf_below) / span * (far - near)
