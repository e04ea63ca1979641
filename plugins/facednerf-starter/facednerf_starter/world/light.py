"""The light of the world: nine spherical-harmonic numbers for each of red, green and blue.

The nine numbers are coefficients of the *shading* (already convolved with Lambert's cosine up to the factors of
`shading_basis`), in DPR's orthonormal real basis without the Condon-Shortley phase, on DPR's axes: for a world
normal (x, y, z) with y up and the face towards +z, DPR's axes are (x, -z, y). A shading of 1 leaves albedo as it is.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LAMPS: dict[str, tuple[float, float, float]] = {
    "left": (-0.86, 0.26, 0.43),
    "right": (0.86, 0.26, 0.43),
    "above": (0.0, 0.90, 0.44),
    "below": (0.0, -0.80, 0.60),
}
"""Where a single lamp stands, by name: a direction in the world; left and right are those of a picture from the front."""

_ATTENUATION = (math.pi, *(2 * math.pi / 3,) * 3, *(math.pi / 4,) * 5)


def shading_basis(normals: Tensor) -> Tensor:
    """DPR's basis with Lambert's attenuation (pi, 2pi/3, pi/4 by band) at world normals (..., 3): (..., 9)."""
    x, y, z = normals[..., 0], -normals[..., 2], normals[..., 1]
    c1, c2 = math.sqrt(3 / (4 * math.pi)), math.sqrt(15 / (4 * math.pi))
    values = (
        torch.full_like(x, 0.5 * math.sqrt(1 / math.pi)),
        c1 * y,
        c1 * z,
        c1 * x,
        c2 * x * y,
        c2 * y * z,
        0.25 * math.sqrt(5 / math.pi) * (3 * z * z - 1),
        c2 * x * z,
        0.5 * c2 * (x * x - y * y),
    )
    return torch.stack([v * a for v, a in zip(values, _ATTENUATION, strict=True)], dim=-1)


def shade(normals: Tensor, light: Tensor) -> Tensor:
    """Shading rgb (N, ..., 3) at world normals (N, ..., 3) under light (N, 3, 9); not clamped."""
    flat = shading_basis(normals).flatten(1, -2)  # (N, R, 9)
    return torch.einsum("nrk,nck->nrc", flat, light).reshape(*normals.shape[:-1], 3)


def lamp(direction: Tensor) -> Tensor:
    """The light (N, 9) of one distant lamp of unit strength towards unit vectors (N, 3): its basis, unattenuated."""
    attenuation = torch.tensor(_ATTENUATION, dtype=direction.dtype, device=direction.device)
    return shading_basis(direction) / attenuation


def key_direction(light: Tensor) -> Tensor:
    """The unit direction (N, 3), in the world, from which most light of (N, 3, 9) comes."""
    band = light.mean(1)[:, 1:4]  # on DPR's axes: y, z, x
    vector = torch.stack([band[:, 2], band[:, 1], -band[:, 0]], dim=1)
    return vector / vector.norm(dim=1, keepdim=True).clamp_min(1e-6)


def decode(g: Tensor) -> Tensor:
    """Lights (N, 3, 9) from Gaussian numbers (N, 16): a key lamp, a fill lamp and an ambient, slightly coloured."""
    u = 0.5 * (1 + torch.erf(g / math.sqrt(2)))
    azimuth = (u[:, 0] * 2 - 1) * 1.9
    height = -0.35 + 1.25 * u[:, 1]
    key = torch.stack([azimuth.sin() * height.cos(), height.sin(), azimuth.cos() * height.cos()], 1)
    other = (u[:, 2] * 2 - 1) * math.pi
    fill = torch.stack([other.sin() * 0.8, torch.full_like(other, 0.6), other.cos() * 0.8], 1)
    share = 0.25 + 0.55 * u[:, 3]  # of the light that comes from the key lamp
    level = 0.85 + 0.35 * u[:, 4]
    ambient = torch.zeros_like(lamp(key))
    ambient[:, 0] = 2 / math.sqrt(math.pi)  # a shading of 1 everywhere
    warm = torch.stack([g[:, 5] * 0.05, g[:, 6] * 0.015, -g[:, 5] * 0.05], 1)  # (N, 3)
    cool = torch.stack([g[:, 7] * 0.04, g[:, 8] * 0.015, -g[:, 7] * 0.04], 1)

    def tinted(coefficients: Tensor, strength: Tensor, tint: Tensor) -> Tensor:
        return strength[:, None, None] * (1 + tint)[:, :, None] * coefficients[:, None, :]

    fill_share = 0.3 * (1 - share) * u[:, 9]
    return (
        tinted(lamp(key), 1.30 * level * share, warm)
        + tinted(lamp(fill), 1.2 * level * fill_share, cool)
        + tinted(ambient, level * (1 - share - fill_share), cool)
    )


def soft(count: int) -> Tensor:
    """A plain studio light (count, 3, 9) from above the camera."""
    return decode(torch.zeros(1, 16)).expand(count, 3, 9).clone()


def lamplight(name: str, count: int) -> Tensor:
    """One of `LAMPS` with a weaker light from everywhere, the same for all (count, 3, 9)."""
    coefficients = 0.85 * lamp(torch.nn.functional.normalize(torch.tensor([LAMPS[name]]), dim=1))
    coefficients[:, 0] += 0.32 * 2 / math.sqrt(math.pi)
    return coefficients[:, None].expand(count, 3, 9).clone()
