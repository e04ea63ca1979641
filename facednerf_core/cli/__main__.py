"""python -m facednerf_core.cli is fdn."""

from __future__ import annotations

from facednerf_core.cli import main

main()
