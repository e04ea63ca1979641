"""Hair on the head as a signed distance, and the direction in which it is combed."""

from __future__ import annotations

import torch
from torch import Tensor

from facednerf_starter.world.anatomy import Measures
from facednerf_starter.world.fields import bump, cut, ellipsoid, join, noise, step

CROWN = (0.0, 1.0, -0.35)


def strand(x: Tensor, y: Tensor, z: Tensor, m: Measures) -> Tensor:
    """A coordinate across the strands, in decimetres: constant along a strand that runs from the crown outwards."""
    px = x - 0.6 * m["part"]
    turn = torch.atan2(px, (z - CROWN[2]) * 0.9 + 1e-4)
    sway = m["wave"] * 3.0 * (5.5 * y + m["phase_a"] + 2.0 * (2.0 * x).sin()).sin()
    return 0.85 * turn + sway + 0.05 * noise(1.6 * x + m["phase_b"], 1.2 * y, 1.6 * z)


def hairline(ax: Tensor, y: Tensor, z: Tensor, m: Measures) -> Tensor:
    """How far a point lies on the face's side of the hairline: negative where hair grows."""
    temple = m["recede"] * bump(ax - 0.36, ax, 0.17, 9.0) - 0.05 * bump(ax, ax, 0.12, 9.0) * m["recede"]
    side = (y - m["hairline"] - temple).clamp_max(0.3) / 1.22 + 0.80
    burn = 0.10 - 0.5 * (-0.15 - y).clamp_min(0)  # in front of the ear
    short = torch.maximum(side, torch.minimum(burn, side + 0.9)) - 0.10 * step(ax, 0.5, 0.7) * step(y, 0.5, 0.0)
    return z - short


def hair(x: Tensor, y: Tensor, z: Tensor, m: Measures, detail: bool) -> Tensor:
    """Distance (N, R) to the hair."""
    ax = (x * x + 4e-4).sqrt()
    drop = m["hair_drop"]
    yy = y - 0.32
    fall = -((-yy).clamp_min(0).minimum(drop))
    q = yy - fall
    below = (-yy).clamp_min(0)
    swell = 1 + 0.05 * m["long"] * below.clamp_max(1.5)
    t = m["hair_t"]
    body = ellipsoid(x / swell, q, z + 0.11, m["skull_x"] + t * 0.85, m["skull_y"] + t * 1.1, m["skull_z"] + t * 0.8)
    side = hairline(ax, y, z, m)
    curtain = z - m["hair_side"] - 0.10 * noise(2.5 * x + m["phase_c"], 2.2 * y, 0.0 * z) - 0.25 * (ax - 0.7)
    region = torch.where(m["hair_side"] > -0.5, torch.minimum(side, torch.maximum(curtain, y - 0.35)), side)
    nape = -(y + 0.72 + drop * 1.5)
    d = cut(body, torch.maximum(region * 0.75, nape), 0.05 + 0.05 * 1.0)
    s = strand(x, y, z, m)
    lock = (s * 17 + 1.5 * noise(1.3 * x, 1.3 * y + m["phase_a"], 1.3 * z)).sin() * 0.6 + (s * 41 + m["phase_b"]).sin() * 0.4
    d = d - 0.012 * lock * (1 - m["curly"])
    f = m["curl_f"]
    wx = x + 0.05 * (7 * y + m["phase_a"]).sin()
    wy = y + 0.05 * (7 * z + m["phase_b"]).sin()
    wz = z + 0.05 * (7 * x + m["phase_c"]).sin()
    curls = (f * wx).sin() * (f * wy).sin() * (f * wz).sin()
    d = d - m["curl"] * (1.4 * curls + 0.3)
    groove = m["part_d"] * bump(x - m["part"], x, 0.03, 9.0) * step(y, 0.6, 0.85) * step(z, -0.5, -0.1)
    d = d + groove
    if detail:
        d = d - 0.006 * (s * 95 + 2 * noise(3 * x, 2 * y, 3 * z)).sin() * (1 - m["curly"])
        d = d - 0.02 * m["curly"] * noise(24 * wx, 24 * wy, 24 * wz)
    under_hat = y - 0.50 - 0.12 * z
    d = torch.where(m["worn"] > 0, cut(d, under_hat, 0.05), d)
    return d + m["hair"]
