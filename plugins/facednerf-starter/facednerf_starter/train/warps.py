"""Flat geometry of image batches: similarity and affine maps, warps, mirrors. Points are (x, y), 0 and 1 the edges."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def similarity(source: Tensor, target: Tensor) -> Tensor:
    """The rotation, uniform scale and shift `(N, 2, 3)` that carries points `(N, P, 2)` nearest to `(N, P, 2)`.

    Least squares (Umeyama 1991) without reflection; in the plane it is one complex division.
    """
    source_mean, target_mean = source.mean(1, keepdim=True), target.mean(1, keepdim=True)
    a = torch.view_as_complex((source - source_mean).contiguous())
    b = torch.view_as_complex((target - target_mean).contiguous())
    turn = (a.conj() * b).sum(1) / (a.abs() ** 2).sum(1).clamp_min(1e-12)  # (N,)
    linear = torch.stack([turn.real, -turn.imag, turn.imag, turn.real], dim=-1).unflatten(-1, (2, 2))
    shift = target_mean.squeeze(1) - (linear @ source_mean.transpose(1, 2)).squeeze(-1)
    return torch.cat([linear, shift.unsqueeze(-1)], dim=-1)


def about_centre(scale: Tensor, angle: Tensor, stretch: Tensor, shift: Tensor) -> Tensor:
    """Affine maps `(N, 2, 3)` about the image's centre.

    `scale` (N,), `angle` (N,) radians clockwise, `stretch` (N,) the ratio of width to height before the turn,
    `shift` (N, 2) in image widths after it.
    """
    cos, sin = angle.cos() * scale, angle.sin() * scale
    wide, tall = stretch.sqrt(), 1 / stretch.sqrt()
    linear = torch.stack([cos * wide, -sin * tall, sin * wide, cos * tall], dim=-1).unflatten(-1, (2, 2))
    offset = 0.5 + shift - linear.sum(-1) * 0.5
    return torch.cat([linear, offset.unsqueeze(-1)], dim=-1)


def moved(points: Tensor, maps: Tensor) -> Tensor:
    """Points `(N, P, 2)` under affine maps `(N, 2, 3)`."""
    return points @ maps[..., :2].transpose(1, 2) + maps[..., 2].unsqueeze(1)


def inverse(maps: Tensor) -> Tensor:
    """The inverse affine maps `(N, 2, 3)`."""
    linear: Tensor = torch.linalg.inv_ex(maps[..., :2]).inverse  # unlike `inv`, it does not wait for the GPU
    return torch.cat([linear, -linear @ maps[..., 2:]], dim=-1)


def warped(image: Tensor, maps: Tensor, size: int, *, padding: str = "zeros", supersample: int = 1) -> Tensor:
    """Images `(N, C, H, W)` carried by affine maps `(N, 2, 3)` onto a canvas `(N, C, size, size)`, bilinearly.

    `padding`: `zeros` or `border`, what lies outside of the image; `supersample` finer samples per pixel and axis are
    averaged, against aliasing where a map shrinks.
    """
    back = inverse(maps)
    # In F.affine_grid's coordinates u = 2 x - 1, and x' = A x + t becomes u' = A u + (A 1 + 2 t - 1).
    linear, shift = back[..., :2], back[..., 2]
    theta = torch.cat([linear, (linear.sum(-1) + 2 * shift - 1).unsqueeze(-1)], dim=-1)
    fine = size * supersample
    grid = F.affine_grid(theta, [image.shape[0], image.shape[1], fine, fine], align_corners=False)
    drawn = F.grid_sample(image, grid, mode="bilinear", padding_mode=padding, align_corners=False)
    return F.avg_pool2d(drawn, supersample) if supersample > 1 else drawn


def mirror_order(names: Sequence[str]) -> list[int]:
    """For each landmark the index of the one that it becomes in a mirrored image ("left" for "right")."""
    swapped = [name.replace("left", "\0").replace("right", "left").replace("\0", "right") for name in names]
    return [list(names).index(name) for name in swapped]
