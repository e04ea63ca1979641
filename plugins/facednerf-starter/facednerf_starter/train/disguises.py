"""Changes of appearance that keep geometry, so that a network trained on rendered heads can read real photos.

Images are (B, 3, H, W) in [-1, 1]. Every function draws from a key of its own and acts on part of the batch; the
random layers follow Xu et al. 2021 ("Robust and generalizable visual representation learning via random convolutions").
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from facednerf_starter.train import draws, warps
from facednerf_starter.train.draws import Key


def chosen(count: int, share: float, at: Key, device: torch.device) -> Tensor:
    """A random part of the batch, (B, 1, 1, 1) booleans."""
    return (draws.uniform((count,), at, device) < share)[:, None, None, None]


def field(count: int, channels: int, cells: int, size: int, at: Key, device: torch.device) -> Tensor:
    """Smooth normal noise (B, channels, size, size) from a grid of `cells` by `cells`."""
    grid = draws.normal((count, channels, cells, cells), at, device)
    return F.interpolate(grid, size=(size, size), mode="bicubic", align_corners=False)


def tinted(image: Tensor, mask: Tensor, at: Key, *, share: float = 0.5) -> Tensor:
    """The person in other colours: a turned hue, another saturation and brightness, smooth stains."""
    count, size, device = image.shape[0], image.shape[-1], image.device
    number = draws.uniform((count, 4), at, device)
    turn = (number[:, 0] - 0.5) * 1.2  # radians
    cos, sin = turn.cos(), turn.sin() / math.sqrt(3)
    own, left, right = (1 + 2 * cos) / 3, (1 - cos) / 3 - sin, (1 - cos) / 3 + sin
    hue = torch.stack([own, left, right, right, own, left, left, right, own], dim=-1).unflatten(-1, (3, 3))  # about grey
    unit = (torch.einsum("bij,bjhw->bihw", hue, image) + 1) / 2
    grey = unit.mean(1, keepdim=True)
    unit = grey + (unit - grey) * (0.3 + 1.3 * number[:, 1, None, None, None])
    unit = unit * (0.55 + 0.8 * number[:, 2, None, None, None])
    stains = field(count, 3, 5, size, (at[0] ^ 1, at[1]), device)
    unit = unit * (stains * (0.25 * number[:, 3, None, None, None])).exp()
    change = chosen(count, share, (at[0] ^ 2, at[1]), device)
    return torch.where(change, image + mask * ((unit.clamp(0, 1) * 2 - 1) - image), image)


def cluttered(image: Tensor, mask: Tensor, at: Key, *, share: float = 0.35) -> tuple[Tensor, Tensor]:
    """Backgrounds made of enlarged, turned, recoloured pieces of the batch's other images, or of coloured noise.

    Returns the images and masks for `photograph`: where a background was put, the mask is 1 (nothing left to fill).
    """
    count, size, device = image.shape[0], image.shape[-1], image.device
    number = draws.uniform((count, 6), at, device)
    maps = warps.about_centre(
        (number[:, 0] * 2.0 - 0.2).exp(), number[:, 1] * 2 * math.pi, 0.5 + number[:, 2] * 1.5, number[:, 3:5] - 0.5
    )
    pieces = warps.warped(image.roll(1, 0), maps, size, padding="reflection")
    cells = 2 + int(draws.integers((1,), 14, (at[0] ^ 1, at[1])))
    noise = field(count, 3, cells, size, (at[0] ^ 2, at[1]), device)
    noise = 0.5 * noise + 0.3 * field(count, 3, min(size, cells * 4), size, (at[0] ^ 3, at[1]), device)
    background = torch.where(number[:, 5, None, None, None] < 0.6, pieces + 0.3 * noise, noise)
    background = tinted(background, torch.ones_like(mask), (at[0] ^ 4, at[1]), share=0.8).clamp(-1, 1)
    put = chosen(count, share, (at[0] ^ 5, at[1]), device)
    composed = image + (1 - mask) * (background - 1)  # rendered over white, which is 1
    return torch.where(put, composed, image), torch.where(put, torch.ones_like(mask), mask)


def random_layer(image: Tensor, at: Key, *, share: float = 0.3) -> Tensor:
    """Part of the batch through a random 3 x 3 convolution each, blended with the image: other textures and colours."""
    count, device = image.shape[0], image.device
    weight = draws.normal((count * 3, 3, 3, 3), at, device) / math.sqrt(27)
    layered = F.conv2d(F.pad(image, (1, 1, 1, 1), mode="reflect").flatten(0, 1)[None], weight, groups=count)[0]
    layered = layered.unflatten(0, (count, 3))
    spread = image.std((2, 3), keepdim=True) / layered.std((2, 3), keepdim=True).clamp_min(1e-3)
    layered = (layered - layered.mean((2, 3), keepdim=True)) * spread + image.mean((2, 3), keepdim=True)
    blend = draws.uniform((count, 1, 1, 1), (at[0] ^ 1, at[1]), device) * 0.8
    return torch.where(chosen(count, share, (at[0] ^ 2, at[1]), device), image + blend * (layered - image), image)


def developed(image: Tensor, at: Key) -> Tensor:
    """Greyscale, gamma, contrast, colour cast, blur by resampling and noise, each on part of the batch."""
    count, size, device = image.shape[0], image.shape[-1], image.device
    number = draws.uniform((count, 8, 1, 1, 1), at, device)
    unit = ((image + 1) / 2).clamp(0.001, 1)
    unit = torch.where(number[:, 0] < 0.6, unit ** ((number[:, 1] - 0.5) * 1.6).exp(), unit)
    cast = draws.normal((count, 3, 1, 1), (at[0] ^ 1, at[1]), device)
    unit = torch.where(number[:, 2] < 0.5, unit * (0.18 * cast).exp(), unit)
    contrast = 0.5 + number[:, 3]
    unit = (unit - 0.5) * contrast + 0.5
    unit = torch.where(number[:, 4] < 0.15, unit.mean(1, keepdim=True), unit)
    coarse = size // 4 + int(draws.integers((1,), size // 2, (at[0] ^ 2, at[1])))
    small = F.interpolate(unit, size=(coarse, coarse), mode="bilinear", align_corners=False, antialias=True)
    unit = torch.where(
        number[:, 5] < 0.3, F.interpolate(small, size=(size, size), mode="bicubic", align_corners=False), unit
    )
    grain = draws.normal(tuple(image.shape), (at[0] ^ 3, at[1]), device)
    unit = torch.where(number[:, 6] < 0.35, unit + grain * 0.05 * number[:, 7], unit)
    return unit.clamp(0, 1) * 2 - 1


def occluded(image: Tensor, at: Key, *, share: float = 0.2) -> tuple[Tensor, Tensor]:
    """A noisy blob in front of part of the batch; the images, and where the blob lies (B, 1, H, W) booleans."""
    count, size, device = image.shape[0], image.shape[-1], image.device
    number = draws.uniform((count, 5), at, device)[:, :, None, None]
    axis = (torch.arange(size, device=device) + 0.5) / size
    x, y = axis[None, None, :] - number[:, 0], axis[None, :, None] - number[:, 1]
    ripple = field(count, 1, 4, size, (at[0] ^ 1, at[1]), device)[:, 0]
    blob = (x / (0.04 + 0.2 * number[:, 2])) ** 2 + (y / (0.04 + 0.2 * number[:, 3])) ** 2 + 0.3 * ripple < 1
    colour = draws.normal((count, 3, 1, 1), (at[0] ^ 2, at[1]), device) * 0.6
    texture = colour + 0.4 * field(count, 3, 9, size, (at[0] ^ 3, at[1]), device)
    covered = blob[:, None] & chosen(count, share, (at[0] ^ 4, at[1]), device)
    return torch.where(covered, texture.clamp(-1, 1), image), covered
