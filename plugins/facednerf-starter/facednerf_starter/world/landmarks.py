"""Points of the face, where they are known by construction."""

from __future__ import annotations

import torch
from torch import Tensor

from facednerf_starter.world.anatomy import ADVANCE, RAISE, UNIT, Measures
from facednerf_starter.world.cameras import project
from facednerf_starter.world.heads import EYE_R

LANDMARKS: tuple[str, ...] = (
    "left_eye", "right_eye", "nose_tip", "left_mouth_corner", "right_mouth_corner", "chin",
    "left_brow", "right_brow", "left_ear", "right_ear", "forehead", "nose_bridge", "upper_lip", "lower_lip",
    "left_jaw", "right_jaw", "left_cheek", "right_cheek",
)  # fmt: skip
"""Left and right are those of the image of a frontal face; the first five are ArcFace's, in its order."""


def points(m: Measures) -> Tensor:
    """The landmarks in the world, (N, K, 3)."""
    zero = torch.zeros_like(m["eye_x"])
    corner_y = m["mouth_y"] + m["mouth_bend"] * m["mouth_w"] ** 2
    tilt = 2 * m["mouth_tilt"] * m["mouth_w"]
    chin_y = -1.13 - m["jaw_drop"]

    def pair(x: Tensor | float, y: Tensor | float, z: Tensor | float) -> list[tuple[Tensor, ...]]:
        return [tuple(zero + v for v in (s * x, y, z)) for s in (-1, 1)]

    eyes = pair(m["eye_x"], 0.0, m["eye_z"] + EYE_R)
    corners = pair(m["mouth_w"], 0.0, 0.80)
    corners = [(x, corner_y + s * tilt, z) for s, (x, _, z) in zip((-1, 1), corners, strict=True)]
    lip_z = 0.83 + m["muzzle"] + 0.5 * m["lip_up"]
    rows = [
        *eyes,
        (zero, m["nose_y"], m["nose_z"]),
        *corners,
        (zero, chin_y + 0.02, 0.66 + m["chin"]),
        *pair(0.31, m["brow_y"] + 0.5 * m["brow_arch"], 0.86),
        *pair(0.79, -0.10, -0.12),
        (zero, 0.74 + zero, 0.76 + zero),
        (zero, 0.04 + zero, m["bridge_z"] + 0.02),
        (zero, m["mouth_y"] + m["open_up"] + 0.05, lip_z),
        (zero, m["mouth_y"] - m["open_low"] - 0.06, lip_z),
        *pair(0.55, -0.66, 0.15),
        *pair(0.46, -0.30, 0.70),
    ]
    model = torch.stack([torch.cat([torch.as_tensor(v) + zero for v in row], dim=1) for row in rows], dim=1)
    # the face is sheared by its asymmetry: x_model = x - asym * y
    model[..., 0] -= m["asym"] * model[..., 1]
    return model * UNIT + torch.tensor([0.0, RAISE, ADVANCE], device=model.device)


def landmarks(m: Measures, cameras: Tensor) -> Tensor:
    """The landmarks in the pictures of cameras (N, V, 25): (N, V, K, 2), whether hidden or not."""
    return project(cameras, points(m)[:, None].expand(-1, cameras.shape[1], -1, -1))
