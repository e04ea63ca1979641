"""What contracts show to a plugin: seeded draws, smooth pictures, plausible landmarks, and when two tensors agree."""

from __future__ import annotations

import torch
from torch import Tensor

ANGLES = ((0.1, 0.05), (-0.2, 0.1))  # (yaw, pitch) of the views that contracts look from, radians


def seeded(seed: int) -> torch.Generator:
    """A random generator on the CPU."""
    return torch.Generator().manual_seed(seed)


def pictures(count: int, views: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    """Smooth random images (N, V, 3, H, W) in [-1, 1]."""
    coarse = torch.rand(count * views, 3, 5, 5, generator=seeded(seed)) * 2 - 1
    fine = torch.nn.functional.interpolate(coarse, size=size, mode="bilinear", align_corners=True)
    return fine.unflatten(0, (count, views))


def agree(one: Tensor, other: Tensor, tolerance: float) -> bool:
    """Whether two tensors differ nowhere by more than `tolerance`."""
    return one.shape == other.shape and bool((one - other).abs().max() <= tolerance)


def five(count: int, views: int) -> Tensor:
    """Plausible landmarks (N, V, 5, 2) of a centred face: eyes, nose, corners of the mouth, x and y in [0, 1]."""
    points = torch.tensor([[0.35, 0.4], [0.65, 0.4], [0.5, 0.55], [0.38, 0.7], [0.62, 0.7]])
    return points.expand(count, views, -1, -1).clone()
