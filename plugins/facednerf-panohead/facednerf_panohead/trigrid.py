"""Features of points in space, read from three shallow volumes (An et al. 2023, section 3.2: the tri-grid)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from facednerf_eg3d.triplanes import plane_axes
from torch import Tensor

GridAxes = tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]
"""For each grid, which world axis runs along its width, its height, and its depth."""

PANOHEAD_AXES: GridAxes = ((0, 1, 2), (0, 2, 1), (1, 2, 0))
"""As PanoHead was trained: unlike EG3D's, the third grid covers y-z."""


def grid_axes(matrices: Sequence[Sequence[Sequence[float]]] | Tensor) -> GridAxes:
    """The axes behind a checkpoint's `plane_axes` (3, 3, 3): coordinates are q @ inverse(matrix).

    Raises:
        InputError: a matrix is not a permutation of the axes.
    """
    with torch.device("cpu"):  # also while a network is being laid out without memory
        first, second, third = ((across, down, 3 - across - down) for across, down in plane_axes(matrices))
    return first, second, third


def as_grids(image: Tensor, depth: int) -> Tensor:
    """A backbone's image (N, 3 * C * D, H, W) as grids (N, 3, C, D, H, W): slices vary fastest, then features."""
    return image.unflatten(1, (3, -1, depth))


def grid_features(grids: Tensor, points: Tensor, axes: GridAxes, box_warp: float) -> Tensor:
    """The features (N, 3, C, P) of points (N, P, 3) in each grid, trilinear, zero outside.

    The outermost samples lie half a cell inside the cube, so that features fade towards its faces, along the few slices
    most of all: one slice alone is not a plane, but fades by 1 - |q| / 2.

    Args:
        grids: (N, 3, C, D, H, W).
        points: world coordinates; the grids span the cube of side `box_warp` around the origin.
        axes: which coordinates each grid is indexed by.
        box_warp: side of that cube, world units.
    """
    scaled = points * (2.0 / box_warp)  # q, in [-1, 1] inside the cube
    place = torch.stack([scaled[..., list(triple)] for triple in axes], dim=1)  # (N, 3, P, 3)
    found = F.grid_sample(grids.flatten(0, 1), place.flatten(0, 1)[:, :, None, None], align_corners=False)
    return found.flatten(2).unflatten(0, grids.shape[:2])


def mean_features(grids: Tensor, points: Tensor, axes: GridAxes, box_warp: float) -> Tensor:
    """The features (N, P, C) of points (N, P, 3), averaged over the three grids; see `grid_features`."""
    return grid_features(grids, points, axes, box_warp).mean(dim=1).transpose(1, 2)
