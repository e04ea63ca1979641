"""The colour of every surface: skin, lips, brows, eyes, teeth, hair, frames, cloth."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from facednerf_starter.world import wrinkles
from facednerf_starter.world.anatomy import Measures
from facednerf_starter.world.ears import hollows
from facednerf_starter.world.fields import bump, grain, noise, ridge, step
from facednerf_starter.world.hair import cover, roots, strand
from facednerf_starter.world.heads import eye_gap, mouth_gap, mouth_line, opened

Colours = dict[str, Tensor]


def _mix(colour: Tensor, other: Tensor, amount: Tensor) -> Tensor:
    return colour + (other - colour) * amount[..., None]


def lip_mask(x: Tensor, y: Tensor, z: Tensor, m: Measures) -> Tensor:
    """Where the red of the lips is, within [0, 1]."""
    line, envelope = mouth_line(x, m)
    gap, e = opened(envelope, m).clamp_min(0), envelope.clamp_min(0)
    up = y - line - m["open_up"] * gap
    low = line - m["open_low"] * gap - y
    ax = x.abs()
    top = (0.035 + 0.75 * m["lip_up"]) * e**0.75 * (1 + 0.10 * ridge(ax - 0.07, 0.05) - 0.18 * ridge(ax, 0.03))
    bottom = (0.045 + 0.75 * m["lip_low"]) * e**0.6
    return step(up - top, 0.012, -0.012) * step(low - bottom, 0.014, -0.014) * step(envelope, 0.0, 0.12) * step(z, 0.4, 0.5)


def skin(
    x: Tensor, y: Tensor, z: Tensor, m: Measures, c: Colours, f: Colours, grown: Tensor, sharp: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Albedo (N, R, 3) of the skin with what grows and lies on it; the lips' mask; the share of hair."""
    xs = x + m["asym"] * y
    ax = (xs * xs + 4e-4).sqrt() - 0.006
    front = step(z, 0.15, 0.5)
    base = c["skin"].expand(*x.shape, 3)
    mottled = grain(7 * x + m["phase_a"], 7 * y + m["phase_b"], 7 * z)
    pores = noise(61 * x + m["phase_b"], 61 * y, 61 * z) * noise(37 * x, 37 * y + m["phase_a"], 37 * z)
    base = base * (1 + 0.035 * mottled + 0.028 * sharp * pores)[..., None]
    warmth = noise(3.1 * x + m["phase_c"], 3.1 * y, 3.1 * z + m["phase_a"])
    base = base * (1 + warmth[..., None] * torch.tensor([0.012, -0.024, -0.036], device=x.device))
    flush = torch.tensor([1.03, 0.84, 0.82], device=x.device)
    rosy = bump(ax - 0.45, y + 0.36, 0.18, 0.16) * f["blush"] + 0.45 * bump(xs, y + 0.42, 0.13, 0.13)
    rosy = rosy + 0.5 * step(ax, 0.70, 0.80)  # ears
    base = _mix(base, base * flush, (rosy * front.clamp_min(0.3)).clamp(0, 1))
    dark = torch.tensor([0.72, 0.62, 0.58], device=x.device)
    base = _mix(base, base * dark * dark, 0.8 * hollows(ax, y, z, m))
    specks = step(noise(21 * x + m["phase_c"], 21 * y, 21 * z), 0.55, 0.85) * bump(ax - 0.25, y + 0.3, 0.35, 0.22)
    base = _mix(base, base * dark, specks * f["freckles"] * front)
    # tired skin under the eyes, age spots, wrinkles
    dx = ax - m["eye_x"]
    over, under = eye_gap(ax, y, m)
    ring = bump(dx, y + 0.10, 0.15, 0.045)
    base = _mix(base, base * torch.tensor([0.86, 0.78, 0.80], device=x.device), ring * (0.35 + 0.5 * m["old"]) * front)
    feet = wrinkles.crow(ax, y, m)
    aged = 0.75 * wrinkles.forehead(xs, y, z, m) + 0.65 * feet + 0.6 * wrinkles.drooping(ax, y, m)
    aged = aged + 0.55 * wrinkles.bag(ax, y, m)
    worn = aged * m["lined"] + 0.12 * feet * m["laugh"]
    worn = worn + wrinkles.fold(ax, y, 0.026) * (0.16 + 0.55 * m["lined"] + 0.35 * m["laugh"]).clamp_max(0.8)
    grey = (base * torch.tensor([0.30, 0.59, 0.11], device=x.device)).sum(-1, keepdim=True)
    dull = grey * torch.tensor([1.03, 0.96, 0.86], device=x.device)
    base = _mix(base, dull, 0.16 * m["lined"] * (1 - 0.5 * f["dark"]))
    spots = step(grain(9 * x, 9 * y + m["phase_b"], 9 * z), 0.45, 1.05) * m["old"] * 0.22
    base = _mix(base, base * dark, (worn * front + spots).clamp(0, 1) * 0.8)
    # lids, lashes
    lid = step(over, 0.075, 0.02) * step(under, -0.01, -0.04) * step(dx.abs(), 0.2, 0.12) * front
    base = _mix(base, base * torch.tensor([0.90, 0.80, 0.79], device=x.device), lid * 0.7)
    paint = base * 0.4 + 0.35 * torch.tensor([0.45, 0.30, 0.40], device=x.device)
    base = _mix(base, paint, lid * f["shadow"] * 0.7)
    lash = step(over.abs(), 0.020, 0.006) * step(dx.abs() - m["eye_w"], 0.015, -0.01) * step(under, 0.03, -0.01)
    lower = step(under.abs(), 0.012, 0.003) * step(dx.abs() - m["eye_w"], 0.0, -0.02) * 0.55
    ink = torch.tensor([0.06, 0.045, 0.04], device=x.device)
    base = _mix(base, ink.expand_as(base), (torch.maximum(lash, lower) * front * f["lash"]).clamp(0, 1))
    crease = bump(over - 0.040, dx, 0.010, 0.12) * front
    base = _mix(base, base * dark, crease * 0.55)
    # lips, nostrils, the inner mouth
    red = lip_mask(xs, y, z, m)
    tone = c["lips"] * (1 + 0.10 * (xs * 130).sin() * (1 - f["lipstick"]) * 0.5)[..., None]
    base = _mix(base, tone.expand_as(base), red * (0.66 + 0.3 * f["lipstick"]))
    line, envelope = mouth_line(xs, m)
    seam = ridge(y - line, 0.010) * step(envelope, -0.08, 0.25) * front * step(m["open_low"], 0.05, 0.0)
    base = _mix(base, base * 0.42, seam * 0.85)
    hole = bump(ax - 0.058, y - m["nose_y"] + 0.088, 0.026, 0.018) * step(z, 0.75, 0.85)
    base = _mix(base, base * 0.22, hole)
    inside = (
        step(envelope, 0.02, 0.10)
        * step(mouth_gap(xs, y, m), 0.004, -0.008)
        * step(z + 1.3 * xs * xs, 0.87, 0.79)
        * step(z, 0.3, 0.45)
    )
    tongue = step(y - m["mouth_y"] + m["open_low"] * 0.35, 0.03, -0.03)
    throat = torch.tensor([0.16, 0.04, 0.04], device=x.device) + tongue[..., None] * torch.tensor(
        [0.42, 0.16, 0.16], device=x.device
    )
    cheek = base * 0.68 + 0.06 * torch.tensor([1.0, 0.35, 0.35], device=x.device)  # behind the corners
    throat = _mix(throat, cheek, step(envelope, 0.50, 0.12))
    base = _mix(base, throat, inside)
    # brows, stubble, beard, shaven scalp
    t = (ax - 0.115) / 0.40
    arc = m["brow_y"] + m["brow_in"] * (1 - t) ** 2 + m["brow_arch"] * (2.2 * t * (1.25 - t)).clamp_min(-0.5) - 0.03
    thick = m["brow_h"] * (1.15 - 0.75 * t.clamp(0, 1))
    # single hairs, that stand up at the nose and lie down outwards; coarse pictures see their mean
    comb = ax * (1.0 - 0.5 * t.clamp(0, 1)) - (0.25 + 0.55 * t.clamp(0, 1)) * (y - arc)
    single = (270 * comb + 2.5 * noise(26 * ax, 26 * y, m["phase_b"] + 0 * z)).sin()
    ragged = 0.010 * single + 0.006 * noise(90 * ax, 40 * y, m["phase_c"] + 0 * z)
    brow = step((y - arc).abs() - thick + ragged - 0.003, 0.016, -0.012) * step(t, -0.06, 0.10) * step(t, 1.05, 0.72) * front
    hairs = (0.80 + 0.14 * single) * (0.70 + 0.30 * step(t, -0.06, 0.22))
    base = _mix(base, c["brows"] * (1 - 0.15 * single)[..., None], brow * hairs)
    streak = noise(60 * x + m["phase_a"] + 4 * (9 * y).sin(), 13 * y, 60 * z)
    fur = step(grown + 0.16 * noise(30 * x, 14 * y, 30 * z), 0.05, 0.60) * step(grown, 0.03, 0.2) * (1 - 0.9 * red)
    base = _mix(base, c["beard"] * (1 + 0.22 * streak)[..., None], fur)
    five = (
        step(y - line + 0.09 + 0.0 * x, 0.25, 0.0)
        * step(y - 1.0 * (ax - 0.35).clamp_min(0), -0.42, -0.56)
        * step(y, -1.35, -1.15)
    )
    grit = 0.75 + 0.25 * noise(55 * x, 55 * y, 55 * z)
    blue = _mix(
        base, c["beard"] * 0.5 + 0.10, (0.5 * five * grit * m["stubble"] * step(z, -0.1, 0.2) * (1 - red)).clamp(0, 1)
    )
    scalp = step(z - 0.80 - (y - 0.74) / 1.22, 0.05, -0.05) * step(y, -0.4, -0.1)
    blue = _mix(blue, c["beard"] * 0.5 + 0.10, 0.35 * scalp * grit * f["shorn"])
    rooted = roots(x, y, z, m, sharp) * (1 - f["bald"])
    blue = _mix(blue, c["hair"] * (0.92 + 0.2 * streak * sharp)[..., None], rooted)
    return blue, red, torch.maximum(fur, torch.maximum(0.6 * brow, rooted))


