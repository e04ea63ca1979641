"""The cameras around a body, whose pictures are taller than wide."""

from __future__ import annotations

from dataclasses import dataclass

from facednerf_core.views import Orbit


@dataclass(frozen=True)
class BodyOrbit(Orbit):
    """By default the official demos' camera: 2500 pixels of focal length in a picture of 512 x 256, about 11 m away."""

    radius: float = 11.0
    pivot: tuple[float, float, float] = (0.0, -0.28, 0.0)  # the middle of a standing body
    focal: float = 2500 / 256
    yaw: float = 0.8
    pitch: float = 0.2
    aspect: float = 2.0
