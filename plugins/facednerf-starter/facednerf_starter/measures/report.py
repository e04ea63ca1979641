"""What was measured, for people and for machines."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from facednerf_core.files import write_json
from facednerf_starter.measures.effort import Effort
from facednerf_starter.measures.measure import Goal, Measure, Unit

if TYPE_CHECKING:
    from rich.table import Table


def shown(value: float | None, unit: Unit) -> str:
    """A number with its unit; shares in percent."""
    if value is None:
        return "-"
    return {"%": f"{100 * value:.1f} %", "dB": f"{value:.1f} dB", "s": f"{value:.2f} s", "": f"{value:.2f}"}[unit]


def limit(goal: Goal | None, unit: Unit) -> str:
    """A goal as people write it."""
    return "" if goal is None else f"{'≤' if goal.most else '≥'} {shown(goal.limit, unit)}"


def verdict(measure: Measure) -> str:
    """One word: whether the goal is reached."""
    if measure.value is None:
        return "not measured"
    return "" if measure.goal is None else "reached" if measure.passed else "missed"


def table(measures: Sequence[Measure], effort: Effort) -> Table:
    """All measures, a row each."""
    from rich.table import Table

    made = Table(title=f"The starter, {effort.name}: held-out heads, 95 % intervals over heads")
    for heading in ("section", "measure", "goal", "measured", "interval", "", "over"):
        made.add_column(heading, justify="right" if heading in ("goal", "measured", "interval") else "left", overflow="fold")
    section = ""
    for one in measures:
        told = verdict(one)
        interval = "" if one.low is None else f"{shown(one.low, one.unit)} to {shown(one.high, one.unit)}"
        colour = {"reached": "green", "missed": "red", "not measured": "red"}.get(told, "default")
        first = one.section if one.section != section else ""
        section = one.section
        made.add_row(
            first, one.name, limit(one.goal, one.unit), shown(one.value, one.unit), interval,
            f"[{colour}]{told}[/]", one.about.replace("[", r"\["),
        )  # fmt: skip
    return made


def missed(measures: Sequence[Measure]) -> list[Measure]:
    """Those whose goal is not reached, or that could not be made."""
    return [one for one in measures if not one.passed]


def write(path: Path, measures: Sequence[Measure], effort: Effort, seconds: float) -> None:
    """Writes all measures as JSON, whole or not at all."""
    hardware = torch.cuda.get_device_name() if torch.cuda.is_available() and effort.device != "cpu" else platform.machine()
    write_json(
        path,
        {
            "benchmark": "starter",
            "effort": effort.name,
            "torch": torch.__version__,
            "hardware": hardware,
            "threads": torch.get_num_threads(),
            "seconds": round(seconds, 1),
            "missed": len(missed(measures)),
            "measures": [one.as_dict() for one in measures],
        },
    )
