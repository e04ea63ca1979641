"""What is measured after a run with no network at all: how near the inversion is, and where the edit changed the picture."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

REGIONS = ("hair and forehead", "eyes", "nose and cheeks", "mouth and chin", "neck and clothes")


def psnr(image: Tensor, truth: Tensor, mask: Tensor | None = None) -> float:
    """Peak signal-to-noise ratio in dB of images (..., 3, H, W) in [-1, 1], inside a mask (..., 1, H, W) where given.

    The image is clamped first, as it is when it is shown.
    """
    error = (image.clamp(-1, 1) - truth).square() / 4  # of a range of 1
    mean = error.mean() if mask is None else (error * mask).sum() / (mask.sum() * 3).clamp_min(1e-08)
    return -10 * math.log10(max(float(mean), 1e-10))


def changes(before: Tensor, after: Tensor, landmarks: Tensor | None) -> dict[str, float]:
    """How much of each region changed: mean absolute difference of (3, H, W) images, in parts of the full range.

    Regions are bands of the picture between the landmarks (K, 2) in [0, 1], whose first five are eyes, nose and mouth
    corners; without landmarks there is one region, the picture.
    """
    difference = (after.clamp(-1, 1) - before.clamp(-1, 1)).abs().mean(dim=0) / 2  # (H, W)
    if landmarks is None:
        return {"picture": float(difference.mean())}
    height = difference.shape[0]
    eyes, mouth = float(landmarks[:2, 1].mean()), float(landmarks[3:5, 1].mean())
    span = max(mouth - eyes, 0.02)
    edges = [0.0, eyes - 0.4 * span, eyes + 0.4 * span, mouth - 0.35 * span, mouth + 0.75 * span, 1.0]
    rows = [min(height, max(0, round(edge * height))) for edge in edges]
    return {
        name: float(difference[top:bottom].mean())
        for name, top, bottom in zip(REGIONS, rows, rows[1:], strict=False)
        if bottom > top
    }


def said(changed: dict[str, float]) -> str:
    """One sentence: where the picture changed most, and how much."""
    ranked = sorted(changed.items(), key=lambda item: -item[1])
    if ranked[0][1] < 0.005:
        return "almost nothing changed in the picture"
    parts = [f"{name} {100 * value:.1f} %" for name, value in ranked if value >= 0.005]
    return f"the picture changed (mean difference by region): {', '.join(parts)}"
