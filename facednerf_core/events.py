"""What a run tells its observers. Progress bar, log and viewer are equals: each is called with every event."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from facednerf_core.loop import State


@dataclass(frozen=True)
class Started:
    """A run begins, or goes on: its folder, and the stages it has, with their steps."""

    run: Path
    stages: Mapping[str, int]
    resumed_at: tuple[str, int] | None = None


@dataclass(frozen=True)
class Stepped:
    """One step of a stage is done."""

    stage: str
    index: int
    total: int
    losses: Mapping[str, float]  # weighted value of each term, summed over subjects
    metrics: Mapping[str, float]
    seconds: float
    state: State


@dataclass(frozen=True)
class Noted:
    """Something that the user should know: a default that does not fit, a second face, an unknown word."""

    message: str
    level: str = "note"  # note or warning


@dataclass(frozen=True)
class Saved:
    """A checkpoint or a result was written."""

    path: Path
    what: str


@dataclass(frozen=True)
class Finished:
    """The run is complete."""

    run: Path
    seconds: float
    files: Mapping[str, Path]
    metrics: Mapping[str, Any]


@dataclass(frozen=True)
class Failed:
    """The run stopped; what was saved can be resumed."""

    run: Path
    reason: str
    stage: str = ""
    index: int = -1


Event = Started | Stepped | Noted | Saved | Finished | Failed
Observer = Callable[[Event], None]
