"""Camera labels become rays, and the original's cameras become labels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def pixel_rays(camera: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The origin (3,) and unit directions (H W, 3) through the centres of pixels, of a camera label (25,).

    Row i, column j is ray i W + j. Camera axes: x right, y down, z forward. Intrinsics are divided by the image's size,
    the first row by its width, the second by its height; skew counts.
    """
    height, width = size
    pose = camera[:16].unflatten(0, (4, 4))
    fx, skew, cx, _, fy, cy = camera[16:22]
    rows = (torch.arange(height, device=camera.device, dtype=camera.dtype) + 0.5) / height
    columns = (torch.arange(width, device=camera.device, dtype=camera.dtype) + 0.5) / width
    v, u = torch.meshgrid(rows, columns, indexing="ij")
    y = (v.flatten() - cy) / fy
    x = (u.flatten() - cx - skew * y) / fx
    local = torch.stack([x, y, torch.ones_like(x)], dim=1)
    return pose[:3, 3], F.normalize(local @ pose[:3, :3].mT, dim=1)


def camera_label(cam2world: Tensor, intrinsics: Tensor, size: tuple[int, int]) -> Tensor:
    """The label (25,) of a camera: its pose (4, 4), and intrinsics (3, 3) in pixels of an image of this height and width.

    EVA3D's own cameras have square pixels and look through the middle: give `pinhole(focal, size)`. Its AIST release
    stores the inverse of the pose: give `torch.linalg.inv(extrinsics)`.
    """
    height, width = size
    scale = torch.tensor([width, height, 1.0]).to(intrinsics)
    return torch.cat([cam2world.flatten(), (intrinsics / scale[:, None]).flatten().to(cam2world)])


def pinhole(focal: float, size: tuple[int, int]) -> Tensor:
    """Intrinsics (3, 3) in pixels of a camera with square pixels that looks through the middle of its image."""
    height, width = size
    return torch.tensor([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])
