"""How fdn prints: tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

PIPED_WIDTH = 160  # columns where the output is no terminal


def console() -> Console:
    """The rich console on stdout; plain and wide where it is no terminal."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPED_WIDTH, soft_wrap=False)


def print_json(data: Any) -> None:
    """Prints plain data as JSON, and nothing else, on stdout."""
    print(json.dumps(data, indent=2, default=str))


def print_failure(error: str, run: Path | None = None) -> None:
    """Where the command line asks for JSON, prints that it failed as one object on stdout; `run` is the run's folder."""
    if "--json" in sys.argv[1:]:
        print_json({"status": "failed", "error": error, "run": run})


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> None:
    """Prints a table; cells are folded, never cut, and may hold rich markup."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in {"name", "kind", "state", "size"})
    for row in rows:
        table.add_row(*row)
    console().print(table)


def escaped(text: str) -> str:
    """Text in which brackets are no markup."""
    from rich.markup import escape

    return escape(text)
