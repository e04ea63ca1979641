"""What a camera makes of a rendering: a background, blur, noise, exposure, white balance, compression."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def _uniform(rng: np.random.Generator, like: Tensor, low: float, high: float, *shape: int) -> Tensor:
    return torch.from_numpy(rng.uniform(low, high, shape).astype(np.float32)).to(like.device)


def _clouds(rng: np.random.Generator, like: Tensor, count: int, height: int, width: int, cells: int) -> Tensor:
    """Smooth random fields (count, 1, H, W) within [0, 1] that vary over 1/cells of the picture."""
    coarse = _uniform(rng, like, 0, 1, count, 1, cells + 1, cells + 1)
    return F.interpolate(coarse, (height, width), mode="bicubic", align_corners=True).clamp(0, 1)


def backgrounds(count: int, height: int, width: int, rng: np.random.Generator, like: Tensor) -> Tensor:
    """Backgrounds (count, 3, H, W) within [0, 1]: studio, gradient, clouds, blurred shapes, stripes, rooms."""
    v, u = torch.meshgrid(
        torch.linspace(0, 1, height, device=like.device), torch.linspace(0, 1, width, device=like.device), indexing="ij"
    )
    a, b, c = (_uniform(rng, like, 0.02, 1.0, count, 3, 1, 1) for _ in range(3))
    grey = _uniform(rng, like, 0, 1, count, 1, 1, 1)  # many rooms are nearly colourless
    a, b, c = (x + (x.mean(1, keepdim=True) - x) * grey for x in (a, b, c))
    angle = _uniform(rng, like, 0, 2 * math.pi, count, 1, 1, 1)
    along = (u - 0.5) * angle.cos() + (v - 0.5) * angle.sin() + 0.5
    broad, fine = _clouds(rng, like, count, height, width, 3), _clouds(rng, like, count, height, width, 9)
    studio = a * (1 - 0.45 * ((u - 0.5) ** 2 + (v - 0.45) ** 2))
    gradient = a + (b - a) * along
    cloud = a + (b - a) * (0.7 * broad + 0.3 * fine)
    shapes = cloud
    for _ in range(5):
        x, y = (_uniform(rng, like, 0, 1, count, 1, 1, 1) for _ in range(2))
        w, h = (_uniform(rng, like, 0.05, 0.35, count, 1, 1, 1) for _ in range(2))
        edge = _uniform(rng, like, 0.01, 0.12, count, 1, 1, 1)
        colour = _uniform(rng, like, 0, 1, count, 3, 1, 1)
        disc = ((u - x) / w) ** 2 + ((v - y) / h) ** 2
        box = torch.maximum((u - x).abs() / w, (v - y).abs() / h)
        inside = ((1 - torch.where(colour[:, :1] > 0.5, disc, box)) / edge * 0.2).clamp(0, 1)
        shapes = shapes + (colour - shapes) * inside * 0.85
    stripes = a + (b - a) * (0.5 + 0.5 * (along * _uniform(rng, like, 10, 60, count, 1, 1, 1)).sin()).clamp(0, 1) ** 2
    floor = _uniform(rng, like, 0.55, 0.95, count, 1, 1, 1)
    corner = _uniform(rng, like, 0.05, 0.95, count, 1, 1, 1)
    wall = torch.where(u < corner, a, 0.8 * a)
    room = torch.where(v > floor + 0.15 * (u - corner).abs(), b, wall)
    frame = torch.maximum((u - 1 + corner).abs() / 0.16, (v - 0.3).abs() / 0.2) < 1
    room = torch.where(frame, c, room) * (0.85 + 0.3 * broad)
    kinds = torch.stack([studio.expand_as(cloud), gradient.expand_as(cloud), cloud, shapes, stripes.expand_as(cloud), room])
    chosen = torch.from_numpy(rng.choice(len(kinds), count, p=[0.22, 0.16, 0.18, 0.2, 0.06, 0.18])).to(like.device)
    picture = kinds[chosen, torch.arange(count, device=like.device)]
    soft = _blur(picture, _uniform(rng, like, 0, 0.03, count) * width)
    return soft.clamp(0, 1)


def _blur(image: Tensor, sigma: Tensor) -> Tensor:
    """A Gaussian blur of its own sigma (N,), in pixels, for each of images (N, C, H, W)."""
    reach = max(1, min(math.ceil(2.5 * float(sigma.max())), min(image.shape[-2:]) - 1))
    place = torch.arange(-reach, reach + 1, device=image.device, dtype=image.dtype)
    kernel = (-0.5 * (place / sigma[:, None].clamp_min(0.05)) ** 2).exp()
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(image.shape[1], 0)  # (N*C, K)
    flat = image.reshape(1, -1, *image.shape[-2:])
    flat = F.conv2d(F.pad(flat, (reach, reach, 0, 0), mode="replicate"), kernel[:, None, None, :], groups=flat.shape[1])
    flat = F.conv2d(F.pad(flat, (0, 0, reach, reach), mode="replicate"), kernel[:, None, :, None], groups=flat.shape[1])
    return flat.reshape(image.shape)


def _blocks(image: Tensor, strength: Tensor) -> Tensor:
    """Coarse quantisation of 8 x 8 cosine blocks, as JPEG does; `strength` (N,) is the step, within about [0, 0.2]."""
    height, width = image.shape[-2] // 8 * 8, image.shape[-1] // 8 * 8
    n = torch.arange(8, device=image.device, dtype=image.dtype)
    basis = torch.cos(math.pi * (n[None] + 0.5) * n[:, None] / 8) * (0.25**0.5)
    basis[0] *= 0.5**0.5
    part = image[..., :height, :width].unflatten(-2, (height // 8, 8)).unflatten(-1, (width // 8, 8)).transpose(-3, -2)
    cosines = basis @ part @ basis.T
    size = strength.view(-1, 1, 1, 1, 1, 1).clamp_min(1e-3) * (1 + (n[:, None] + n[None]) / 2)
    part = basis.T @ ((cosines / size).round() * size) @ basis
    out = image.clone()
    out[..., :height, :width] = part.transpose(-3, -2).flatten(-2).flatten(-3, -2)
    return out


def photograph(
    image: Tensor, mask: Tensor, rng: np.random.Generator, *, jitter: float = 0.0, background: Tensor | None = None,
    strength: float = 1.0,
) -> Tensor:  # fmt: skip
    """Photos [-1, 1] float32 of renderings over white, of the same shape.

    `image` (..., 3, H, W) is [-1, 1] float or uint8; `mask` (..., 1, H, W) is [0, 1] float or uint8. Draws come from
    `rng` on the CPU, so any device gives the same photos up to rounding. `jitter` is the largest shift of the crop, in
    pictures; `background` (..., 3, H, W) [0, 1] replaces the drawn one; `strength` scales blur, noise and colour.
    """
    shape = image.shape
    picture = image.float() / 255 if image.dtype == torch.uint8 else (image + 1) / 2
    cover = mask.float() / 255 if mask.dtype == torch.uint8 else mask
    picture, cover = picture.reshape(-1, *shape[-3:]), cover.reshape(-1, 1, *shape[-2:])
    count, height, width = picture.shape[0], shape[-2], shape[-1]
    behind = backgrounds(count, height, width, rng, picture) if background is None else background.reshape(picture.shape)
    photo = picture - (1 - cover) * (1 - behind)  # the rendering lies over white
    if jitter > 0:
        theta = torch.eye(2, 3, device=photo.device).repeat(count, 1, 1)
        theta[:, :, 2] = _uniform(rng, photo, -2 * jitter, 2 * jitter, count, 2)
        theta[:, :2, :2] *= 1 + _uniform(rng, photo, -jitter, jitter, count, 1, 1)
        grid = F.affine_grid(theta, list(photo.shape), align_corners=False)
        photo = F.grid_sample(photo, grid, padding_mode="reflection", align_corners=False)
    exposure = _uniform(rng, photo, -0.35, 0.3, count, 1, 1, 1) * strength
    balance = _uniform(rng, photo, -0.08, 0.08, count, 3, 1, 1) * strength
    contrast = 1 + _uniform(rng, photo, -0.2, 0.2, count, 1, 1, 1) * strength
    photo = photo.clamp(1e-4, 1) * 2.0 ** (0.6 * exposure) * (1 + balance)
    photo = (photo - 0.5) * contrast + 0.5
    grey = photo.mean(1, keepdim=True)
    photo = grey + (photo - grey) * (1 + _uniform(rng, photo, -0.3, 0.2, count, 1, 1, 1) * strength)
    soft = _uniform(rng, photo, 0, 1, count) ** 2 * 0.008 * width * strength
    photo = _blur(photo, soft)
    level = _uniform(rng, photo, 0, 1, count, 1, 1, 1) ** 2 * 0.05 * strength
    # A few fields of noise serve the whole batch, some of them negated and turned: drawing them takes the CPU's time.
    fields = torch.from_numpy(rng.standard_normal((min(count, 8), 3, height, width), dtype=np.float32)).to(photo.device)
    speckle = fields[torch.from_numpy(rng.integers(len(fields), size=count)).to(photo.device)]
    turned = torch.from_numpy(rng.integers(2, size=(count, 1, 1, 1))).to(photo.device)
    speckle = torch.where(turned == 1, -speckle.flip((-2, -1)), speckle)
    photo = photo + level * speckle * (0.4 + 0.6 * photo.clamp(0, 1).sqrt())
    photo = _blocks(photo.clamp(0, 1), _uniform(rng, photo, 0, 1, count) ** 3 * 0.12 * strength)
    return (photo.clamp(0, 1) * 2 - 1).reshape(shape)
