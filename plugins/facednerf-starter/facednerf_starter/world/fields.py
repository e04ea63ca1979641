"""The pieces distance functions are made of: pointwise, batched, safe to compile."""

from __future__ import annotations

import torch
from torch import Tensor


def ellipsoid(x: Tensor, y: Tensor, z: Tensor, rx: Tensor | float, ry: Tensor | float, rz: Tensor | float) -> Tensor:
    """Signed distance, to first order at the surface, to an ellipsoid about the origin with radii (rx, ry, rz)."""
    ax, ay, az = x / rx, y / ry, z / rz
    k0 = (ax * ax + ay * ay + az * az + 1e-6).sqrt()
    bx, by, bz = ax / rx, ay / ry, az / rz
    return k0 * (k0 - 1) / (bx * bx + by * by + bz * bz + 1e-6).sqrt()


def join(a: Tensor, b: Tensor, k: float) -> Tensor:
    """The smooth union of two distances, rounded over a width k."""
    h = (k - (a - b).abs()).clamp_min(0)
    return torch.minimum(a, b) - h * h * (0.25 / k)


def cut(a: Tensor, b: Tensor, k: float) -> Tensor:
    """The smooth intersection of two distances, rounded over a width k."""
    h = (k - (a - b).abs()).clamp_min(0)
    return torch.maximum(a, b) + h * h * (0.25 / k)


def bump(u: Tensor, v: Tensor, su: Tensor | float, sv: Tensor | float) -> Tensor:
    """A hill of height 1 over the plane (u, v), close to exp(-(u/su)^2 - (v/sv)^2) and 0 beyond twice its widths."""
    a, b = u / su, v / sv
    c = (1 - 0.25 * (a * a + b * b)).clamp_min(0)
    c = c * c
    return c * c


def ridge(u: Tensor, su: Tensor | float) -> Tensor:
    """`bump` along one coordinate alone."""
    a = u / su
    c = (1 - 0.25 * (a * a)).clamp_min(0)
    c = c * c
    return c * c


def step(x: Tensor, low: float, high: float) -> Tensor:
    """0 below `low`, 1 above `high`, smooth between (either order of the edges)."""
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def tube(
    x: Tensor, y: Tensor, z: Tensor, a: tuple[Tensor | float, ...], b: tuple[Tensor | float, ...]
) -> tuple[Tensor, Tensor]:
    """Distance to the segment from a to b, and the place along it within [0, 1]."""
    ux, uy, uz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    px, py, pz = x - a[0], y - a[1], z - a[2]
    h = ((px * ux + py * uy + pz * uz) / (ux * ux + uy * uy + uz * uz)).clamp(0, 1)
    dx, dy, dz = px - h * ux, py - h * uy, pz - h * uz
    return (dx * dx + dy * dy + dz * dz + 1e-8).sqrt(), h


def noise(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """A smooth aperiodic-looking field, about within [-1, 1], varying over lengths of about 1: warped sines."""
    a = (1.7 * x + 0.9 * y + 1.1 * (1.3 * z + 0.4 * x).sin()).sin()
    b = (1.5 * y - 0.8 * z + 1.2 * (1.1 * x - 0.5 * y).sin()).sin()
    c = (1.6 * z + 0.7 * x + 1.0 * (1.4 * y + 0.3 * z).sin()).sin()
    return (a + b + c) / 2.2


def grain(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Several octaves of `noise`, about within [-1, 1]."""
    return 0.55 * noise(x, y, z) + 0.3 * noise(2.3 * x + 5, 2.3 * y, 2.3 * z) + 0.2 * noise(5.1 * x, 5.1 * y + 3, 5.1 * z)
