"""What a head's rendering says of its geometry: pieces that hang loose, relief, and whether two views agree."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage, spatial
from torch import Tensor
from torch.nn import functional as F

from facednerf_starter.world.cameras import project, rays
from facednerf_starter.world.landmarks import LANDMARKS

INNER = (
    "left_eye", "right_eye", "left_brow", "right_brow", "left_mouth_corner", "right_mouth_corner", "chin", "left_cheek",
    "right_cheek", "left_jaw", "right_jaw", "nose_tip",
)  # fmt: skip
"""Landmarks whose hull is the inner face."""


def inner_face(landmarks: Tensor, size: int) -> Tensor:
    """The hull (1, size, size) of a face's inner landmarks, of all (K, 2) in [0, 1], as 0 and 1."""
    points = landmarks[[LANDMARKS.index(name) for name in INNER]].cpu().double().numpy()
    axis = (np.arange(size) + 0.5) / size
    x, y = np.meshgrid(axis, axis)
    inside = spatial.Delaunay(points).find_simplex(np.stack([x.ravel(), y.ravel()], 1)) >= 0
    return torch.from_numpy(inside.reshape(1, size, size).astype(np.float32))


def largest(alpha: Tensor, *, least: float = 0.05) -> float:
    """How much of the mass of alpha (H, W) belongs to its largest connected piece; 0 where there is none."""
    values = alpha.clamp(0, 1).cpu().double().numpy()
    labels, count = ndimage.label(values > least, structure=np.ones((3, 3)))
    if not count:
        return 0.0
    masses = ndimage.sum_labels(values, labels, np.arange(1, count + 1))
    return float(masses.max() / max(values.sum(), 1e-9))


def relief(depth: Tensor, inside: Tensor) -> float:
    """How far depth (H, W) spreads inside a mask (H, W): its 95th less its 5th percentile, in world units."""
    low, high = torch.quantile(depth[inside > 0.5].float(), torch.tensor([0.05, 0.95], device=depth.device))
    return float(high - low)


def warped_back(
    front: tuple[Tensor, Tensor], side: tuple[Tensor, Tensor], cameras: tuple[Tensor, Tensor], *, near: float = 0.03
) -> tuple[Tensor, Tensor]:
    """The side view as the front camera would see it by the front's depth, (3, H, W), and where both see one surface (H, W).

    `front` and `side` are an image (3, H, W) and a depth (H, W) along the ray, `cameras` their labels (25,); a surface is
    the same one where the side's depth agrees within `near` world units.
    """
    size = front[0].shape[-1]
    origin, direction = rays(cameras[0], size)
    points = origin + direction * front[1].flatten()[:, None]
    place = project(cameras[1], points).view(1, size, size, 2) * 2 - 1
    both = torch.cat([side[0], side[1][None]])[None]
    seen = F.grid_sample(both, place, mode="bilinear", padding_mode="border", align_corners=False)[0]
    distance = (points - cameras[1][:16].view(4, 4)[:3, 3]).norm(dim=-1).view(size, size)
    within = (place[0].abs() < 1).all(-1)
    return seen[:3], ((seen[3] - distance).abs() < near) & within
