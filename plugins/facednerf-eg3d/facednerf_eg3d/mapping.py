"""The mapping network: a random vector and the camera it is conditioned on become a latent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from facednerf_eg3d.layers import FullyConnected, unit_second_moment

TIED = 0.6
"""The correlation from which two axes are taken to go together."""


class MappingNetwork(nn.Module):
    """z (N, z_dim) and a camera label (N, c_dim) to w (N, num_ws, w_dim)."""

    w_avg: Tensor

    def __init__(
        self,
        *,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        num_ws: int,
        num_layers: int = 2,
        lr_multiplier: float = 0.01,
        c_scale: float = 0.0,
        zero_c: bool = False,
    ) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.num_ws = z_dim, c_dim, num_ws
        self.num_layers = num_layers
        self.c_scale = 0.0 if zero_c else c_scale
        self.register_buffer("w_avg", torch.zeros(w_dim))
        self.embed = FullyConnected(c_dim, w_dim)
        for index in range(num_layers):
            layer = FullyConnected(
                z_dim + w_dim if index == 0 else w_dim, w_dim, activated=True, lr_multiplier=lr_multiplier
            )
            self.add_module(f"fc{index}", layer)

    def forward(self, z: Tensor, c: Tensor, truncation: float = 1.0, cutoff: int | None = None) -> Tensor:
        """The latents (N, num_ws, w_dim); the first `cutoff` rows (None: all) are pulled to the mean by `truncation`.

        The embedding is applied even where the network ignores the camera: it then gives its normalised bias.
        """
        w = self.row(z, c)
        ws = w[:, None].repeat(1, self.num_ws, 1)
        if truncation != 1.0:
            kept = ws[:, ws.shape[1] if cutoff is None else cutoff :]
            ws = torch.cat([self.w_avg.to(ws).lerp(ws[:, :cutoff], truncation), kept], dim=1)
        return ws

    def row(self, z: Tensor, c: Tensor) -> Tensor:
        """The one latent row (N, w_dim) that the network computes, before it is repeated; inputs of any float dtype."""
        exact = torch.promote_types(self.embed.weight.dtype, torch.float32)
        label = unit_second_moment(self.embed(c.to(exact) * self.c_scale))
        x = torch.cat([unit_second_moment(z.to(exact)), label], dim=1)
        for index in range(self.num_layers):
            x = getattr(self, f"fc{index}")(x)
        return x


class Statistics(NamedTuple):
    """What W looks like: estimated from many random vectors."""

    mean: Tensor  # (w_dim,)
    deviation: Tensor  # (w_dim,)


@torch.no_grad()
def principal_axes(
    mapping: MappingNetwork, c: Tensor, known: Tensor | None = None, *, samples: int = 20_000, seed: int = 321
) -> Tensor:
    """W's axes as rows (w_dim, w_dim) under the camera label c (c_dim,), as `Generator.axes` has them. W is drawn on the CPU
    from `seed`.

    Args:
        known: orthonormal rows (K, w_dim) along which one thing at a time changes; they come first, and the principal axes
            of what is left of W follow. None: all are principal axes. What nearly always goes with an axis, as having no
            hat does with having one, is in its row, and no looser habit.
    """
    rows = torch.cat(list(_drawn(mapping, c, samples, seed)))
    covariance = torch.cov(rows.T).cpu()
    taken = covariance.new_zeros(0, len(covariance)) if known is None else known.to(covariance)
    within = taken.T @ taken
    rest = torch.eye(len(covariance), dtype=covariance.dtype) - within
    _, principal = torch.linalg.eigh(rest @ covariance @ rest - within)  # what is taken has eigenvalue -1, so it is first
    axes = torch.cat([taken, principal.T[len(taken) :]])
    along = axes @ covariance @ axes.T
    deviations = along.diagonal().clamp_min(1e-12).sqrt()
    tied = (along / torch.outer(deviations, deviations)).abs() >= TIED
    drawn = (along * tied) @ axes  # of a principal axis: the axis itself, as long as its variance
    variances = drawn.norm(dim=1, keepdim=True).clamp_min(1e-12)
    return (drawn / variances * variances.clamp_max(2 * covariance.diagonal().mean()).sqrt()).to(mapping.w_avg)


@torch.no_grad()
def statistics(mapping: MappingNetwork, c: Tensor, *, samples: int = 10_000, seed: int = 123) -> Statistics:
    """Mean and standard deviation of W along each dimension, under the camera label c (c_dim,).

    The vectors are drawn on the CPU from `seed`, so that every device and every run finds the same statistics.
    """
    total = torch.zeros_like(mapping.w_avg, dtype=torch.float64)
    square = torch.zeros_like(total)
    for w in _drawn(mapping, c, samples, seed):
        total += w.sum(dim=0)
        square += w.square().sum(dim=0)
    mean = total / samples
    deviation = (square / samples - mean.square()).clamp_min(0).sqrt()
    return Statistics(mean.to(mapping.w_avg), deviation.to(mapping.w_avg))


def _drawn(mapping: MappingNetwork, c: Tensor, samples: int, seed: int) -> Iterator[Tensor]:
    """Rows of W (n, w_dim) of random vectors, in float64, by the thousand."""
    rng = torch.Generator().manual_seed(seed)
    weight = mapping.embed.weight
    for count in [1000] * (samples // 1000) + [samples % 1000]:
        z = torch.randn(count, mapping.z_dim, generator=rng).to(weight)
        yield mapping.row(z, c.to(weight).expand(count, -1)).double()
