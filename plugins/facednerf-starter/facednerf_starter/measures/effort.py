"""How much a benchmark looks at: minutes for every day, hours for a release."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Effort:
    """Numbers of heads, captions and sentences, and where it runs."""

    name: str
    inverted: int  # heads that are inverted
    between: int  # pairs of latents between which faces are looked for
    captions: int  # of each attribute and wording
    denoising: int  # steps of a sample
    judged: int  # pictures of the world, and as many of the generator
    people: int  # people seen in two styles
    edited: int  # heads that are edited
    sentences: int  # for each of them
    distractors: int
    portrait_sentences: int
    portrayed: bool  # whether real portraits are looked at where none is given
    disturbed: bool  # whether portraits are looked at flipped, rolled, small and dark too
    device: str = "auto"
    steps: Mapping[str, int] = field(default_factory=dict)  # of the product's stages; empty: its defaults
    photos: tuple[Path, ...] = ()  # beside the astronaut
    weights: Path | None = None  # folder of the judges' files; None: the shipped one


FULL = Effort("full", 24, 64, 6, 30, 400, 200, 12, 8, 100, 5, True, True)
QUICK = Effort("quick", 1, 8, 1, 20, 8, 8, 1, 1, 100, 1, False, False)
"""Its intervals are wide, and say so. Real portraits, which are inverted once more, it leaves to `--only portraits`."""
