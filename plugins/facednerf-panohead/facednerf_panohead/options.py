"""What a user can set: `--option panohead.fine=48`, or [options.panohead] in TOML."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from facednerf_core.errors import InputError


@dataclass(frozen=True)
class PanoHeadOptions:
    """How densely PanoHead is looked at, and what is taken away before.

    More samples remove grain from depth and fine hair, and cost time in proportion.
    """

    rays: int | None = None  # per side of the picture before super-resolution; None: as trained
    coarse: int | None = None  # samples of a ray, spread evenly; None: as trained
    fine: int | None = None  # further samples where something is; None: as trained, 0 for none
    faint: float = 1e-4  # samples with less of their ray have no colour or gradient, which saves most work; 0: as published
    crop: float | Literal["off"] | None = None  # empty margin along x and z, world units; None: as trained, or 0.1
    cull: float | None = None  # what is fainter than this, [0, 1], is taken away; None: nothing
    atlas: bool = True  # an edit begins along the direction that the sentence has among the heads of the weights' atlas
    rules: Literal["view", "official"] = "view"  # official: depth is clamped over the whole batch, as the original does

    def __post_init__(self) -> None:
        if self.rays is not None and self.rays < 1:
            raise InputError(f"panohead wants at least 1 ray per side, not {self.rays}.")
        if self.coarse is not None and self.coarse < 4:
            raise InputError(f"panohead wants at least 4 coarse samples, not {self.coarse}.")
        if self.fine is not None and self.fine < 0:
            raise InputError(f"panohead cannot take {self.fine} fine samples; 0 means none.")
        if not 0 <= self.faint < 1:
            raise InputError(f"panohead wants faint to be a share of a ray, at least 0 and below 1, not {self.faint}.")
        if self.cull is not None and not 0 <= self.cull <= 1:
            raise InputError(f"panohead culls what has an opacity below a number from 0 to 1, not {self.cull}.")
