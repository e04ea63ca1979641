"""From attributes to measures: the lengths, in decimetres of a human head, that the distance functions read.

The model stands in decimetres with y = 0 at the pupils, x = 0 the midline, +z the face; `UNIT` and `RAISE` take it
into the world (a head of 2.25 dm is 0.45 tall, as in EG3D's FFHQ crop). Averages follow common anthropometry:
pupils 0.63 apart, face 1.38 broad, chin 1.13 below the pupils, vertex 1.13 above, mouth 0.67 below.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from facednerf_starter.world.attributes import Attributes

UNIT = 0.2
"""World units in a decimetre of the model."""
RAISE = 0.03
"""Height of the pupils in the world."""
ADVANCE = 0.05
"""Where the middle of the head stands on the world's z axis: cameras look at z = 0.2."""

Measures = Mapping[str, Tensor]
"""Each measure as (N, 1)."""

AFAR = 20.0


def measure(a: Attributes) -> dict[str, Tensor]:
    """The measures (N, 1) of N heads."""
    male = 1 - a.femininity
    fem = a.femininity
    old = ((a.age - 0.45) / 0.5).clamp(0, 1)
    child = ((0.18 - a.age) / 0.18).clamp(0, 1)
    style, look = a.hair_style, a.expression
    bald, short, long, curly = ((style == i).float() for i in range(4))
    smile, frown, angry, surprised, agape = ((look == i).float() for i in range(1, 6))
    force = 0.55 + 0.45 * a.intensity
    smile, frown, angry, surprised, agape = (v * force for v in (smile, frown, angry, surprised, agape))
    glasses, hat = a.glasses.float(), a.hat.float()
    weight = a.weight * 0.5 + 0.25 * old
    fringe = ((a.fringe - 0.55) / 0.45).clamp(0, 1) * (1 - bald) * (0.15 + 0.85 * fem)
    bob = short * ((a.femininity > 0.55) & (a.hair_length > 0.35)).float()  # short hair that covers the ears
    aside = short * (1 - fringe)  # short hair is combed away from its parting
    toothy = smile * (a.teeth > 0.4).float()
    m: dict[str, Tensor] = {
        "asym": 0.012 * a.asymmetry,
        "mouth_tilt": 0.02 * a.mouth_tilt,
        # skull and face
        "skull_x": 0.755 + 0.02 * a.face_width + 0.01 * male,
        "skull_y": 0.83 + 0.03 * a.cranium_height,
        "skull_z": 0.94 + 0.025 * a.cranium_depth,
        "face_x": 0.655 + 0.022 * a.face_width + 0.015 * male + 0.015 * weight,
        "face_y": 0.80 + 0.03 * a.face_length + 0.02 * male - 0.06 * child,
        "face_z": 0.70 + 0 * a.age,
        "taper": 0.27 - 0.06 * a.jaw_width + 0.07 * fem - 0.06 * male - 0.06 * weight,
        "jaw": 0.015 + 0.03 * male + 0.014 * a.jaw_width,
        "chin": 0.045 + 0.02 * a.chin_length + 0.015 * male,
        "chin_w": 0.19 + 0.03 * a.chin_width + 0.03 * male,
        "cheekbone": 0.035 + 0.014 * a.cheekbone + 0.05 * smile,
        "cheek": 0.028 * weight - 0.02 * old + 0.03 * child + 0.012 * fem,
        "brow_ridge": 0.022 + 0.03 * male + 0.012 * a.brow_ridge,
        "forehead": 0.012 * a.forehead + 0.02 * child,
        "fold": 0.012 + 0.030 * old + 0.034 * smile,
        "bag": 0.004 + 0.028 * old,
        # eyes
        "eye_x": 0.315 + 0.013 * a.eye_spacing,
        "eye_z": 0.655 - 0.014 * a.eye_depth,
        "eye_w": 0.152 * (1 + 0.05 * a.eye_size) + 0.004 * fem,
        "eye_up": (0.066 + 0.006 * a.eye_open + 0.006 * fem - 0.010 * old)
        * (1 - 0.22 * smile + 0.45 * surprised - 0.12 * angry),
        "eye_low": (0.046 + 0.003 * a.eye_open) * (1 - 0.35 * smile + 0.20 * surprised - 0.25 * angry),
        "eye_tilt": 0.06 + 0.05 * a.eye_tilt - 0.06 * old,
        "gaze_x": 0.012 * a.gaze_x,
        "gaze_y": 0.006 * a.gaze_y,
        "socket": 0.105 + 0.012 * a.eye_depth + 0.015 * male,
        "brow_y": 0.185 + 0.016 * a.brow_height + 0.02 * fem + 0.06 * surprised - 0.035 * angry - 0.01 * frown,
        "brow_in": 0.035 * frown - 0.07 * angry + 0.01 * a.brow_arch,
        "brow_arch": 0.05 + 0.012 * a.brow_arch + 0.02 * fem + 0.02 * surprised,
        "brow_h": 0.022 + 0.020 * a.brow_thickness + 0.012 * male,
        # nose
        "nose_y": -0.40 - 0.022 * a.nose_length - 0.01 * old,
        "nose_z": 1.045 + 0.03 * a.nose_tip + 0.02 * male - 0.03 * child,
        "bridge_z": 0.835 + 0.02 * a.nose_bridge + 0.02 * male,
        "hump": 0.012 * a.nose_hump,
        "nose_w": 0.105 + 0.013 * a.nose_width + 0.008 * male + 0.012 * a.skin,
        "nose_r": 0.092 + 0.008 * a.nose_width + 0.008 * male,
        # mouth
        "mouth_y": -0.695 - 0.018 * a.mouth_height - 0.02 * agape + 0.01 * smile,
        "mouth_w": 0.255 + 0.016 * a.mouth_width + 0.055 * smile - 0.03 * surprised - 0.02 * agape,
        "mouth_bend": 0.80 * smile - 0.90 * frown - 0.35 * angry - 0.05,
        "open_up": 0.032 * toothy + 0.06 * agape + 0.07 * surprised,
        "open_low": 0.040 * toothy + 0.14 * agape + 0.11 * surprised,
        "lip_up": 0.040 + 0.008 * a.lip_upper + 0.006 * fem + 0.012 * a.skin - 0.016 * old - 0.008 * smile - 0.012 * angry,
        "lip_low": 0.052 + 0.009 * a.lip_lower + 0.006 * fem + 0.010 * a.skin - 0.014 * old - 0.008 * smile - 0.010 * angry,
        "muzzle": 0.055 + 0.012 * a.muzzle,
        "grin": toothy,
        "jaw_drop": 0.10 * agape + 0.07 * surprised + 0.015 * toothy,
        # ears and neck
        "ear": 1 + 0.06 * a.ear_size + 0.10 * old - 0.05 * fem,
        "ear_out": 0.30 + 0.08 * a.ear_angle,
        "neck": 0.435 + 0.085 * male + 0.015 * a.neck + 0.03 * weight - 0.06 * child,
        "apple": 0.045 * male * (1 - child),
        "shoulder": 1.35 + 0.22 * male + 0.06 * a.shoulders,
        # hair
        "hair": torch.where(bald > 0, AFAR, 0.0),
        "hair_t": short * (0.035 + 0.15 * a.hair_volume)
        + long * (0.06 + 0.14 * a.hair_volume)
        + curly * (0.16 + 0.24 * a.hair_volume)
        - 0.05 * hat * (1 - bald),
        "hair_drop": bob * (0.15 + 0.40 * a.hair_length)
        + long * (1.05 + 0.8 * a.hair_length)
        + curly * (0.75 * a.hair_length * (0.25 + 0.75 * fem)),
        "hair_side": torch.where(long > 0, 0.0, torch.where(curly > 0, -0.20, torch.where(bob > 0, -0.02, -0.55)))
        + 0.22 * a.hair_volume * long,
        "hairline": 0.74 + 0.16 * male * a.recession * (0.4 + 0.6 * old) - 0.36 * fringe,
        "recede": male * a.recession * (0.08 + 0.45 * old),
        "sides": 1 - 0.55 * short * (1 - 0.6 * fem),
        "lift": (0.85 - 0.2 * fem) * (1 - fringe) * torch.where(bald > 0, 0.0, 1.0) * (1 - 0.5 * curly),
        "sweep": (0.45 * short + 0.25 * long) * a.part * 0.5,
        "swell": 0.08 * long + 0.10 * long * a.hair_volume,
        "ear_free": ((short > 0) & (bob == 0)).float(),
        "jag": 0.022 * fringe + 0.008,
        "aside": aside,
        "quiff": aside * (0.25 + 0.75 * a.hair_volume),
        "fade": 0.5 * short * (1 - bob) * (1 - 0.7 * fem),
        "curl": curly * (0.035 + 0.03 * a.wave) + (1 - curly) * 0.0,
        "curl_f": 13.0 - 4.0 * a.hair_volume,
        "wave": (long + 0.3 * short) * 0.035 * a.wave,
        "part": 0.22 * a.part,
        "part_d": (short + long) * 0.04 * (1 - fringe),
        "curly": curly,
        "long": long,
        # beard
        "beard": (a.beard == 1).float(),
        "goatee": (a.beard == 2).float(),
        "moustache": (a.moustache == 1).float(),
        "beard_t": 0.025 + 0.085 * a.beard_length,
        "beard_l": 0.02 + 0.45 * a.beard_length**3 * (a.beard > 0).float(),
        "stubble": male * ((a.stubble - 0.4) / 0.6).clamp(0, 1) * (1 - child),
        # glasses, hat, clothes
        "glasses": torch.where(glasses > 0, 0.0, AFAR),
        "lens_w": 0.212 + 0.045 * a.glasses_size,
        "lens_h": 0.135 + 0.05 * a.glasses_size + 0.045 * a.glasses_round,
        "lens_r": 0.05 + 0.14 * a.glasses_round,
        "frame": 0.009 + 0.016 * a.glasses_thickness,
        "hat": torch.where(hat > 0, 0.0, AFAR),
        "worn": hat,
        "beanie": (a.hat_kind == 0).float(),
        "cap": (a.hat_kind == 1).float(),
        "brimmed": (a.hat_kind == 2).float(),
        "collar": (a.clothes == 1).float(),
        "vneck": (a.clothes == 2).float(),
        "turtle": (a.clothes == 3).float(),
        # texture
        "old": old,
        "lined": ((a.age - 0.50) / 0.24).clamp(0, 1),
        "laugh": smile,
        "phase_a": 3 * a.phase_a,
        "phase_b": 3 * a.phase_b,
        "phase_c": 3 * a.phase_c,
    }
    return {name: value[:, None] for name, value in m.items()}
