"""The colours of a head's parts, (N, 1, 3) sRGB within [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor

from facednerf_starter.world.attributes import Attributes

SKIN = (
    (0.965, 0.835, 0.765), (0.935, 0.765, 0.675), (0.880, 0.690, 0.575), (0.790, 0.580, 0.450),
    (0.660, 0.455, 0.335), (0.490, 0.325, 0.235), (0.345, 0.225, 0.165), (0.250, 0.165, 0.130),
)  # fmt: skip
HAIR = (
    (0.075, 0.060, 0.055), (0.290, 0.180, 0.110), (0.800, 0.630, 0.370), (0.580, 0.235, 0.090), (0.520, 0.515, 0.510),
    (0.900, 0.890, 0.870), (0.130, 0.290, 0.780), (0.140, 0.530, 0.230), (0.910, 0.420, 0.640), (0.440, 0.190, 0.620),
)  # fmt: skip
HAIR_OTHER = (
    (0.170, 0.130, 0.110), (0.480, 0.310, 0.180), (0.930, 0.820, 0.580), (0.780, 0.400, 0.180), (0.700, 0.700, 0.700),
    (0.980, 0.980, 0.970), (0.200, 0.520, 0.900), (0.300, 0.720, 0.300), (0.980, 0.600, 0.760), (0.620, 0.350, 0.800),
)  # fmt: skip
GLASSES = (
    (0.05, 0.05, 0.06), (0.36, 0.21, 0.11), (0.72, 0.08, 0.08), (0.10, 0.20, 0.62), (0.76, 0.60, 0.28), (0.70, 0.72, 0.75)
)  # fmt: skip
HATS = (
    (0.74, 0.10, 0.10), (0.12, 0.24, 0.64), (0.12, 0.42, 0.20), (0.07, 0.07, 0.08), (0.46, 0.46, 0.48),
    (0.90, 0.74, 0.16), (0.42, 0.18, 0.56), (0.92, 0.91, 0.88),
)  # fmt: skip
CLOTHES = (
    (0.92, 0.92, 0.91), (0.09, 0.09, 0.10), (0.45, 0.46, 0.48), (0.17, 0.27, 0.52), (0.68, 0.13, 0.14),
    (0.16, 0.38, 0.24), (0.88, 0.74, 0.28), (0.86, 0.40, 0.12), (0.88, 0.58, 0.66), (0.38, 0.26, 0.18),
)  # fmt: skip
EYES = ((0.28, 0.155, 0.08), (0.27, 0.45, 0.66), (0.30, 0.44, 0.26), (0.45, 0.50, 0.53))


def _pick(table: tuple[tuple[float, ...], ...], index: Tensor) -> Tensor:
    return torch.tensor(table, device=index.device)[index]


def palette(a: Attributes) -> dict[str, Tensor]:
    """The colours of N heads by the name of the part."""
    ramp = torch.tensor(SKIN, device=a.skin.device)
    place = a.skin.clamp(0, 1) * (len(SKIN) - 1)
    low = place.long().clamp_max(len(SKIN) - 2)
    skin = ramp[low] + (ramp[low + 1] - ramp[low]) * (place - low)[:, None]
    under = (a.undertone - 0.5)[:, None]
    skin = (skin * (1 + under * torch.tensor([0.02, 0.03, -0.14], device=skin.device))).clamp(0.02, 0.98)
    red = torch.tensor([0.84, 0.52, 0.50], device=skin.device)
    lips = skin * red + 0.12 * torch.tensor([0.75, 0.25, 0.28], device=skin.device)
    stick_hue = a.makeup[:, None]
    stick = torch.tensor([0.76, 0.09, 0.13], device=skin.device) * (1 - stick_hue) + stick_hue * torch.tensor(
        [0.70, 0.16, 0.36], device=skin.device
    )
    shade = a.hair_shade[:, None]
    hair = _pick(HAIR, a.hair_color) * (1 - shade) + _pick(HAIR_OTHER, a.hair_color) * shade
    natural = (a.hair_color < 6)[:, None]
    brow_base = torch.where(natural, hair, _pick(HAIR, a.hair_color) * 0.5 + 0.05)
    # grown-out or dyed hair: the brows of odd colours stay half natural
    brows = brow_base * 0.62 + 0.02
    worn = 0.75 + 0.4 * a.clothes_shade[:, None]
    other = _pick(CLOTHES, (a.clothes_color + 1 + (a.clothes_shade * 7.99).long()) % len(CLOTHES))
    colours = {
        "skin": skin,
        "lips": torch.where((a.lipstick > 0)[:, None], stick, lips),
        "hair": hair,
        "brows": brows,
        "beard": brow_base * 0.85,
        "eyes": _pick(EYES, a.eye_color),
        "glasses": _pick(GLASSES, a.glasses_color),
        "hat": _pick(HATS, a.hat_color) * (0.8 + 0.3 * a.hat_shade[:, None]),
        "clothes": _pick(CLOTHES, a.clothes_color) * worn,
        "clothes_other": other,
    }
    return {name: value.clamp(0.01, 0.99)[:, None] for name, value in colours.items()}


def finish(a: Attributes) -> dict[str, Tensor]:
    """What the surfaces need beside colours, (N, 1) each."""
    lady = a.femininity
    values = {
        "blush": 0.15 + 0.35 * a.blush * lady + 0.2 * a.blush,
        "freckles": ((a.freckles - 0.75) / 0.25).clamp(0, 1) * (1 - a.skin).clamp(0, 1),
        "shadow": lady * ((a.makeup - 0.4) / 0.6).clamp(0, 1) * (a.lipstick > 0),
        "lash": 0.45 + 0.5 * lady,
        "gloss": 0.5 + a.gloss,
        "stripes": ((a.clothes_pattern - 0.65) / 0.05).clamp(0, 1) * ((0.88 - a.clothes_pattern) / 0.02).clamp(0, 1),
        "checks": ((a.clothes_pattern - 0.90) / 0.02).clamp(0, 1),
        "lipstick": a.lipstick.float(),
        "bald": (a.hair_style == 0).float(),
        "shorn": (a.hair_style == 0) * (1 - lady) * ((a.hair_length - 0.5) / 0.5).clamp(0, 1),
        "dark": a.skin,
    }
    return {name: value.float()[:, None] for name, value in values.items()}