def teeth(x: Tensor, m: Measures, sharp: float) -> Tensor:
    """Albedo (N, R, 3) of the upper teeth, side by side; the gaps are finer in `sharp` pictures."""
    between = (x * (math.pi / 0.076)).cos() ** 2  # 1 between two teeth, the first time at the midline
    gap = (1 - sharp) * 0.16 * between**3 + sharp * 0.32 * between**10
    round_off = 1 - 0.07 * between
    white = torch.tensor([0.95, 0.92, 0.86], device=x.device)
    return white * ((1 - gap) * round_off * (0.72 + 0.28 * step(x.abs(), 0.32, 0.14)))[..., None]


def oil(x: Tensor, y: Tensor, z: Tensor, m: Measures, sharp: float) -> Tensor:
    """How much skin shines (N, R), about 1: more on forehead, nose and chin; `sharp` pictures show its pores."""
    middle = bump(x, y - 0.62, 0.42, 0.34) + bump(x, y + 0.28, 0.15, 0.30) + 0.6 * bump(x, y + 1.0, 0.16, 0.12)
    patches = noise(6 * x + m["phase_b"], 6 * y, 6 * z + m["phase_c"])
    pores = noise(41 * x, 41 * y + m["phase_c"], 41 * z)
    return (0.85 + 0.45 * middle.clamp_max(1) + 0.25 * patches + 0.25 * sharp * pores).clamp_min(0.1)


