"""Square crops of a photo as the network reads them, and the matrices between their pixels and the photo's."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from facednerf_core.framing import resampled, similarity
from facednerf_starter.detector.network import CROP_SIZE

UPRIGHT = ((0.392, 0.449), (0.608, 0.449), (0.5, 0.589), (0.408, 0.681), (0.592, 0.681))
"""The five landmarks of the world's mean frontal head, in its frame."""


@dataclass(frozen=True)
class Crop:
    """An upright or turned square of a photo, and the 3 x 3 matrix from the photo's pixels to its own."""

    place: np.ndarray
    image: np.ndarray  # (size, size, 3) in [0, 1]


def cut(pixels: np.ndarray, place: np.ndarray, size: int = CROP_SIZE) -> Crop:
    """The crop that a matrix makes of a photo (H, W, 3) in [0, 1]; beyond its edge, the photo is mirrored."""
    return Crop(place, resampled(pixels, place, (size, size)))


def square(centre: tuple[float, float], side: float, lean: float) -> np.ndarray:
    """The matrix from a photo's pixels to a square around a centre, turned back by `lean`."""
    zoom = CROP_SIZE / side
    cos, sin = zoom * math.cos(lean), zoom * math.sin(lean)
    turn = np.array([[cos, sin], [-sin, cos]])
    shift = CROP_SIZE / 2 - turn @ np.array(centre)
    return np.vstack([np.column_stack([turn, shift]), [0, 0, 1]])


def upright(five: np.ndarray, scale: float, turn: float, size: int = CROP_SIZE) -> np.ndarray:
    """The matrix that brings landmarks (5, 2) to the world's framing, scaled and turned about the frame's middle."""
    base = similarity(five, np.array(UPRIGHT) * size)
    half = size / 2
    cos, sin = scale * math.cos(turn), scale * math.sin(turn)
    again = np.array([[cos, -sin, half - cos * half + sin * half], [sin, cos, half - sin * half - cos * half], [0, 0, 1]])
    return again @ base
