"""The person's mask around a face: what two networks read, and where a person is expected, put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import ndimage
from scipy.special import expit, logit

from facednerf_core.framing import moved, resampled
from facednerf_starter.detector import segmenter
from facednerf_starter.detector.crops import Crop, cut, upright
from facednerf_starter.detector.silhouette import expected

FRAME, FRAME_SCALE = 256, 0.45  # pixels of the square in which readings are put together, and its scale
WIDE = ((0.8, 0.0), (0.62, 0.0), (0.5, -0.15), (0.5, 0.15), (0.42, 0.0))  # scale and turn of the reader's crops
SCALES = (0.8, 0.62, FRAME_SCALE)  # of the segmenter's
READER, EXPECTED = 0.5, 0.6  # how much the reader's log-odds and the expected ones count beside the segmenter's
UNLIKELY = 0.3  # below this chance a pixel ends a piece of the person

Read = Callable[[Sequence[Crop]], np.ndarray]
"""From crops to masks (C, size, size) in [0, 1]."""


def mask(pixels: np.ndarray, landmarks: np.ndarray, read: Read, segment: Read) -> np.ndarray:
    """The mask (H, W) in [0, 1] of the person whose landmarks (K, 2) these are, in a photo (H, W, 3) in [0, 1].

    `segment`, which learnt from photos, says it; where that is in doubt, as on what is no photo, `read`, which learnt from
    rendered heads, and the `expected` silhouette do. Both networks look from near and afar. Pieces that do not hang
    together with the face are somebody else's, or nobody's.
    """
    five = landmarks[:5]
    frame = upright(five, FRAME_SCALE, 0.0, FRAME)
    odds, trust = expected(moved(frame, landmarks), FRAME)
    crops = [cut(pixels, upright(five, scale, turn)) for scale, turn in WIDE]
    own = logit(gathered(read(crops), crops, frame).clip(0.02, 0.98))
    own = np.where(own < 0, trust * own, own)
    size = segmenter.SIZE
    crops = [cut(pixels, upright(five, scale, 0.0, size), size) for scale in SCALES]
    told = logit(gathered(segment(crops), crops, frame).clip(0.005, 0.995))
    chance = expit(told + READER * own + EXPECTED * odds).astype(np.float32)
    whole = together(chance, moved(frame, five).mean(0))
    return resampled(whole, np.linalg.inv(frame), pixels.shape[:2])


def together(chance: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """The chance (F, F) of being the person, without the pieces that lie apart from the one at `centre` (x, y)."""
    pieces, _ = ndimage.label(chance > UNLIKELY)
    x, y = centre.astype(int).clip(0, len(chance) - 1)
    if not pieces[y, x]:
        return chance
    return np.where((pieces == pieces[y, x]) | (chance <= UNLIKELY), chance, 0.0).astype(np.float32)


def gathered(masks: np.ndarray, crops: Sequence[Crop], frame: np.ndarray) -> np.ndarray:
    """The mask (F, F) in [0, 1] of a frame: the mean of what each crop says, less towards its edge; 0 where none looks."""
    size = masks.shape[-1]
    edge = np.minimum(np.arange(size) + 0.5, size - 0.5 - np.arange(size))
    window = (np.minimum(edge[:, None], edge[None]) / (size / 8)).clip(0.02, 1).astype(np.float32)
    total, weight = np.zeros((FRAME, FRAME), np.float32), np.full((FRAME, FRAME), 1e-6, np.float32)
    for mask, crop in zip(masks, crops, strict=True):
        place = frame @ np.linalg.inv(crop.place)
        total += resampled(mask.astype(np.float32) * window, place, (FRAME, FRAME))
        weight += resampled(window, place, (FRAME, FRAME))
    return (total / weight).clip(0, 1)
