"""Hair on the head as a signed distance, and the direction in which it is combed."""

from __future__ import annotations

import torch
from torch import Tensor

from facednerf_starter.world.anatomy import Measures
from facednerf_starter.world.fields import cut, ellipsoid, noise, ridge, step

CROWN = (0.0, 1.0, -0.35)


def strand(x: Tensor, y: Tensor, z: Tensor, m: Measures) -> Tensor:
    """A coordinate across the strands, in decimetres: constant along a strand that runs from the crown outwards, or, where
    hair is combed aside, from the parting over the head and then down and back."""
    px = x - 0.6 * m["part"]
    turn = 0.85 * torch.atan2(px, (z - CROWN[2]) * 0.9 + 1e-4)
    over = 0.72 * z - 0.60 * y - 0.30 * px.abs() - 0.12 * px * px
    sway = m["wave"] * 3.0 * (5.5 * y + m["phase_a"] + 2.0 * (2.0 * x).sin()).sin()
    return turn + m["aside"] * (over - turn) + sway + 0.05 * noise(1.6 * x + m["phase_b"], 1.2 * y, 1.6 * z)


def hairline(ax: Tensor, x: Tensor, y: Tensor, z: Tensor, m: Measures) -> Tensor:
    """How far a point lies on the face's side of the hairline: negative where hair grows."""
    temple = m["recede"] * (ridge(ax - 0.36, 0.17) - 0.05 * ridge(ax, 0.12))
    sweep = m["sweep"] * x * step(y, 0.1, 0.5)
    side = (y - m["hairline"] - temple - sweep).clamp_max(0.3) / 1.22 + 0.80
    burn = 0.19 - 0.9 * (-0.16 - y).clamp_min(0)  # in front of the ear
    return z - torch.maximum(side, torch.minimum(burn, side + 0.9)) + 0.10 * step(ax, 0.5, 0.7) * step(y, 0.5, 0.0)


def _hung(ax: Tensor, x: Tensor, y: Tensor, z: Tensor, side: Tensor, m: Measures) -> Tensor:
    """As the hairline at distance `side`, with what hangs down in front of it."""
    curtain = z - m["hair_side"] - 0.10 * noise(2.5 * x + m["phase_c"], 2.2 * y, 0 * z) - 0.25 * (ax - 0.7)
    curtain = curtain + 1.8 * (0.52 - ax).clamp(0, 0.25) * step(y, -0.55, -0.95)  # it parts before the neck
    return torch.where(m["hair_side"] > -0.5, torch.minimum(side, torch.maximum(curtain, y - 0.35)), side)


def _ear(y: Tensor, z: Tensor) -> Tensor:
    """Below 1 around the ear, seen from the side."""
    return ((y + 0.10) / 0.35) ** 2 + ((z + 0.11 - 0.2 * y) / 0.19) ** 2


def cover(s: Tensor, x: Tensor, y: Tensor, z: Tensor, m: Measures) -> tuple[Tensor, Tensor, Tensor]:
    """How densely hair grows (N, R) about the hairline, within [0, 1]; the same hair by hair; how surely it hangs there.

    `s` is the points' `strand`.
    """
    ax = (x * x + 4e-4).sqrt()
    side = hairline(ax, x, y, z, m)
    clump = noise(9 * s + m["phase_a"], 0.9 * y, 1.3 * z + m["phase_b"])
    single = (131 * s + 3.5 * clump).sin() + 0.8 * (217 * s + 4.0 * noise(5 * x, 5 * y, 5 * z)).sin()
    edge = side + 0.035 * clump
    shorn = 1 - m["fade"] * step(y, 0.50, -0.15)  # the sides, cut so short that skin is seen
    hung = step(side - _hung(ax, x, y, z, side, m), 0.01, 0.05)
    return shorn * step(edge, 0.12, -0.14), shorn * step(edge + 0.035 * single, 0.12, -0.14), hung


