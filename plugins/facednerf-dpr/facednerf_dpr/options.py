"""What a user can set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class DprOptions:
    """Options of dpr."""

    statistics: Literal["trained", "picture"] = "trained"  # of batch normalisation; picture: its own, as FaceDNeRF has it