def eyes(x: Tensor, y: Tensor, z: Tensor, m: Measures, c: Colours, f: Colours) -> tuple[Tensor, Tensor]:
    """Albedo (N, R, 3) of the eyeballs, and how wet they shine (N, R)."""
    side = torch.where(x > 0, 1.0, -1.0)
    dx = x - side * m["eye_x"] - m["gaze_x"]
    dy = y - m["gaze_y"]
    r = (dx * dx + dy * dy + 1e-8).sqrt()
    over, under = eye_gap(x.abs(), y, m)
    white = torch.tensor([0.90, 0.87, 0.85], device=x.device).expand(*x.shape, 3)
    pink = torch.tensor([0.86, 0.66, 0.62], device=x.device)
    corner = step((x.abs() - m["eye_x"]).abs() / m["eye_w"], 0.55, 0.95)
    white = _mix(white, pink.expand_as(white), corner * 0.7)
    angle = torch.atan2(dy, dx)
    streak = 0.5 + 0.5 * (angle * 17 + 3 * noise(40 * dx, 40 * dy, 0 * z)).sin()
    iris = c["eyes"] * (0.75 + 0.55 * streak * step(r, 0.015, 0.05))[..., None]
    iris = _mix(iris, iris * 0.35, step(r, 0.046, 0.060))
    colour = _mix(white, iris, step(r, 0.064, 0.056))
    colour = _mix(colour, torch.full_like(colour, 0.015), step(r, 0.027, 0.021))
    shade = 1 - 0.55 * step(over, -0.045, 0.0) - 0.15 * step(under, -0.03, 0.0)
    return colour * shade[..., None], step(over, 0.0, -0.02)


