"""Where a person is expected around a face, before one looks: a skull about the landmarks, a neck, sloping shoulders."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from facednerf_starter.world.landmarks import LANDMARKS

HAIR = 0.2  # how far, in distances between the eyes, a head may reach beyond its skull before it is thought unlikely
SLOPE = 0.5  # of the shoulders
NECK = 0.9  # half its width, in distances between the eyes
AGAINST, FOR = 1.0, 3.0  # strength of the expectation, in log-odds: against what is beside, for what is body
TRUST = 0.5  # in the network's mask below the chin, where it takes dark clothes for the background


def expected(landmarks: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds (size, size) of the person around an upright face, and how much a network's own log-odds count beside them.

    `landmarks` (K, 2) are pixels of that square, in the order of the world's. Hair goes where it likes, so beside the head
    the expectation is mild; below the chin the network is trusted less.
    """
    at = dict(zip(LANDMARKS, landmarks, strict=True))
    unit = float(np.linalg.norm(at["left_eye"] + at["right_eye"] - at["left_mouth_corner"] - at["right_mouth_corner"])) / 2
    unit *= 0.93  # the eyes' distance on a frontal face, which turning the head does not shorten
    beyond = ndimage.distance_transform_edt(~_skull(at, size)) / unit
    head = -AGAINST * ((beyond - HAIR) / 0.5).clip(0, 1)
    chin = at["chin"][1]
    middle = (at["chin"][0] + (at["left_ear"][0] + at["right_ear"][0]) / 2) / 2
    y, x = np.mgrid[:size, :size] + 0.5
    shoulder = chin + 0.05 * unit + SLOPE * np.maximum(np.abs(x - middle) - NECK * unit, 0)
    body = FOR * ((y - shoulder) / (0.2 * unit)).clip(-AGAINST / FOR, 1)
    share = ((y - chin + 0.5 * unit) / (0.6 * unit)).clip(0, 1)
    return head + (body - head) * share, 1 - (1 - TRUST) * share


def _skull(at: dict[str, np.ndarray], size: int) -> np.ndarray:
    """The hull (size, size), boolean, of the landmarks and of the bare skull that they imply."""
    rise = at["forehead"] - at["nose_bridge"]
    crown = at["nose_bridge"] + 1.62 * rise
    left, right = at["left_ear"], at["right_ear"]
    half = (right - left) / 2
    corners = [at["chin"], at["left_jaw"], left, left + 1.15 * rise, crown - 0.55 * half]
    corners += [crown + 0.55 * half, right + 1.15 * rise, right, at["right_jaw"]]
    outline = Image.new("1", (size, size))
    ImageDraw.Draw(outline).polygon([(float(x), float(y)) for x, y in corners], fill=1)
    return np.asarray(outline)
