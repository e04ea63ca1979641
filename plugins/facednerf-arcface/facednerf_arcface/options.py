"""What a user can set."""

from __future__ import annotations

from dataclasses import dataclass

from facednerf_core.errors import InputError

PSP_BOX = (32 / 256, 35 / 256, 220 / 256, 223 / 256)  # pixel2style2pixel's, of FFHQ-aligned faces


@dataclass(frozen=True)
class ArcFaceOptions:
    """Options of arcface."""

    box: tuple[float, float, float, float] = PSP_BOX  # left, top, right, bottom of the face where there are no landmarks

    def __post_init__(self) -> None:
        left, top, right, bottom = self.box
        if not (left < right and top < bottom):
            raise InputError(f"arcface wants a box of left, top, right and bottom fractions, not {self.box}.")
