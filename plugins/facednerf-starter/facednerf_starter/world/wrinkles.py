"""The lines that age and a smile draw into a face."""

from __future__ import annotations

import torch
from torch import Tensor

from facednerf_starter.world.anatomy import Measures
from facednerf_starter.world.fields import bump, noise, ridge, step


def forehead(x: Tensor, y: Tensor, z: Tensor, m: Measures) -> Tensor:
    """Depth (N, R) within [0, 1] of the lines across an old forehead and between its brows."""
    ax = x.abs()
    sway = 0.030 * noise(2.6 * x + m["phase_a"], 2.0 * y, z) + 0.05 * ax * ax
    across = ((y - sway) * 42).sin().clamp_min(0) ** 3 * bump(ax, y - 0.48, 0.44, 0.19)
    frown = ridge(ax - 0.062 - 0.10 * (y - 0.16), 0.018) * ridge(y - 0.20, 0.085)
    return torch.maximum(across, 0.4 * frown)


def crow(ax: Tensor, y: Tensor, m: Measures) -> Tensor:
    """Depth (N, R) within [0, 1] of the crow's feet: a fan of lines beyond the eye's outer corner."""
    dx, dy = ax - m["eye_x"] - 0.06, y + 0.01
    fan = (19 * torch.atan2(dy, dx.clamp_min(0.02)) + 1.2).sin().clamp_min(0) ** 2
    return fan * bump(dx - 0.185, dy, 0.075, 0.11) * step(dx, 0.06, 0.12)


def fold(ax: Tensor, y: Tensor, width: float) -> Tensor:
    """Depth (N, R) within [0, 1] of the fold from the nose's wing to beside the mouth."""
    return bump(ax - 0.20 - 0.42 * (-0.45 - y).clamp(-0.1, 0.35), y + 0.60, width, 0.17)


def drooping(ax: Tensor, y: Tensor, m: Measures) -> Tensor:
    """Depth (N, R) within [0, 1] of the lines that run down from an old mouth's corners."""
    down = m["mouth_y"] - y
    return ridge(ax - m["mouth_w"] - 0.035 - 0.12 * down, 0.024) * ridge(down - 0.11, 0.085)


def bag(ax: Tensor, y: Tensor, m: Measures) -> Tensor:
    """Depth (N, R) within [0, 1] of the furrow below the bags of old eyes."""
    dx = ax - m["eye_x"]
    return ridge(y + 0.165 - 1.1 * dx * dx - 0.10 * dx, 0.026) * ridge(dx, 0.10)


def relief(x: Tensor, ax: Tensor, y: Tensor, z: Tensor, m: Measures) -> Tensor:
    """How deep (N, R) all lines lie in the skin, in decimetres."""
    feet = crow(ax, y, m)
    aged = 0.012 * forehead(x, y, z, m) + 0.009 * feet + 0.010 * drooping(ax, y, m) + 0.012 * bag(ax, y, m)
    return aged * m["lined"] + 0.003 * feet * m["laugh"]
