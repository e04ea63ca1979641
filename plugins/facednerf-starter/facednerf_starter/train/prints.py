"""Pairs of pictures in lightness as a photo may show them, with lights that stay true.

Whatever would turn or recolour the light is left out, but for two things that change it in a known way: a mirror, and an
exposure, which is a stronger or weaker light. Everything is computed where the pictures lie, from keys.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from facednerf_starter.train import disguises, draws, warps
from facednerf_starter.train.draws import Key
from facednerf_starter.train.studio import Pairs

PLAIN = 0.25
"""Share of the pairs that stay exactly as they were drawn."""
STOPS = 0.4
"""By how much, at most, an exposure is changed, as a power of two of the light."""
_OFFSET = 0.16
"""CIE's L* / 100 is 1.16 Y^(1/3) - 0.16 above black, so that a gain of Y is a gain of L* / 100 + 0.16."""


@dataclass(frozen=True)
class Prints:
    """2P pictures in lightness, i and i + P of one head before one background."""

    shown: Tensor  # (2P, 1, H, W) in [0, 1], with noise
    clean: Tensor  # (2P, 1, H, W) in [0, 1], without
    mask: Tensor  # (2P, 1, H, W) in [0, 1]
    light: Tensor  # (2P, 9) in the camera's frame


def printed(pairs: Pairs, seed: int, *names: str | int) -> Prints:
    """The pairs, most of them mirrored, moved, exposed, before other backgrounds, softened or noisy."""
    count, size, device = len(pairs.light) // 2, pairs.lightness.shape[-1], pairs.lightness.device

    def at(name: str) -> Key:
        return draws.key(seed, *names, name)

    number = draws.uniform((8, count), at("numbers"), device)
    plain = (number[0] < PLAIN).repeat(2)
    mirror = (number[1] < 0.5).repeat(2)
    # the maps of pairs: scaled by up to 12 %, shifted by up to 5 % of the width; edges go on
    shift = draws.uniform((count, 2), at("shift"), device) - 0.5
    still = torch.zeros_like(number[2])
    maps = warps.about_centre(((number[2] - 0.5) * 0.24).exp(), still, still + 1, 0.1 * shift).repeat(2, 1, 1)
    drawn = warps.warped(torch.cat([pairs.lightness, pairs.mask], dim=1), maps, size, padding="border")
    drawn = torch.where(mirror[:, None, None, None], drawn.flip(-1), drawn)
    over_white, mask = drawn[:, :1], drawn[:, 1:]
    gain = 2 ** (STOPS * (2 * draws.uniform((2 * count,), at("gain"), device) - 1))
    gain = torch.where(draws.uniform((2 * count,), at("exposed"), device) < 0.5, gain, 1.0)
    factor = gain.pow(1 / 3)[:, None, None, None]
    subject = factor * (over_white - (1 - mask)) + _OFFSET * mask * (factor - 1)
    behind = backgrounds(count, size, at("behind"), device).repeat(2, 1, 1, 1)
    photo = (subject + (1 - mask) * behind).clamp(0, 1)
    coarse = size // 3 + int(draws.integers((1,), size // 2, at("coarse")))  # drawn on the CPU: nothing waits
    small = F.interpolate(photo, size=(coarse, coarse), mode="bilinear", align_corners=False, antialias=True)
    soft = F.interpolate(small, size=(size, size), mode="bilinear", align_corners=False)
    photo = torch.where((number[3] < 0.35).repeat(2)[:, None, None, None], soft, photo)
    clean = torch.where(plain[:, None, None, None], pairs.lightness, photo)
    level = torch.where(plain | (number[4] < 0.6).repeat(2), 0.0, 0.04 * number[5].square().repeat(2))
    grain = draws.normal((min(16, 2 * count), 1, size, size), at("grain"), device)  # a few fields serve all pictures
    grain = grain[draws.integers((2 * count,), len(grain), at("which"), device)]
    light = torch.where(mirror[:, None], mirrored(pairs.light), pairs.light) * gain[:, None]
    return Prints(
        (clean + level[:, None, None, None] * grain).clamp(0, 1),
        clean,
        torch.where(plain[:, None, None, None], pairs.mask, mask),
        torch.where(plain[:, None], pairs.light, light),
    )


def mirrored(light: Tensor) -> Tensor:
    """The lights (..., 9) of mirrored pictures: right is left, so that x, xy and xz change their sign."""
    parts = list(light.unbind(-1))
    for odd in (3, 4, 7):
        parts[odd] = -parts[odd]
    return torch.stack(parts, dim=-1)


def backgrounds(count: int, size: int, at: Key, device: torch.device) -> Tensor:
    """What lies behind, (count, 1, H, W) in [0, 1]: nothing but white, a wall that fades to one side, or clutter."""
    kind = draws.uniform((count, 1, 1, 1), at, device)
    two = draws.uniform((2, count, 1, 1, 1), (at[0] ^ 64, at[1]), device)
    axis = torch.linspace(0, 1, size, device=device)
    flat = draws.uniform((count, 1, 1, 1), (at[0] ^ 128, at[1]), device)
    along = axis[None, None, None, :] * flat + axis[None, None, :, None] * (1 - flat)
    wall = two[0] + (two[1] - two[0]) * along
    cells = 2 + int(draws.integers((1,), 14, (at[0] ^ 192, at[1])))
    clutter = wall + 0.25 * disguises.field(count, 1, cells, size, (at[0] ^ 256, at[1]), device)
    return torch.where(kind < 0.3, 1.0, torch.where(kind < 0.6, wall, clutter)).clamp(0, 1)
