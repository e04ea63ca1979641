"""The bare head as a signed distance: skull, jaw, face, eyes, mouth, ears and neck, in decimetres."""

from __future__ import annotations

import torch
from torch import Tensor

from facednerf_starter.world import wrinkles
from facednerf_starter.world.anatomy import Measures
from facednerf_starter.world.ears import ear
from facednerf_starter.world.fields import bump, cut, ellipsoid, join, noise, ridge, step, tube

EYE_R = 0.165


def mouth_line(x: Tensor, m: Measures) -> tuple[Tensor, Tensor]:
    """The height at which the lips meet, and the lips' envelope (1 at the midline, 0 at the corners), at x."""
    u = x / m["mouth_w"]
    return m["mouth_y"] + m["mouth_bend"] * x * x + m["mouth_tilt"] * x * 2, (1 - u * u).clamp(-4, 1)


def opened(envelope: Tensor, m: Measures) -> Tensor:
    """How wide the mouth opens where the lips' envelope is given, as a share of `open_up` and `open_low`.

    A smile that shows its teeth opens wider, and nearly to the corners.
    """
    return envelope + m["grin"] * envelope.clamp_min(0) * (1.5 - envelope)


def mouth_gap(x: Tensor, y: Tensor, m: Measures) -> Tensor:
    """Distance in the plane to the opening between the lips: negative within."""
    line, envelope = mouth_line(x, m)
    e = opened(envelope, m)
    return torch.maximum(y - line - m["open_up"] * e, line - m["open_low"] * e - y)


def eye_gap(ax: Tensor, y: Tensor, m: Measures) -> tuple[Tensor, Tensor]:
    """Distances in the plane past the upper and past the lower lid's edge: both negative in the eye's opening."""
    dx = ax - m["eye_x"]
    u = dx / m["eye_w"]
    dy = y - m["eye_tilt"] * dx
    shape = 1 - u * u
    lean = 1 - 0.25 * u  # the upper lid peaks towards the nose
    return dy - m["eye_up"] * shape * lean, -m["eye_low"] * shape - dy


def beard_mask(ax: Tensor, y: Tensor, z: Tensor, m: Measures) -> Tensor:
    """How densely beard or moustache grows here, within [0, 1], with wide soft edges."""
    lip = m["mouth_y"]
    under = y - lip + 0.13
    line = 0.26 * step(ax, 0.14, 0.38) + 1.05 * (ax - 0.42).clamp_min(0) + 0.6 * (ax - 0.62).clamp_min(0)
    full = step(under - line, 0.06, -0.12) * step(z - 0.16 * step(y, -0.60, -0.42), -0.16, 0.10)  # not on the ears
    narrow = ax + 0.22 * (-0.20 - under).clamp(0, 0.4)  # towards the chin's point
    rise = 0.09 * step(ax, 0.13, 0.02) + 0.05 * step(ax, 0.18, 0.34)  # up to the middle of the lip, and beside it
    chin = step(under - rise, 0.0, -0.14) * step(narrow, 0.34, 0.18) * step(z, 0.2, 0.35)
    ring = 0.6 * step(ax, 0.38, 0.29) * step(ax, 0.20, 0.29) * step(y - lip, 0.14, 0.02) * step(z, 0.3, 0.4)
    above = y - lip - 0.125 + 0.55 * ax * ax
    upper = step(above.abs(), 0.10, 0.04) * step(ax, 0.37, 0.22) * step(z, 0.3, 0.4)
    joined = m["goatee"] * m["moustache"] * ring
    grown = torch.maximum(
        torch.maximum(m["beard"] * full, m["goatee"] * chin), torch.maximum(m["moustache"] * upper, joined)
    )
    return grown * step(y, -1.38, -1.15)


