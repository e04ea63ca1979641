"""Where the world is seen from: EG3D's camera labels for faces."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

RADIUS = 2.7
PIVOT = (0.0, 0.0, 0.2)
FOCAL = 4.2647


def look(
    yaw: Tensor,
    pitch: Tensor,
    *,
    radius: Tensor | float = RADIUS,
    roll: Tensor | float = 0.0,
    focal: Tensor | float = FOCAL,
    pivot: tuple[float, float, float] = PIVOT,
) -> Tensor:
    """Camera labels (..., 25) for angles (...) in radians: positive yaw sees from +x, positive pitch from above.

    The camera stands on a sphere about the origin and looks at the pivot: (0, 0, 0.2), as EG3D's FFHQ cameras do.
    """
    yaw, pitch = torch.broadcast_tensors(torch.as_tensor(yaw), torch.as_tensor(pitch))
    radius, roll, focal = (
        torch.as_tensor(v, dtype=yaw.dtype, device=yaw.device).expand_as(yaw) for v in (radius, roll, focal)
    )
    eye = radius[..., None] * torch.stack([yaw.sin() * pitch.cos(), pitch.sin(), yaw.cos() * pitch.cos()], -1)
    forward = torch.nn.functional.normalize(torch.tensor(pivot, dtype=yaw.dtype, device=yaw.device) - eye, dim=-1)
    up = torch.tensor([0.0, 1.0, 0.0], dtype=yaw.dtype, device=yaw.device).expand_as(forward)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, up), dim=-1)
    down = torch.linalg.cross(forward, right)
    c, s = roll.cos()[..., None], roll.sin()[..., None]
    right, down = c * right + s * down, c * down - s * right
    pose = torch.zeros(*yaw.shape, 4, 4, dtype=yaw.dtype, device=yaw.device)
    pose[..., :3, 0], pose[..., :3, 1], pose[..., :3, 2], pose[..., :3, 3] = right, down, forward, eye
    pose[..., 3, 3] = 1
    intrinsics = torch.zeros(*yaw.shape, 3, 3, dtype=yaw.dtype, device=yaw.device)
    intrinsics[..., 0, 0] = intrinsics[..., 1, 1] = focal
    intrinsics[..., 0, 2] = intrinsics[..., 1, 2] = 0.5
    intrinsics[..., 2, 2] = 1
    return torch.cat([pose.flatten(-2), intrinsics.flatten(-2)], dim=-1)


def frontal(count: int = 1, views: int = 1) -> Tensor:
    """The camera in front of the face, (count, views, 25)."""
    return look(torch.zeros(count, views), torch.zeros(count, views))


def draw_cameras(
    seed: int,
    first: int,
    count: int,
    views: int,
    yaw: float = 1.0,
    pitch: float = 0.35,
    *,
    jitter: float = 0.0,
    depth: float = PIVOT[2],
) -> Tensor:
    """Cameras (count, views, 25); those of head i are a function of (seed, i) and of the options alone.

    Yaw is a mixture: half uniform within +-`yaw`, half normal around the front; pitch is uniform within +-`pitch`.
    `jitter` (about 0.03) varies radius and focal length together by that fraction, and rolls by that angle. The cameras
    look at (0, 0, `depth`).
    """
    angles = np.empty((count, views, 6), np.float32)
    for i in range(count):
        rng = np.random.Generator(np.random.Philox(key=[seed, first + i], counter=[0, 0, 0, 1]))
        angles[i] = np.stack([*rng.uniform(-1, 1, (2, views)), *rng.standard_normal((4, views)).clip(-2, 2)], 1)
    a = torch.from_numpy(angles)
    wide = torch.where(a[..., 1] * 10 % 2 < 1, a[..., 0] * yaw, (a[..., 2] * 0.4 * yaw).clamp(-yaw, yaw))
    roll = jitter * a[..., 3]
    size = 1 + jitter * a[..., 4]
    focal = FOCAL * size * (1 + 0.5 * jitter * a[..., 5])
    return look(wide, a[..., 1] * pitch, radius=RADIUS * size, roll=roll, focal=focal, pivot=(0.0, 0.0, depth))


def rays(cameras: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Origins and unit directions (..., size*size, 3) through pixel centres, row by row, of labels (..., 25)."""
    pose = cameras[..., :16].unflatten(-1, (4, 4))
    k = cameras[..., 16:].unflatten(-1, (3, 3))
    centre = (torch.arange(size, device=cameras.device, dtype=cameras.dtype) + 0.5) / size
    v, u = torch.meshgrid(centre, centre, indexing="ij")
    u, v = u.flatten(), v.flatten()
    x = (u - k[..., 0, 2, None]) / k[..., 0, 0, None]
    y = (v - k[..., 1, 2, None]) / k[..., 1, 1, None]
    local = torch.stack([x, y, torch.ones_like(x)], -1)
    direction = torch.nn.functional.normalize(local, dim=-1) @ pose[..., :3, :3].transpose(-1, -2)
    return pose[..., None, :3, 3].expand_as(direction), direction


def project(cameras: Tensor, points: Tensor) -> Tensor:
    """World points (..., K, 3) to image coordinates (..., K, 2): x right, y down, [0, 1] across the image."""
    pose = cameras[..., :16].unflatten(-1, (4, 4))
    k = cameras[..., 16:].unflatten(-1, (3, 3))
    local = (points - pose[..., None, :3, 3]) @ pose[..., :3, :3]
    image = local @ k.transpose(-1, -2)
    return image[..., :2] / image[..., 2:]
