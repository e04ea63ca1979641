"""What a user can set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from facednerf_core.errors import InputError

PSP_BOX = (32 / 256, 35 / 256, 220 / 256, 223 / 256)  # pixel2style2pixel's, of FFHQ-aligned faces


@dataclass(frozen=True)
class ArcFaceOptions:
    """Options of arcface."""

    box: tuple[float, float, float, float] = PSP_BOX  # left, top, right, bottom of the face where no landmarks are used
    alignment: Literal["auto", "landmarks", "crop"] = "auto"  # auto: as the network was trained to see faces
    fit: Literal["picture", "template"] = "picture"  # whose points are moved onto whose; insightface's: template
    antialias: bool = True  # false: large pictures are sampled as insightface does, with aliasing; landmarks only

    def __post_init__(self) -> None:
        left, top, right, bottom = self.box
        if not (left < right and top < bottom):
            raise InputError(f"arcface wants a box of left, top, right and bottom fractions, not {self.box}.")


@dataclass(frozen=True)
class ScrfdOptions:
    """Options of insightface's detector."""

    models: str = "~/.insightface/models/buffalo_l"  # the folder of the model pack; nothing is ever downloaded
    threshold: float = 0.5  # least score of a face, 0 to 1
    sizes: tuple[int, ...] = (640, 256)  # sides, in pixels, of the squares in which it looks, until a face is found

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise InputError(f"the detector insightface wants a threshold between 0 and 1, not {self.threshold}.")
        if not self.sizes or any(size <= 0 or size % 32 for size in self.sizes):
            raise InputError(f"the detector insightface wants sizes that are multiples of 32, not {self.sizes}.")
