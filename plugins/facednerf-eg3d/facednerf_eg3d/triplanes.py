"""Features of points in space, read from three planes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from facednerf_core.errors import InputError

PlaneAxes = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""For each plane, which world axis runs along its width and which along its height."""

EG3D_AXES: PlaneAxes = ((0, 1), (0, 2), (2, 0))
"""As EG3D was trained: the third plane repeats the second, transposed, and none covers y-z (its issues 53 and 67)."""


def plane_axes(matrices: Sequence[Sequence[Sequence[float]]] | Tensor) -> PlaneAxes:
    """The axes behind a checkpoint's `plane_axes` (3, 3, 3): coordinates are the first two of q @ inverse(matrix).

    Raises:
        InputError: a matrix is not a permutation of the axes.
    """
    found: list[tuple[int, int]] = []
    eye = torch.eye(3, device="cpu")  # whatever device a network is being built on
    for matrix in torch.as_tensor(matrices, dtype=torch.float32, device="cpu"):
        inverse = matrix.t()  # of a permutation
        if not torch.equal((matrix != 0).sum(dim=0), eye.sum(dim=0).long()) or not torch.equal(matrix @ inverse, eye):
            raise InputError(f"plane_axes {matrix.tolist()} is no permutation of x, y, z; EG3D's tables are.")
        width, height = inverse[:, 0].argmax().item(), inverse[:, 1].argmax().item()
        found.append((int(width), int(height)))
    first, second, third = found
    return first, second, third


def plane_features(planes: Tensor, points: Tensor, axes: PlaneAxes, box_warp: float) -> Tensor:
    """The features (N, 3, C, P) of points (N, P, 3) on each plane, bilinear, zero outside.

    Args:
        planes: (N, 3, C, H, W).
        points: world coordinates; the planes span the cube of side `box_warp` around the origin.
        axes: which coordinates each plane is indexed by.
        box_warp: side of that cube, world units.
    """
    scaled = points * (2.0 / box_warp)
    grid = torch.stack([scaled[..., list(pair)] for pair in axes], dim=1)  # (N, 3, P, 2)
    found = F.grid_sample(planes.flatten(0, 1), grid.flatten(0, 1)[:, :, None], align_corners=False)
    return found.squeeze(-1).unflatten(0, planes.shape[:2])


def mean_features(planes: Tensor, points: Tensor, axes: PlaneAxes, box_warp: float) -> Tensor:
    """The features (N, P, C) of points (N, P, 3), averaged over the three planes; see `plane_features`."""
    return plane_features(planes, points, axes, box_warp).mean(dim=1).transpose(1, 2)
