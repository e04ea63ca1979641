"""fdn, the command line: parse, call, print. One file per command; what they do lies in the modules they call."""

from __future__ import annotations

import os
import sys

SPINS = "1500"  # docs/tutorial.md says what was measured


def _wait_shortly() -> None:
    """Lets GNU OpenMP's threads, which torch computes with, soon give a busy core away while they wait for one another.

    Read when torch is imported; what the user has set stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def main() -> None:
    """Runs fdn. What a user can mend is one message on stderr, with --json one object on stdout too, and exit code 2;
    Ctrl-C is exit code 130."""
    _wait_shortly()
    try:
        from facednerf_core.cli.app import app
        from facednerf_core.cli.console import print_failure
        from facednerf_core.errors import FacednerfError

        try:
            app(prog_name="fdn")
        except FacednerfError as error:
            print_failure(str(error), error.run)
            print(f"fdn: {error}", file=sys.stderr)
            sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
