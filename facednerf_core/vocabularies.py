"""Closed vocabularies: the words that a text encoder has learnt, where these are few."""

from __future__ import annotations

import re
from collections.abc import Set
from pathlib import Path

FILE = "vocabulary.txt"  # the words, one a line
_WORD = re.compile(r"'(?:s|t|re|ve|m|ll|d)\b|[^\W\d_]+")  # CLIP's tokenizer takes contractions as words


def read(folder: Path) -> frozenset[str]:
    """The words of a folder that states them; empty for an open vocabulary."""
    path = folder / FILE
    return frozenset(path.read_text(encoding="utf-8").split()) if path.exists() else frozenset()


def unknown(text: str, vocabulary: Set[str]) -> tuple[str, ...]:
    """The words of a text that a vocabulary lacks, in lower case and in their order, each once; what a contraction adds to
    a word ('s, 't) is never unknown. None for an empty vocabulary, which is an open one."""
    if not vocabulary:
        return ()
    words = dict.fromkeys(_WORD.findall(text.lower()))
    return tuple(word for word in words if word not in vocabulary and not word.startswith("'"))
