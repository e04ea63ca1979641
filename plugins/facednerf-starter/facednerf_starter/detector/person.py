"""The person's mask around a face: read in a wide view, then again with the background calmed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import ndimage
from scipy.special import expit, logit

from facednerf_core.framing import moved, resampled
from facednerf_starter.detector.crops import Crop, cut, upright
from facednerf_starter.detector.network import CROP_SIZE
from facednerf_starter.detector.silhouette import expected

FRAME, FRAME_SCALE = 256, 0.45  # pixels of the square in which readings are put together, and its scale
WIDE = ((0.8, 0.0), (0.62, 0.0), (0.5, -0.15), (0.5, 0.15), (0.42, 0.0))  # scale and turn of the first readings
AGAIN = ((1.0, 0.0), (0.8, 0.0), (0.62, 0.0), (0.5, 0.0))  # of those with the background calmed
FINE = AGAIN[:3]  # of those with it calmed once more
DOUBT = ((0.2, 0.6), (0.3, 0.7))  # below the first a pixel is calmed, above the second it is left as it is, both times

Read = Callable[[Sequence[Crop]], np.ndarray]
"""From crops to masks (C, 128, 128) in [0, 1]."""


def mask(pixels: np.ndarray, landmarks: np.ndarray, read: Read) -> np.ndarray:
    """The mask (H, W) in [0, 1] of the person whose landmarks (K, 2) these are, in a photo (H, W, 3) in [0, 1].

    A network that learnt from rendered heads takes pieces of a busy background for hair, in close views above all, and dark
    clothes for background. So it looks from afar too; what it and the `expected` silhouette hold unlikely is then
    blurred towards one colour, and it looks again, closer.
    """
    frame = upright(landmarks[:5], FRAME_SCALE, 0.0, FRAME)
    odds, trust = expected(moved(frame, landmarks), FRAME)

    def crops(views: Sequence[tuple[float, float]]) -> list[Crop]:
        return [cut(pixels, upright(landmarks[:5], scale, turn)) for scale, turn in views]

    def logits(views: Sequence[Crop]) -> np.ndarray:
        chance = gathered(read(views), views, frame).clip(0.02, 0.98)
        said = logit(chance)
        return np.where(said < 0, trust * said, said)

    first = logits(crops(WIDE))
    rough = expit(first + odds).astype(np.float32)
    second = logits([calmed(crop, rough, frame, DOUBT[0]) for crop in crops(AGAIN)])
    rough = expit((first + 2 * second) / 3 + odds).astype(np.float32)
    third = logits([calmed(crop, rough, frame, DOUBT[1]) for crop in crops(FINE)])
    final = expit((first + second + 2 * third) / 4 + 0.6 * odds).astype(np.float32)
    return resampled(final, np.linalg.inv(frame), pixels.shape[:2])


def calmed(crop: Crop, rough: np.ndarray, frame: np.ndarray, doubt: tuple[float, float]) -> Crop:
    """A crop whose background, by a rough mask (F, F) in a frame, is blurred towards its mean colour."""
    own = resampled(rough, crop.place @ np.linalg.inv(frame), (CROP_SIZE, CROP_SIZE), mirror=True)
    low, high = doubt
    kept = ((own - low) / (high - low)).clip(0, 1)[..., None]
    behind = own < 0.1
    if not behind.any():
        return crop
    still = (ndimage.gaussian_filter(crop.image, (6, 6, 0)) + crop.image[behind].mean(0)) / 2
    return Crop(crop.place, (still + kept * (crop.image - still)).astype(np.float32))


def gathered(masks: np.ndarray, crops: Sequence[Crop], frame: np.ndarray) -> np.ndarray:
    """The mask (F, F) in [0, 1] of a frame: the mean of what each crop says, less towards its edge; 0 where none looks."""
    edge = np.minimum(np.arange(CROP_SIZE) + 0.5, CROP_SIZE - 0.5 - np.arange(CROP_SIZE))
    window = (np.minimum(edge[:, None], edge[None]) / 16).clip(0.02, 1).astype(np.float32)
    total, weight = np.zeros((FRAME, FRAME), np.float32), np.full((FRAME, FRAME), 1e-6, np.float32)
    for mask, crop in zip(masks, crops, strict=True):
        place = frame @ np.linalg.inv(crop.place)
        total += resampled(mask.astype(np.float32) * window, place, (FRAME, FRAME))
        weight += resampled(window, place, (FRAME, FRAME))
    return (total / weight).clip(0, 1)
