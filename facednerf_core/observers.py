"""Who is told of a run: a live progress display, plain lines, a log file. Each is called with every event."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from facednerf_core.events import Event, Failed, Finished, Noted, Observer, Started, Stepped
from facednerf_core.files import clear_errors, write_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

SHOWN = 5  # losses beside the bar


class Pace:
    """How long a run will still take, from how long the steps of each stage took."""

    def __init__(self) -> None:
        self._totals: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._seconds: dict[str, float] = {}  # of one step, smoothed

    def __call__(self, event: Event) -> None:
        if isinstance(event, Started):
            self._totals, self._done = dict(event.stages), done_before(event)
        elif isinstance(event, Stepped):
            self._totals[event.stage] = event.total
            self._done[event.stage] = event.index + 1
            known = self._seconds.get(event.stage, event.seconds)
            self._seconds[event.stage] = 0.8 * known + 0.2 * event.seconds

    def left(self) -> float | None:
        """Seconds that the steps to come will take; None before the first step. A stage yet to come goes as the last."""
        if not self._seconds:
            return None
        usual = list(self._seconds.values())[-1]
        return sum(
            max(0, total - self._done.get(name, 0)) * self._seconds.get(name, usual) for name, total in self._totals.items()
        )


def done_before(event: Started) -> dict[str, int]:
    """The steps of each stage that were done before this start: none, or those before where the run goes on."""
    if event.resumed_at is None:
        return dict.fromkeys(event.stages, 0)
    stage, index = event.resumed_at
    order = list(event.stages)
    here = order.index(stage) if stage in order else len(order)
    return {
        name: total if place < here else index if place == here else 0
        for place, (name, total) in enumerate(event.stages.items())
    }


def duration(seconds: float) -> str:
    """Seconds as people write them: 8 s, 1:05 min, 2:03:10 h."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d} h"


def losses(values: Mapping[str, float]) -> str:
    """The largest losses and those that are not finite, in their own order: 'reconstruction 0.412  identity 0.103'."""
    largest = sorted(values, key=lambda name: -abs(values[name]) if math.isfinite(values[name]) else -math.inf)[:SHOWN]
    return "  ".join(f"{name} {values[name]:.3g}" for name in values if name in largest)


class Bars:
    """A live display on a terminal: a bar per stage, its losses, and the time left."""

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console

        self.console = console or Console(stderr=True)
        self._pace = Pace()
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, event: Event) -> None:
        self._pace(event)
        if isinstance(event, Started):
            self._start(event)
        elif isinstance(event, Stepped):
            self._step(event)
        elif isinstance(event, Noted):
            style = "yellow" if event.level == "warning" else "cyan"
            self.console.print(f"[{style}]{event.level}[/] ", end="")
            self.console.print(event.message, markup=False, highlight=False)
        elif isinstance(event, Finished | Failed):
            self.close()

    def close(self) -> None:
        """Leaves the bars as they stand."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _start(self, event: Started) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.table import Column

        self.close()
        self._progress = Progress(
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}", style="cyan", table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[losses]}", style="dim", table_column=Column(no_wrap=True, overflow="ellipsis")),
            console=self.console,
        )
        self._tasks = {}
        done = done_before(event)
        for name, total in event.stages.items():
            self._tasks[name] = self._progress.add_task(name, total=total, completed=done[name], left="", losses="")
        self._progress.start()

    def _step(self, event: Stepped) -> None:
        if self._progress is None:
            return
        if event.stage not in self._tasks:
            self._tasks[event.stage] = self._progress.add_task(event.stage, total=event.total, left="", losses="")
        last = event.index + 1 >= event.total
        left = self._pace.left()
        self._progress.update(
            self._tasks[event.stage],
            completed=event.index + 1,
            left="" if last or left is None else f"{duration(left)} left",
            losses=losses(event.losses),
        )


class Lines:
    """Plain lines for files and pipes: one when a stage begins and ends, then every tenth of it or every few seconds."""

    def __init__(self, stream: TextIO | None = None, every: float = 5.0) -> None:
        self._stream = stream or sys.stderr
        self._every = every  # seconds
        self._pace = Pace()
        self._said = -math.inf
        self._tenth = (-1, "")

    def __call__(self, event: Event) -> None:
        self._pace(event)
        if isinstance(event, Started):
            plan = ", ".join(f"{name} {total}" for name, total in event.stages.items())
            again = "" if event.resumed_at is None else f", from {event.resumed_at[0]} step {event.resumed_at[1]}"
            self._say(f"{event.run}: steps {plan}{again}")
        elif isinstance(event, Stepped):
            self._step(event)
        elif isinstance(event, Noted):
            self._say(f"{event.level}: {event.message}")
        elif isinstance(event, Finished):
            self._say(f"finished in {duration(event.seconds)}")
        elif isinstance(event, Failed):
            where = f" in {event.stage}, step {event.index}" if event.stage else ""
            self._say(f"stopped{where}: {event.reason}")

    def _step(self, event: Stepped) -> None:
        done, now = event.index + 1, time.monotonic()
        tenth = (10 * done // max(1, event.total), event.stage)
        if tenth == self._tenth and done < event.total and now - self._said < self._every:
            return
        self._tenth, self._said = tenth, now
        left = self._pace.left()
        ahead = "" if left is None else f"  {duration(left)} left"
        self._say(f"{event.stage} {done}/{event.total}{ahead}  {losses(event.losses)}")

    def _say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class Silent:
    """Says nothing: for scripts that read JSON."""

    def __call__(self, event: Event) -> None:
        return


class Log:
    """`events.jsonl`: one line of JSON for each event, as it happens; numbers that are not finite are written as null.

    When a run goes on, what was logged after its checkpoint is dropped: `Started.resumed_at` is the first step still to do.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, event: Event) -> None:
        if isinstance(event, Started) and self.path.exists():
            kept = _until(self.path.read_text(encoding="utf-8"), event)
            write_text(self.path, kept)
        line = json.dumps(record(event), ensure_ascii=False, allow_nan=False)
        with clear_errors(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def record(event: Event) -> dict[str, Any]:
    """An event as plain data for JSON, under its name and the time; the loop's state is left out."""
    named = {item.name: _plain(getattr(event, item.name)) for item in fields(event) if item.name != "state"}
    return {"event": type(event).__name__, "time": round(time.time(), 3), **named}


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
    return value if isinstance(value, str | int | bool | None) else str(value)


def _until(text: str, event: Started) -> str:
    """The log's lines up to where the run goes on; all dropped if it begins anew, as is a line that was cut short."""
    if event.resumed_at is None:
        return ""
    stage, first = event.resumed_at
    order = list(event.stages)
    kept = []
    for line in text.splitlines():
        try:
            logged = json.loads(line)
        except json.JSONDecodeError:
            break
        if logged["event"] == "Stepped":
            place = order.index(logged["stage"]) if logged["stage"] in order else len(order)
            if (place, logged["index"]) >= (order.index(stage) if stage in order else len(order), first):
                break
        kept.append(line + "\n")
    return "".join(kept)


def watcher(json_only: bool = False, stream: TextIO | None = None) -> Observer:
    """What shows a run: nothing for scripts, bars on a terminal, plain lines elsewhere. Both speak on standard error."""
    if json_only:
        return Silent()
    stream = stream or sys.stderr
    if stream.isatty():
        from rich.console import Console

        return Bars(Console(file=stream))
    return Lines(stream)