def roots(x: Tensor, y: Tensor, z: Tensor, m: Measures, sharp: float) -> Tensor:
    """How much (N, R) of the skin is hidden by hair that begins there, within [0, 1]; none under a fringe."""
    scalp = step(y, -0.74, -0.50) * step(_ear(y, z), 0.85, 1.25) * step(m["lift"], 0.0, 0.5)
    soft, ragged, _ = cover(strand(x, y, z, m), x, y, z, m)
    return (soft + sharp * (ragged - soft)) * scalp


def hair(x: Tensor, y: Tensor, z: Tensor, m: Measures, detail: bool) -> Tensor:
    """Distance (N, R) to the hair."""
    ax = (x * x + 4e-4).sqrt()
    drop = m["hair_drop"]
    below = (0.32 - y).clamp_min(0)
    q = y - 0.32 + below.minimum(drop)  # the skull's ellipsoid, drawn out downwards
    swell = 1 + m["swell"] * below.clamp_max(1.6)
    s = strand(x, y, z, m)
    curly, straight = m["curly"], 1 - m["curly"]
    rough = noise(9 * s + m["phase_a"], 0.9 * y, 1.3 * z + m["phase_b"])
    side = hairline(ax, x, y, z, m) + 0.035 * rough + m["jag"] * (23 * s + 2 * rough).sin()
    region = _hung(ax, x, y, z, side, m)
    t = m["hair_t"] * (m["sides"] + (1 - m["sides"]) * step(y, 0.1, 0.75))
    t = t * (1 + 0.5 * m["part"] * x)
    t = t + 0.10 * m["quiff"] * step(z, 0.0, 0.75) * step(y, 0.55, 0.95) * (1 - 0.8 * ridge(x - m["part"], 0.12))
    thin = m["lift"] * step(region, -0.42, 0.02)  # hair lies close where it leaves the skin
    thin = torch.maximum(thin, 0.65 * m["ear_free"] * step(y, 0.90, 0.05))  # and is cut closer towards the ears
    t = t * (1 - thin)
    body = ellipsoid(x / swell, q, z + 0.11, m["skull_x"] + t * 0.85, m["skull_y"] + t * 1.15, m["skull_z"] + t * 0.8)
    nape = -(y + 0.74 + drop * 1.5) - 0.06 * rough
    d = cut(body, torch.maximum(region * 0.75, nape), 0.09)
    lock = (15 * s + 2.2 * (6.1 * s + m["phase_c"]).sin() + 0.8 * y).sin() * 0.55 + (
        37 * s + m["phase_b"] + 1.5 * rough
    ).sin() * 0.3
    d = d - straight * (1 - 0.8 * thin) * (0.011 * lock * (0.6 + 0.4 * rough) + 0.020 * rough)
    f = m["curl_f"]
    wx = x + 0.05 * (7 * y + m["phase_a"]).sin()
    wy = y + 0.05 * (7 * z + m["phase_b"]).sin()
    wz = z + 0.05 * (7 * x + m["phase_c"]).sin()
    curls = (f * wx).sin() * (f * wy).sin() * (f * wz).sin()
    d = d - m["curl"] * (1.4 * curls + 0.3) - 0.03 * curly * noise(3 * x, 3 * y + m["phase_a"], 3 * z)
    d = d + m["part_d"] * ridge(x - m["part"], 0.03) * step(y, 0.6, 0.85) * step(z, -0.5, -0.1)
    if detail:
        fine = (95 * s + 3 * rough).sin() + 0.7 * (141 * s + 2 * noise(3 * x, 2 * y, 3 * z)).sin()
        d = d - 0.0045 * fine * straight * (1 - 0.7 * thin) - 0.02 * curly * noise(24 * wx, 24 * wy, 24 * wz)
    d = torch.where(m["ear_free"] > 0, cut(d, (1 - _ear(y, z)) * 0.12, 0.05), d)
    d = torch.where(m["worn"] > 0, cut(d, y - 0.50 - 0.12 * z, 0.05), d)
    return d + m["hair"]
