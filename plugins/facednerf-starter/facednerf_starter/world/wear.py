"""What a head wears, as signed distances: glasses, hats, clothes."""

from __future__ import annotations

import torch
from torch import Tensor

from facednerf_starter.world.anatomy import Measures
from facednerf_starter.world.fields import cut, ellipsoid, join, tube

LENS_Y = -0.035


def lens_plane(ax: Tensor) -> Tensor:
    """The depth z of the lenses at |x|: a slight wrap around the face."""
    return 1.015 - 0.22 * ax * ax


def lens(ax: Tensor, y: Tensor, m: Measures) -> Tensor:
    """Distance in the plane to a lens's outline, negative within."""
    qx = (ax - 0.335).abs() - m["lens_w"] + m["lens_r"]
    qy = (y - LENS_Y + 0.06 * (ax - 0.335)).abs() - m["lens_h"] + m["lens_r"]
    corner = (qx.clamp_min(0) ** 2 + qy.clamp_min(0) ** 2 + 1e-6).sqrt()
    return corner + torch.maximum(qx, qy).clamp_max(0) - m["lens_r"]


def glasses(x: Tensor, y: Tensor, z: Tensor, m: Measures) -> Tensor:
    """Distance (N, R) to the frame with its temples."""
    ax = (x * x + 1e-6).sqrt()
    ring = lens(ax, y, m).abs()
    depth = z - lens_plane(ax)
    rim = torch.maximum(ring, depth.abs() * 0.9) - m["frame"]
    rise = (ax - 0.0) ** 2 * 3.0
    bridge = (((y - 0.045 + rise) ** 2 + depth**2) + 1e-6).sqrt() - m["frame"] * 0.9
    bridge = torch.maximum(bridge, ax - 0.13)
    outer = 0.335 + m["lens_w"]
    back = (0.95 - z).clamp(0, 1.05)
    wide = m["skull_x"] + 0.022
    tx = ax - outer - (wide - outer) * back * (1.80 - 0.80 * back)  # outwards past the temple, then along the head
    tx = tx + 0.5 * (back - 0.86).clamp_min(0)  # and behind the ear
    ty = y - 0.045 - 0.06 * back * back
    qz = (z - 0.48).abs() - 0.48
    tall = m["frame"] * (1.15 - 0.5 * back) + 0.006
    arm = torch.maximum(torch.maximum(tx.abs() - 0.012, ty.abs() - tall), qz) * 0.8
    return torch.minimum(torch.minimum(rim, bridge), arm) + m["glasses"]


def hat(x: Tensor, y: Tensor, z: Tensor, m: Measures, detail: bool) -> Tensor:
    """Distance (N, R) to a beanie, a cap or a brimmed hat."""
    tall = 0.10 + 0.14 * m["beanie"] + 0.22 * m["brimmed"]
    dome = ellipsoid(x, y - 0.32, z + 0.10, m["skull_x"] + 0.10, m["skull_y"] + tall, m["skull_z"] + 0.09)
    rim = y - 0.40 - 0.14 * z
    crown = cut(dome, -rim, 0.05)
    fold = cut(dome - 0.035, (rim - 0.15).abs() - 0.17, 0.06)
    if detail:
        rib = 0.012 * (38 * torch.atan2(x, z + 0.1)).sin()
        crown, fold = crown - rib * m["beanie"], fold - rib * m["beanie"]
    out = (x * x + (0.85 * (z + 0.05)) ** 2 + 1e-4).sqrt()
    brim = (((out - 1.05).clamp_min(0)) ** 2 + (y - 0.44 - 0.10 * z - 0.09 * x * x) ** 2 + 1e-6).sqrt() - 0.022
    disc = brim * 0.85
    reach = (x * x * 1.15 + (0.80 * (z - 0.62)) ** 2 + 1e-4).sqrt()
    peak = (((reach - 0.62).clamp_min(0)) ** 2 + (y - 0.50 + 0.14 * (z - 0.9) + 0.32 * x * x) ** 2 + 1e-6).sqrt() - 0.022
    visor = torch.maximum(peak, 0.5 - z) * 0.8
    extra = torch.where(m["beanie"] > 0, fold, torch.where(m["cap"] > 0, visor, disc))
    return join(crown, extra, 0.02) + m["hat"]


def clothes(x: Tensor, y: Tensor, z: Tensor, m: Measures, detail: bool) -> tuple[Tensor, Tensor]:
    """Distances (N, R) to the bare shoulders, which belong to the skin, and to the cloth over them."""
    ax = (x * x + 1e-3).sqrt()
    slope, _ = tube(ax, y, z, (0.0, -1.75, -0.50), (m["shoulder"], -2.13, -0.50))
    chest = ellipsoid(x, y + 3.0, z + 0.40, m["shoulder"] * 0.95, 1.25, 0.85)
    body = join(slope - 0.30, chest, 0.35)
    neck, _ = tube(ax, y, z, (0.0, -0.9, -0.33), (0.0, -2.3, -0.52))
    round_neck = neck - m["neck"]
    cover = join(body - 0.03, round_neck - 0.035, 0.34)
    # the neckline: a tilted plane, lower in front; a V is a deeper wedge
    line = y + 1.56 - 0.62 * m["turtle"] - 0.12 * m["collar"] + (0.30 - 0.15 * m["turtle"]) * z
    wedge = m["vneck"] * (0.75 - 1.5 * ax).clamp_min(0) * (z > -0.2)
    cloth = cut(cover, line + wedge, 0.04)
    lapel = cut(
        (round_neck - 0.09 - 0.25 * (-1.15 - y).clamp(0, 0.5)).abs() - 0.022, (y + 1.36 + 0.28 * z).abs() - 0.20, 0.03
    )
    lapel = torch.maximum(lapel, 0.05 - ax + 0.35 * (-1.30 - y).clamp(-0.3, 0.3) - 10.0 * (z < -0.3)) + 20.0 * (
        1 - m["collar"]
    )
    if detail:
        cloth = cloth + 0.010 * (9 * x + 5 * y + 2 * (3 * y + m["phase_a"]).sin()).sin()
    return body, torch.minimum(cloth, lapel)
