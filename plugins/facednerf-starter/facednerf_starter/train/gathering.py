"""Planes and grids read corner by corner, in a form that a compiler fuses: what the recipes train with on a GPU.

The sampler that comes with PyTorch reads and writes one number at a time, for every channel of every corner. Here the
channels of a corner lie side by side, and one kernel reads all corners. The numbers are those of
`facednerf_eg3d.triplanes.mean_features` and `facednerf_panohead.trigrid.mean_features`, up to rounding.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def tabulated(grids: Tensor) -> Tensor:
    """Planes (N, 3, C, H, W) or grids (N, 3, C, D, H, W) as rows (N * 3 * D * H * W, C)."""
    return grids.movedim(2, -1).flatten(0, -2)


def gathered(table: Tensor, points: Tensor, axes: Sequence[Sequence[int]], sizes: Sequence[int], box_warp: float) -> Tensor:
    """The features (N, P, C) of points (N, P, 3), averaged over three planes or grids; linear between samples, zero outside.

    Args:
        table: see `tabulated`.
        points: world coordinates; the cube has the side `box_warp`, world units.
        axes: for each of the three, which coordinates run along its width, its height and, for grids, its depth.
        sizes: (W, H) of a plane or (W, H, D) of a grid.
        box_warp: side of the cube.
    """
    cells = 1
    for size in sizes:
        cells *= size
    subjects = torch.arange(points.shape[0], device=points.device)[:, None] * (len(axes) * cells)
    total: Tensor | None = None
    for which, order in enumerate(axes):
        base = subjects + which * cells
        low, part = [], []
        for axis, size in zip(order, sizes, strict=True):
            place = points[..., axis] * (size / box_warp) + (0.5 * size - 0.5)
            floor = place.floor()
            low.append(floor)
            part.append(place - floor)
        for corner in itertools.product((0, 1), repeat=len(sizes)):
            index, weight, stride = base, torch.ones_like(part[0]), 1
            for near, share, size, side in zip(low, part, sizes, corner, strict=True):
                spot = near + side
                inside = (spot >= 0) & (spot < size)
                weight = weight * (share if side else 1 - share) * inside
                index = index + spot.clamp(0, size - 1).long() * stride
                stride *= size
            found = weight[..., None] * table[index]
            total = found if total is None else total + found
    assert total is not None
    return total / len(axes)


def decoded(
    table: Tensor,
    points: Tensor,
    weights: tuple[Tensor, Tensor, Tensor, Tensor],
    axes: Sequence[Sequence[int]],
    sizes: Sequence[int],
    box_warp: float,
    bounded: bool,
) -> tuple[Tensor, Tensor]:
    """Raw density (N, P) and colour features (N, P, D) of points: `gathered`, then the decoder.

    Args:
        table: see `gathered`, as all others.
        points: likewise.
        weights: weight and bias of the decoder's hidden layer, then of its last.
        axes: likewise.
        sizes: likewise.
        box_warp: likewise.
        bounded: whether colour features pass Mip-NeRF's widened sigmoid.
    """
    features = gathered(table, points, axes, sizes, box_warp)
    out = F.linear(F.softplus(F.linear(features, *weights[:2])), *weights[2:])
    colours = torch.sigmoid(out[..., 1:]) * 1.002 - 0.001 if bounded else out[..., 1:]
    return out[..., 0], colours


@functools.cache
def compiled() -> Callable[..., tuple[Tensor, Tensor]]:
    """`decoded`, compiled on its first call."""
    made: Callable[..., tuple[Tensor, Tensor]] = torch.compile(decoded, dynamic=False)
    return made
