"""What the starter can do, against its goals: generator, diffusion, judges, edits, real portraits.

    python benchmarks/starter.py                       # everything, hours on a CPU
    python benchmarks/starter.py --quick               # some five minutes on two cores, wide intervals, no portraits
    python benchmarks/starter.py --only generator,edits --json starter.json
    python benchmarks/starter.py --only portraits --photo me.jpg

Heads are held out: no training has seen them. Intervals are 95 %, over heads. The exit code is 1 when a goal is missed; what
cannot be measured, because the judges' weights are not there, counts as missed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from facednerf_core.errors import FacednerfError


def main(given: Sequence[str] | None = None) -> int:
    """Measures, prints, and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few heads and no portraits: some five minutes on two cores")
    parser.add_argument("--only", default="", metavar="NAMES", help="sections, with commas between them")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the measures there too, after every section")
    parser.add_argument("--photo", type=Path, action="append", default=[], help="a real portrait beside the astronaut")
    parser.add_argument("--judges", type=Path, metavar="FOLDER", help="judges of this folder, not the shipped ones")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    chosen = parser.parse_args(given)

    from facednerf_starter.measures import report, sections
    from facednerf_starter.measures.effort import FULL, QUICK
    from facednerf_starter.measures.measure import Measure

    effort = replace(
        QUICK if chosen.quick else FULL, device=chosen.device, photos=tuple(chosen.photo), weights=chosen.judges
    )
    progress = Console(stderr=True)
    measures: list[Measure] = []
    began = time.perf_counter()
    try:
        names = sections.chosen([name.strip() for name in chosen.only.split(",") if name.strip()], effort)
        if not chosen.only and (left := set(sections.ORDER) - set(names)):
            progress.print(f"{', '.join(left)}: left out; measure with --only {','.join(left)}")
        bench = sections.Bench.of(effort)
        for name in names:
            start = time.perf_counter()
            measures += sections.measured(name, bench)
            progress.print(f"{name}: {time.perf_counter() - start:.0f} s")
            if chosen.json:
                report.write(chosen.json, measures, effort, time.perf_counter() - began)
    except FacednerfError as error:
        progress.print(f"[red]{error}[/]")
        return 2
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(report.table(measures, effort))
    lost = report.missed(measures)
    console.print(f"{len(measures) - len(lost)} of {len(measures)} reached in {time.perf_counter() - began:.0f} s.")
    return 1 if lost else 0


if __name__ == "__main__":
    raise SystemExit(main())
