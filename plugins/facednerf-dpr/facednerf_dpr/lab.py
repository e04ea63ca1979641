"""CIE L*a*b* of sRGB pictures under D65, there and back, with finite gradients for any input.

Inside the gamut the formulas are the usual ones, and so are the values outside. Only the branch of a power that is not
taken is computed from a harmless base: its derivative at the true base would be NaN, and 0 * NaN is NaN. So a value that a
generator drew below black keeps the gradient of the linear branch, where a clamp would leave none.
"""

from __future__ import annotations

import torch
from torch import Tensor

_TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
_FROM_XYZ = torch.tensor(_TO_XYZ, dtype=torch.float64).inverse().tolist()
_WHITE = (0.95047, 1.0, 1.08883)
_LIMIT = 1e12  # values beyond it would overflow float32 under way, and are taken for it


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """L* in [0, 100], a* and b* (..., 3, H, W) of sRGB pictures (..., 3, H, W) in [0, 1]; half precision becomes float32."""
    linear = _linear(rgb)
    x, y, z = (_compressed(_dot(row, linear) / white) for row, white in zip(_TO_XYZ, _WHITE, strict=True))
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=-3)


def lightness(rgb: Tensor) -> Tensor:
    """L* / 100 (..., 1, H, W), in [0, 1] for pictures (..., 3, H, W) in [0, 1]: the first channel of `rgb_to_lab` alone."""
    y = _compressed(_dot(_TO_XYZ[1], _linear(rgb)))
    return ((116 * y - 16) / 100).unsqueeze(-3)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """sRGB pictures (..., 3, H, W) of L*, a*, b* (..., 3, H, W): in [0, 1] if the colour is in the gamut, never clamped."""
    level, a, b = _bounded(lab).unbind(-3)
    y = (level + 16) / 116
    xyz = [white * _expanded(f) for f, white in zip((y + a / 500, y, y - b / 200), _WHITE, strict=True)]
    return torch.stack([_companded(_dot(row, xyz)) for row in _FROM_XYZ], dim=-3)


def _bounded(value: Tensor) -> Tensor:
    return value.to(torch.promote_types(value.dtype, torch.float32)).clamp(-_LIMIT, _LIMIT)


def _dot(row: tuple[float, ...] | list[float], channels: tuple[Tensor, ...] | list[Tensor]) -> Tensor:
    """Written out, because autocast would round a matrix product."""
    return row[0] * channels[0] + row[1] * channels[1] + row[2] * channels[2]


def _linear(rgb: Tensor) -> tuple[Tensor, ...]:
    """The three channels (..., H, W) of light itself (IEC 61966-2-1)."""
    rgb = _bounded(rgb)
    bright = rgb > 0.04045
    base = torch.where(bright, (rgb + 0.055) / 1.055, 1.0)
    return torch.where(bright, base**2.4, rgb / 12.92).unbind(-3)


def _companded(linear: Tensor) -> Tensor:
    """The inverse of `_linear`, for one channel."""
    bright = linear > 0.0031308
    base = torch.where(bright, linear, 1.0)
    return torch.where(bright, 1.055 * base ** (1 / 2.4) - 0.055, 12.92 * linear)


def _compressed(t: Tensor) -> Tensor:
    """CIE's f: a cube root, and a line near black."""
    bright = t > 0.008856
    base = torch.where(bright, t, 1.0)
    return torch.where(bright, base ** (1 / 3), 7.787 * t + 4 / 29)


def _expanded(f: Tensor) -> Tensor:
    """The inverse of `_compressed`."""
    bright = f > 0.2068966
    base = torch.where(bright, f, 1.0)
    return torch.where(bright, base**3, (f - 4 / 29) / 7.787)