def face(x: Tensor, y: Tensor, z: Tensor, m: Measures, detail: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Distances (N, R) to skin, eyeballs, teeth and the inner eye's and mouth's cut-out that bounds the skin."""
    x = x + m["asym"] * y
    ax = (x * x + 4e-4).sqrt() - 0.006
    front = step(z, 0.0, 0.45)
    lower = step(y, -0.55, -1.0)  # what the jaw carries
    yj = y + m["jaw_drop"] * lower
    narrow = 1 + m["taper"] * (yj + 0.30).clamp(-1.2, 0.4)
    skull = ellipsoid(x, y - 0.30, z + 0.09, m["skull_x"], m["skull_y"], m["skull_z"])
    mask = ellipsoid(x / narrow, yj + 0.36, z - 0.17, m["face_x"], m["face_y"], m["face_z"]) * 0.9
    d = join(skull, mask, 0.28)
    line, envelope = mouth_line(x, m)
    wet = envelope.clamp_min(0).sqrt()
    # hills and hollows, along the way out of the surface
    hill = (
        m["brow_ridge"] * bump(ax - 0.27, y - 0.19, 0.24, 0.10)
        + m["forehead"] * bump(ax, y - 0.55, 0.4, 0.25)
        - m["socket"] * bump(ax - 0.30, y - 0.015, 0.19, 0.125)
        + m["cheekbone"] * bump(ax - 0.43, y + 0.27 - 0.03 * m["laugh"], 0.17, 0.14)
        + m["cheek"] * bump(ax - 0.42, y + 0.58, 0.20, 0.22)
        + m["muzzle"] * bump(ax, y + 0.66, 0.27, 0.20)
        + m["chin"] * bump(ax, yj + 1.02, m["chin_w"], 0.14)
        - 0.028 * bump(ax, yj - m["mouth_y"] + 0.19, 0.22, 0.055)
        - 0.010 * bump(ax, y + 0.56, 0.025, 0.06)
    )
    e = opened(envelope, m).clamp_min(0)
    up = y - line - m["open_up"] * e
    low = line - m["open_low"] * e - y
    bow = 0.05 - 0.012 * ridge(ax, 0.035) + 0.010 * ridge(ax - 0.07, 0.05)
    lips = (
        wet * (m["lip_up"] * ridge(up - 0.6 * bow, 0.048) + m["lip_low"] * ridge(low - 0.038, 0.055))
        - 0.028 * step(envelope, -0.10, 0.30) * ridge(y - line, 0.016)
        - 0.016 * bump(ax - m["mouth_w"] - 0.03, y - line, 0.045, 0.06)
    )
    # the fold from the nose's wing to beside the mouth
    fold = m["fold"] * wrinkles.fold(ax, y, 0.045)
    bag = m["bag"] * bump(ax - m["eye_x"], y + 0.13, 0.14, 0.022)
    gonion = m["jaw"] * bump(ax - 0.50, yj + 0.66, 0.16, 0.20) * step((z - 0.05).abs(), 0.45, 0.0)
    d = d - front * (hill + lips - fold - bag) - gonion
    # eyelids over the eyeballs
    dx = ax - m["eye_x"]
    ball = (dx * dx + y * y + (z - m["eye_z"]) ** 2 + 1e-6).sqrt()
    d = join(d, ball - EYE_R - 0.016, 0.06)
    over, under = eye_gap(ax, y, m)
    gap = torch.maximum(over, under)
    if detail:
        d = d + 0.010 * bump(over - 0.035, dx, 0.010, 0.13) * front  # the crease of the upper lid
        d = d + wrinkles.relief(x, ax, y, z, m) * front
    # nose
    bridge, along = tube(ax, y, z, (0.0, 0.06, m["bridge_z"] - 0.06), (0.0, m["nose_y"], m["nose_z"] - 0.10))
    beam = bridge - 0.062 - 0.040 * along - m["hump"] * ridge(along - 0.45, 0.2)
    tip = ellipsoid(ax, y - m["nose_y"], z - m["nose_z"] + 0.085, m["nose_r"] * 1.05, m["nose_r"] * 0.9, m["nose_r"])
    wing = ellipsoid(ax - m["nose_w"] + 0.012, y - m["nose_y"] + 0.038, z - m["nose_z"] + 0.165, 0.056, 0.064, 0.105)
    nose = join(join(beam, tip, 0.09), wing, 0.06)
    d = join(d, nose, 0.095)
    hole = ellipsoid(ax - 0.055, y - m["nose_y"] + 0.085, z - m["nose_z"] + 0.12, 0.030, 0.035, 0.055)
    d = cut(d, -hole, 0.02)
    # neck and ears
    neck, along = tube(ax, y, z, (0.0, -0.7, -0.30), (0.0, -2.3, -0.52))
    cord = ridge(ax - 0.10 - 0.52 * (y + 1.62), 0.075) * step(z, -0.35, 0.05)  # from behind the ear to the breastbone
    apple = m["apple"] * bump(ax, y + 1.36, 0.07, 0.10) * step(z, -0.1, 0.1)
    d = join(d, neck - m["neck"] * (1 - 0.10 * ridge(along - 0.36, 0.2)) - 0.022 * cord - apple, 0.16)
    d = join(d, ear(ax, y, z, m), 0.05)
    # hair of the beard
    grown = beard_mask(ax, yj, z, m)
    thick = m["beard_t"] * (1 - 0.35 * m["moustache"] * (1 - m["beard"]))
    if detail:
        thick = thick + 0.010 * noise(60 * x + m["phase_a"] + 4 * (9 * y).sin(), 13 * y, 60 * z)
    d = d - grown * thick
    # the openings
    inner = mouth_gap(x, y, m)
    d = torch.maximum(d, -torch.maximum(gap * 0.85, 0.45 - z))
    back = 0.74 - 0.24 * envelope.clamp(0, 1)  # shallow at the corners, so that they are not black
    d = torch.maximum(d, -torch.maximum(inner + 0.012 - 0.3 * (m["open_low"]).clamp_max(0.04), back - z))
    teeth = torch.maximum(
        (x * x * 1.1 + (z - 0.53) ** 2 + 1e-6).sqrt() - 0.32,
        (y - m["mouth_y"] - (0.5 + 0.3 * m["grin"]) * m["mouth_bend"] * x * x - 0.045 + 0.030 * m["grin"]).abs() - 0.075,
    )
    teeth = torch.maximum(teeth, inner + 0.006)  # none beyond the lips' corners
    return d, ball - EYE_R, teeth, grown