def hairs(x: Tensor, y: Tensor, z: Tensor, m: Measures, c: Colours, sharp: float) -> Tensor:
    """Albedo (N, R, 3) of the hair on the head; `sharp`, within [0, 1], is how much is seen of single strands.

    Where hair begins the skin is seen through it.
    """
    s = strand(x, y, z, m)
    fine = (s * 95 + 2 * noise(3 * x, 2 * y, 3 * z)).sin() * 0.5 + (s * 53 + m["phase_b"]).sin() * 0.5
    curl = noise(24 * x, 24 * y, 24 * z)
    streak = fine * (1 - m["curly"]) + curl * m["curly"]
    broad = noise(2.1 * x + m["phase_c"], 1.2 * y, 2.1 * z)
    soft, ragged, hung = cover(s, x, y, z, m)
    whole = torch.maximum(hung, torch.maximum(step(m["lift"], 0.5, 0.0), m["curly"]))  # no skin behind it
    skin_under = 0.80 * c["skin"]
    tone = 1 + 0.20 * streak + 0.10 * broad
    coarse = _mix(skin_under, c["hair"] * tone[..., None], torch.maximum(soft, whole))
    if sharp == 0:
        return coarse
    single = _mix(skin_under, c["hair"] * (tone + strands(x, y, z, m))[..., None], torch.maximum(ragged, whole))
    return coarse + sharp * (single - coarse)


def strands(x: Tensor, y: Tensor, z: Tensor, m: Measures) -> Tensor:
    """How much lighter or darker single hairs are, about within [-0.5, 0.5]."""
    s = strand(x, y, z, m)
    bundle = noise(31 * s + m["phase_a"], 1.5 * y, 1.5 * z)
    straight = 0.5 * (197 * s + 3.0 * bundle).sin() + 0.5 * (283 * s + 4.0 * bundle + 2.0 * y).sin()
    coil = (22 * noise(4.5 * x + m["phase_a"], 4.5 * y + m["phase_b"], 4.5 * z)).sin()
    return 0.26 * straight * (1 - m["curly"]) + 0.24 * coil * m["curly"]


def cloth(x: Tensor, y: Tensor, z: Tensor, c: Colours, f: Colours) -> Tensor:
    """Albedo (N, R, 3) of the clothes."""
    rows = step((y * 22).sin(), -0.15, 0.15)
    columns = step((x * 22).sin(), -0.15, 0.15)
    other = f["stripes"] * rows + f["checks"] * 0.5 * (rows + columns)
    colour = _mix(c["clothes"].expand(*x.shape, 3), c["clothes_other"].expand(*x.shape, 3), other)
    return colour * (1 + 0.05 * noise(30 * x, 30 * y, 30 * z))[..., None]


def hat(x: Tensor, y: Tensor, z: Tensor, m: Measures, c: Colours) -> Tensor:
    """Albedo (N, R, 3) of the hat."""
    knit = 0.10 * (38 * torch.atan2(x, z + 0.1)).sin() * m["beanie"] + 0.05 * noise(30 * x, 30 * y, 30 * z)
    band = m["brimmed"] * step((y - 0.62 - 0.10 * z).abs(), 0.12, 0.10)
    colour = c["hat"].expand(*x.shape, 3) * (1 + knit)[..., None]
    return _mix(colour, colour * 0.25, band)
