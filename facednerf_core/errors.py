"""Errors that a user can mend: each says what was asked, what exists, and what to do next."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


class FacednerfError(Exception):
    """A problem with the input or the installation; `fdn` prints it without a traceback and exits with code 2."""

    run: Path | None = None  # the run that it stopped, if that had begun


class InputError(FacednerfError):
    """A photo, sentence, file, folder or number that cannot be used as given."""


class UnknownName(FacednerfError):
    """A name that no installed plugin, weights card or recipe carries."""

    def __init__(self, kind: str, asked: str, known: Iterable[str], hint: str = "") -> None:
        known = sorted(known)
        message = f"no {kind} named {asked!r}; installed: {', '.join(known) or 'none'}."
        close = get_close_matches(asked, known, n=1, cutoff=0.5)
        if close:
            message += f" Did you mean {close[0]!r}?"
        super().__init__(f"{message} {hint}".rstrip())


class DomainMismatch(FacednerfError):
    """A plugin that the user named judges another domain than the generator draws."""


class MissingWeights(FacednerfError):
    """Weights that are needed and are neither shipped nor in the cache."""


class Unsupported(FacednerfError):
    """Something that this plugin, recipe or run cannot do, by its nature."""


class Diverged(FacednerfError):
    """A term gave a value or gradient that is not finite; the last good checkpoint is kept."""


class RunInUse(FacednerfError):
    """Another process is writing this run folder."""
