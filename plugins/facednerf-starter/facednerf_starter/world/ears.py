"""The outer ear as a signed distance: helix, antihelix, concha and lobe."""

from __future__ import annotations

import torch
from torch import Tensor

from facednerf_starter.world.anatomy import Measures
from facednerf_starter.world.fields import bump, ellipsoid, ridge, step

HIGH = 0.31
"""Half the ear's height, decimetres."""


def _place(ax: Tensor, y: Tensor, z: Tensor, m: Measures) -> tuple[Tensor, Tensor, Tensor]:
    """Out of the ear's plane, up and forward in it, in decimetres from its middle."""
    out = ax - 0.735 - m["ear_out"] * (-0.10 - z).clamp(-0.12, 0.25)
    return out, (y + 0.10) / m["ear"], z + 0.12 - 0.18 * (y + 0.10)


def _breadth(up: Tensor) -> Tensor:
    """Half the ear's breadth: it is broader above."""
    return 0.17 + 0.10 * up.clamp(-0.3, 0.3)


def _within(up: Tensor, forth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Up and forward in parts of the ear's own halves, and how far from its middle: 1 at its rim."""
    u, v = up / HIGH, forth / _breadth(up)
    return u, v, (u * u + v * v + 1e-4).sqrt()


def ear(ax: Tensor, y: Tensor, z: Tensor, m: Measures) -> Tensor:
    """Distance (N, R) to the ear at |x|."""
    out, up, forth = _place(ax, y, z, m)
    u, v, r = _within(up, forth)
    helix = ridge(r - 0.84, 0.11) * step(v - 1.2 * u, 0.9, 0.2)
    inner = ridge(v + 0.34 - 0.30 * u * u, 0.13) * ridge(u + 0.06, 0.42)
    relief = 0.036 * helix + 0.030 * inner - 0.044 * bump(u + 0.16 + 0.3 * v, v - 0.22, 0.30, 0.30)
    plate = ellipsoid(out, up, forth, 0.046, HIGH, _breadth(up))
    return plate - relief * step(out, -0.03, 0.03)


def hollows(ax: Tensor, y: Tensor, z: Tensor, m: Measures) -> Tensor:
    """How deep in the ear's folds (N, R) points on the skin lie, within [0, 1]."""
    out, up, forth = _place(ax, y, z, m)
    u, v, r = _within(up, forth)
    groove = ridge(r - 0.66, 0.07) * step(v - 1.2 * u, 0.6, 0.0)
    concha = bump(u + 0.18 + 0.3 * v, v - 0.26, 0.22, 0.26)
    return torch.maximum(0.55 * groove, 0.8 * concha) * step(ax, 0.68, 0.72) * step(out, -0.06, -0.02)
