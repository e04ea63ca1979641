"""Lights to draw heads under, and how a camera sees them as the nine numbers of `facednerf_core.light`.

The unit is the world's, and DPR's: under a shading of 1 an albedo is left as it is. No picture is normalised, so how bright
a light is can be told from a picture only as well as the albedo can be guessed.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from facednerf_core.light import BANDS, COEFFICIENTS, STRENGTHS, basis, in_camera, on_world_axes
from facednerf_starter.train import draws
from facednerf_starter.world import light as lighting

LUMINANCE = (0.2127, 0.7152, 0.0722)
"""How much of red, green and blue light counts for lightness, which is all that the network reads."""
_NUMBERS = 16
"""Gaussian numbers of a light of the world."""


def drawn(heads: int, lights: int, seed: int, *names: str | int) -> Tensor:
    """Lights (heads, lights, 3, 9) of the world, on the CPU: of each head the first half as the world draws them for its
    heads, a key, a fill and an ambient, the others as those with a name, from anywhere before the head."""
    usual = (lights + 1) // 2
    key = draws.key(seed, "lamps", *names)
    own = lighting.decode(draws.normal((heads * usual, _NUMBERS), key)).unflatten(0, (heads, usual))
    return torch.cat([own, like_named(heads, lights - usual, seed, *names)], dim=1)


def of_world(heads: int, lights: int, seed: int, *names: str | int) -> Tensor:
    """Lights (heads, lights, 3, 9), on the CPU, all as the world draws them: the ones that a generator has learned."""
    numbers = draws.normal((heads * lights, _NUMBERS), draws.key(seed, "lamps", *names))
    return lighting.decode(numbers).unflatten(0, (heads, lights))


def like_named(heads: int, lights: int, seed: int, *names: str | int) -> Tensor:
    """Colourless lights (heads, lights, 3, 9) from one direction each, within 115 degrees to the sides and from 60 degrees
    below to 80 above, about as strong and as soft as `facednerf_core.light.named` has them."""
    number = draws.uniform((heads, lights, 4), draws.key(seed, "lamps", "named", *names))
    azimuth, height = (number[..., 0] * 2 - 1) * math.radians(115), torch.deg2rad(-60 + 140 * number[..., 1])
    direction = torch.stack([azimuth.sin() * height.cos(), height.sin(), azimuth.cos() * height.cos()], dim=-1)
    # a band's harmonics at any direction have the length sqrt((2 l + 1) / 4 pi)
    unit = torch.tensor([STRENGTHS[band] / math.sqrt((2 * band + 1) / (4 * math.pi)) for band in BANDS])
    level, share = 0.8 + 0.5 * number[..., 2:3], 0.4 + 0.6 * number[..., 3:4]
    strength = torch.cat([level, (level * share).expand(-1, -1, COEFFICIENTS - 1)], dim=-1)
    light = basis(on_world_axes(direction)) * unit * strength
    return light[:, :, None].repeat(1, 1, 3, 1)


def seen(lights: Tensor, cameras: Tensor) -> Tensor:
    """The luminance of lights (..., 3, 9) of the world as cameras (..., 25) see it, (..., 9); cameras are broadcast."""
    weight = lights.new_tensor(LUMINANCE)[:, None]
    return in_camera((lights * weight).sum(-2), cameras)
