"""Pictures as a judge may meet them: moved a little, before any background, exposed, blurred and noisy.

Colours stay what they are, since the judge is asked for them. Everything is computed where the pictures lie, from keys.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from facednerf_starter.train import disguises, draws, warps
from facednerf_starter.train.draws import Key

PLAIN = 0.25
"""Share of the pictures that stay exactly as they were drawn."""


def exposed(image: Tensor, mask: Tensor, seed: int, names: tuple[str | int, ...]) -> Tensor:
    """Pictures (B, 3, H, W) in [-1, 1] over white with masks (B, 1, H, W), as a judge may meet them."""

    def at(name: str) -> Key:
        return draws.key(seed, *names, name)

    photo = placed(*shifted(image, mask, at("shift")), seed, names)
    return torch.where(disguises.chosen(len(image), PLAIN, at("plain"), image.device), image, photo)


def placed(image: Tensor, mask: Tensor, seed: int, names: tuple[str | int, ...]) -> Tensor:
    """The same without the shift, so that what is known of places in the picture stays true; none stays plain."""

    def at(name: str) -> Key:
        return draws.key(seed, *names, name)

    place = draws.uniform((len(image), 1, 1, 1), at("place"), image.device)
    cluttered, _ = disguises.cluttered(image, mask, at("clutter"), share=2.0)
    behind = torch.where(place < 0.3, coloured(image, mask, at("wall")), torch.where(place < 0.65, cluttered, image))
    return developed(behind, at("develop"))


def shifted(image: Tensor, mask: Tensor, at: Key) -> tuple[Tensor, Tensor]:
    """Scaled by up to 12 %, turned by up to 8 degrees, shifted by up to 4 % of the width; edges go on."""
    count, device = len(image), image.device
    number = draws.uniform((count, 4), at, device) * 2 - 1
    square = torch.ones(count, device=device)
    maps = warps.about_centre((number[:, 0] * 0.12).exp(), number[:, 1] * 0.14, square, number[:, 2:] * 0.04)
    drawn = warps.warped(torch.cat([image, mask], dim=1), maps, image.shape[-1], padding="border")
    return drawn[:, :3], drawn[:, 3:]


def coloured(image: Tensor, mask: Tensor, at: Key) -> Tensor:
    """Pictures, drawn over white, before a wall whose colour changes from one side to the other."""
    count, size, device = len(image), image.shape[-1], image.device
    colour = draws.uniform((count, 2, 3, 1, 1), at, device)
    grey = draws.uniform((count, 1, 1, 1, 1), (at[0] ^ 64, at[1]), device)
    colour = colour + (colour.mean(2, keepdim=True) - colour) * grey
    axis = torch.linspace(0, 1, size, device=device)
    flat = draws.uniform((count, 1, 1, 1), (at[0] ^ 128, at[1]), device)
    along = axis[None, None, None, :] * flat + axis[None, None, :, None] * (1 - flat)
    wall = (colour[:, 0] + (colour[:, 1] - colour[:, 0]) * along) * 2 - 1
    return image + (1 - mask) * (wall - 1)  # drawn over white, which is 1


def developed(image: Tensor, at: Key) -> Tensor:
    """Exposure, contrast, saturation and a slight cast, blur by resampling, and noise, each on part of the pictures."""
    count, size, device = len(image), image.shape[-1], image.device
    number = draws.uniform((count, 8, 1, 1, 1), at, device)
    unit = (image + 1) / 2
    cast = draws.normal((count, 3, 1, 1), (at[0] ^ 64, at[1]), device).clamp(-2, 2)
    gain = 2 ** ((number[:, 0] - 0.5) * 0.7) * (1 + 0.03 * cast)
    unit = torch.where(number[:, 1] < 0.6, unit * gain, unit)
    unit = torch.where(number[:, 2] < 0.5, (unit - 0.5) * (0.8 + 0.4 * number[:, 3]) + 0.5, unit)
    grey = unit.mean(1, keepdim=True)
    unit = grey + (unit - grey) * (0.85 + 0.3 * number[:, 4])
    coarse = size // 3 + int(draws.integers((1,), size // 2, (at[0] ^ 128, at[1])))  # drawn on the CPU: nothing waits
    small = F.interpolate(unit, size=(coarse, coarse), mode="bilinear", align_corners=False, antialias=True)
    soft = F.interpolate(small, size=(size, size), mode="bilinear", align_corners=False)
    unit = torch.where(number[:, 5] < 0.35, soft, unit)
    grain = draws.normal((min(16, count), 3, size, size), (at[0] ^ 192, at[1]), device)  # a few fields serve all pictures
    grain = grain[draws.integers((count,), len(grain), (at[0] ^ 256, at[1]), device)]
    unit = torch.where(number[:, 6] < 0.4, unit + grain * 0.06 * number[:, 7].square(), unit)
    return unit.clamp(0, 1) * 2 - 1
