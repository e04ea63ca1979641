"""A look at the detector on a real photo: scikit-image's astronaut (NASA, public domain), never used in training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from facednerf_starter.detector.network import CROP_SIZE, FaceReader
from facednerf_starter.train.sheets import marked, sheet

MARGINS = (1.6, 2.0, 2.5, 3.0)
"""Sides of the crops, in sides of the box that the face cascade finds."""


def face_box(photo: np.ndarray) -> tuple[float, float, float]:
    """Centre (x, y) and side in pixels of the largest face that scikit-image's cascade finds in a photo (H, W, 3)."""
    from skimage.data import lbp_frontal_face_cascade_filename
    from skimage.feature import Cascade

    cascade = Cascade(lbp_frontal_face_cascade_filename())
    found = cascade.detect_multi_scale(
        img=photo, scale_factor=1.2, step_ratio=1, min_size=(40, 40), max_size=(max(photo.shape[:2]),) * 2
    )
    if not found:
        raise ValueError("the cascade found no face in the photo")
    best = max(found, key=lambda box: box["width"])
    return best["c"] + best["width"] / 2, best["r"] + best["height"] / 2, float(best["width"])


def square(photo: Tensor, x: float, y: float, side: float) -> Tensor:
    """The square (1, 3, 128, 128) of a photo (3, H, W), edges repeated outside of it."""
    margin = int(side)
    wide = F.pad(photo[None], (margin, margin, margin, margin), mode="replicate")
    left, top = round(x - side / 2) + margin, round(y - side / 2) + margin
    cut = wide[..., top : top + round(side), left : left + round(side)]
    return F.interpolate(cut, size=(CROP_SIZE, CROP_SIZE), mode="bilinear", align_corners=False, antialias=True)


@torch.no_grad()
def show_portrait(network: FaceReader, path: Path) -> None:
    """Writes a sheet: crops of several margins with landmarks, the mask, and the person cut out."""
    from skimage.data import astronaut

    photo = astronaut()
    x, y, side = face_box(photo)
    tensor = torch.from_numpy(photo).permute(2, 0, 1).float() / 127.5 - 1
    rows = []
    for margin in MARGINS:
        crop = square(tensor, x, y, side * margin)
        reading = network(crop)
        yaw, pitch, roll = (reading.pose[0] * 180 / torch.pi).tolist()
        print(f"portrait, margin {margin}: yaw {yaw:.1f}, pitch {pitch:.1f}, roll {roll:.1f} degrees", flush=True)
        mask = F.interpolate(reading.mask.sigmoid(), scale_factor=2.0)[0]
        large = F.interpolate(crop, scale_factor=2.0, mode="bicubic")[0]
        rows.append([marked(crop[0], reading.landmarks[0]), mask, large * mask + (1 - mask)])
    sheet(path, rows)
