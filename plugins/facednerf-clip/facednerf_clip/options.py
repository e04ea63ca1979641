"""What a user can set: `--option clip.crops=8`, or [options.clip] in TOML."""

from __future__ import annotations

from dataclasses import dataclass

from facednerf_core.errors import InputError


@dataclass(frozen=True)
class ClipOptions:
    """Options of the guidance by a CLIP."""

    directional: bool = True  # by the difference from the source prompt and its picture, where there is one
    floor: float = 0.3  # how far a picture's unit vector must move before only the direction counts
    crops: int = 4  # of each view in each step
    smallest: float = 0.8  # side of the smallest crop, as a share of the picture's shorter side
    mirror: bool = True  # half of the crops are mirrored
    noise: float = 0.03  # deviation of the noise on a crop, where black is -1 and white 1

    def __post_init__(self) -> None:
        if self.floor <= 0:
            raise InputError(f"clip wants a floor above 0, not {self.floor}.")
        if self.crops < 1:
            raise InputError(f"clip wants crops of 1 or more, not {self.crops}.")
        if not 0 < self.smallest <= 1:
            raise InputError(f"clip wants 0 < smallest <= 1, not {self.smallest}.")
        if self.noise < 0:
            raise InputError(f"clip wants a noise of 0 or more, not {self.noise}.")
