"""Camera labels become rays."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def camera_rays(camera: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """Origins and unit directions, each (..., R, 3), of camera labels (..., 25) at `resolution` squared pixels.

    Pixel (row i, column j) is ray i * resolution + j and is pierced at its centre. OpenCV axes: x right, y down, z into
    the scene. Skew and unequal focal lengths count.
    """
    pose = camera[..., :16].unflatten(-1, (4, 4))
    fx, skew, cx, _, fy, cy = camera[..., 16:22, None].unbind(dim=-2)  # (..., 1)
    centres = (torch.arange(resolution, device=camera.device, dtype=camera.dtype) + 0.5) / resolution
    v, u = torch.meshgrid(centres, centres, indexing="ij")
    u, v = u.flatten(), v.flatten()  # (R,)
    y = (v - cy) / fy
    x = (u - cx + cy * skew / fy - skew * v / fy) / fx
    local = torch.stack([x, y, torch.ones_like(x)], dim=-1)  # (..., R, 3)
    directions = F.normalize(local @ pose[..., :3, :3].mT, dim=-1)  # last, as a stored rotation is not quite one
    return pose[..., None, :3, 3].expand_as(directions), directions


def box_span(origins: Tensor, directions: Tensor, side: float) -> tuple[Tensor, Tensor]:
    """Where rays (..., 3) enter and leave the cube of this side around the origin, each (..., 1); -1 and -2 for a miss."""
    inverse = 1.0 / directions
    low, high = (-0.5 * side - origins) * inverse, (0.5 * side - origins) * inverse
    near = torch.minimum(low, high).amax(dim=-1, keepdim=True)
    far = torch.maximum(low, high).amin(dim=-1, keepdim=True)
    hit = near <= far
    return torch.where(hit, near, -1.0), torch.where(hit, far, -2.0)
