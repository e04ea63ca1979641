"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facednerf_core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

PART = ".part"  # stands in the name of a file that is being written

_REASONS = {
    errno.ENOSPC: "the disk is full. Free some space, or choose another folder with --out",
    errno.EDQUOT: "your disk quota is used up. Free some space, or choose another folder with --out",
    errno.EACCES: "you may not write there. Choose another folder with --out",
    errno.EPERM: "you may not write there. Choose another folder with --out",
    errno.EROFS: "it is on a read-only disk. Choose another folder with --out",
    errno.ENOTDIR: "part of that path is a file, not a folder. Choose another folder with --out",
    errno.EEXIST: "part of that path is a file, not a folder. Choose another folder with --out",
    errno.EISDIR: "it is a folder. Move the folder away, or choose another place with --out",
    errno.ENOENT: "its folder is gone. Choose another folder with --out",
    errno.ENAMETOOLONG: "the name is too long. Choose a shorter one with --out",
}


@contextmanager
def clear_errors(path: Path) -> Iterator[None]:
    """Turns what the system says of a file that cannot be written into what the user can do about it.

    Raises:
        InputError: the disk is full, the folder is not writable, and the like.
    """
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0)
        if reason is None:
            raise
        raise InputError(f"cannot write {path}: {reason}.") from error


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes `path` when the block ends well, and vanishes when it does not.

    It lies in the same folder and has the same suffix. Left-overs of a killed process are what `sweep` removes.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    part = path.with_name(f".{path.stem}.{os.getpid()}{PART}{path.suffix}")
    try:
        with clear_errors(path):
            yield part
            with part.open("rb") as written:
                os.fsync(written.fileno())
            part.replace(path)
    finally:
        part.unlink(missing_ok=True) if part.parent.is_dir() else None


def write_text(path: Path, text: str) -> None:
    """Writes a text file in UTF-8, whole or not at all."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, data: Any) -> None:
    """Writes plain data as JSON for people to read, whole or not at all; numbers that are not finite are refused."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Writes named tensors as safetensors, whole or not at all."""
    from safetensors.torch import save

    blob = save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, dict(metadata or {}) or None)
    with whole_file(path) as part:
        part.write_bytes(blob)


def writable_folder(path: Path) -> Path:
    """The folder, made where it is missing, in which something can be written: tried now, before the work begins.

    Raises:
        InputError: it is a file, cannot be made, or cannot be written.
    """
    with clear_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        trial = path / f".{os.getpid()}{PART}"
        try:
            trial.write_bytes(b"\0" * 4096)
        finally:
            trial.unlink(missing_ok=True)
    return path


def sweep(folder: Path) -> list[Path]:
    """Removes what a killed process left half-written in a folder; only whoever holds the folder's lock may call it."""
    left = [path for path in folder.glob(f".*{PART}*") if path.is_file()]
    for path in left:
        path.unlink(missing_ok=True)
    return left
