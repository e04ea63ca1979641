"""A run's folder: how it is named, who may write in it, and the manifest that says what it holds."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facednerf_core.errors import FacednerfError, InputError, RunInUse
from facednerf_core.files import clear_errors, write_json

if TYPE_CHECKING:
    from facednerf_core.recipe import Recipe

MANIFEST, EVENTS, LOCK = "run.json", "events.jsonl", ".lock"
PORTRAIT, CHECKPOINT, INVERSION = "portrait.safetensors", "checkpoint.safetensors", "inversion.safetensors"
ASIDE = "FACEDNERF_RUNS"  # the folder that run folders are made in, where --out is not given
LONGEST = 60  # characters that a photo's name gives to a run's


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a run folder for this process.

    Raises:
        RunInUse: another one holds it.
        InputError: nothing can be written in it.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK)
    try:
        with clear_errors(folder):
            lock.acquire(timeout=0)
    except Timeout as error:
        raise RunInUse(
            f"the run {folder} is being written by another process; wait for it, or choose another --out."
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def whole_or_none(folder: Path) -> Iterator[None]:
    """Takes away what was made of a run's folder where the block, its beginning, fails."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        yield
    except RunInUse:  # then it is somebody else's
        raise
    except (FacednerfError, OSError):
        with suppress(OSError):
            for name in (PORTRAIT, MANIFEST, LOCK):
                (folder / name).unlink(missing_ok=True)
            for place in missing:
                place.rmdir()
        raise


def free(folder: Path) -> None:
    """Raises InputError where a folder cannot be a new run's: it is a file, holds a run, or holds something else."""
    with clear_errors(folder):
        if not folder.exists():
            near = next(place for place in folder.absolute().parents if place.exists())
            if not near.is_dir():
                raise InputError(f"{folder} cannot be made: {near} is a file, not a folder; choose another --out.")
            return
        if not folder.is_dir():
            raise InputError(f"{folder} is a file, not a folder; choose another --out.")
        holds_a_run, holds_anything = (folder / MANIFEST).exists(), any(folder.iterdir())
    if holds_a_run:
        with locked(folder):
            raise InputError(
                f"{folder} already holds a run; go on with it by `fdn resume {folder}`, or choose another --out."
            )
    if holds_anything:
        raise InputError(f"{folder} is not empty; choose another --out.")


def fresh(recipe: Recipe) -> Path:
    """A new folder's name: photo, a few words of the sentence, a number."""
    words = re.sub(r"[^a-z0-9]+", "-", recipe.prompt.lower()).strip("-")[:40].rstrip("-")
    stem = "-".join(part for part in (Path(recipe.photo).stem[:LONGEST], words or recipe.task) if part)
    base = Path(os.environ.get(ASIDE, "runs"))
    number = 1
    while (base / (name := f"{stem}-{number}")).exists():
        number += 1
    return base / name


def manifest(folder: Path) -> dict[str, Any]:
    """What a run's manifest says.

    Raises:
        InputError: there is none, or it is damaged.
    """
    path = folder / MANIFEST
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(
            f"{folder} is not a run: it has no {MANIFEST}. Runs are made by `fdn edit` and `fdn invert`."
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}.") from error
    if not (isinstance(said, dict) and isinstance(said.get("recipe"), dict) and "status" in said):
        raise InputError(f"{path} is damaged: it names no recipe or status. Start the run again.")
    return said


def update(folder: Path, **changes: Any) -> None:
    """Change some entries of the manifest; None takes one away."""
    said = {**manifest(folder), **changes}
    write_json(folder / MANIFEST, {name: value for name, value in said.items() if value is not None})


def same(folder: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises InputError where versions or weights are not those that the run began with."""
    for what in ("versions", "weights"):
        began = then.get(what, {})
        changed = sorted(name for name in {*began, *now[what]} if began.get(name) != now[what].get(name))
        if changed:
            listed = "; ".join(f"{name}: {began.get(name)} then, {now[what].get(name)} now" for name in changed)
            raise InputError(
                f"{folder} cannot be gone on with, its {what} have changed ({listed}). Put them back, or start a new run."
            )
