"""Bodies by the name that a user gives them, and body files of our own: safetensors, so that nothing is derived twice."""

from __future__ import annotations

import hashlib
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from facednerf_core.errors import InputError
from facednerf_core.files import whole_file
from facednerf_core.weights import cache_folder, digest
from facednerf_eva3d.body import LinearBody
from facednerf_eva3d.smpl import smpl_body
from facednerf_eva3d.synthetic import synthetic_body

SYNTHETIC = "synthetic"
SUFFIXES = (".pkl", ".npz", ".safetensors")


def open_body(name: str, template_sdf: str | None = None) -> LinearBody:
    """The body that a name means: 'synthetic', or the path of a .pkl, .npz (SMPL) or .safetensors (ours) file.

    What is derived from an SMPL file is kept in the cache folder, under the content of the files that it came from.

    Raises:
        InputError: there is no such file, or it cannot be read.
    """
    if name == SYNTHETIC:
        return synthetic_body()
    path = Path(name).expanduser()
    if path.suffix not in SUFFIXES or not path.is_file():
        raise InputError(
            f"no body {name!r}: give {SYNTHETIC!r}, or the path of an SMPL file (.pkl, .npz) or of a body file "
            f"(.safetensors)."
        )
    if path.suffix == ".safetensors":
        return load_body(path)
    volume = None if template_sdf is None else Path(template_sdf).expanduser()
    if volume is not None and not volume.is_file():
        raise InputError(f"no file '{volume}' of the template's distances.")
    sources = "/".join(digest(file) for file in (path, volume) if file is not None)
    kept = cache_folder() / "bodies" / f"{hashlib.sha256(sources.encode()).hexdigest()}.safetensors"
    if not kept.exists():
        body = smpl_body(path, volume)
        kept.parent.mkdir(parents=True, exist_ok=True)
        save_body(body, kept)
        return body
    return load_body(kept)


def save_body(body: LinearBody, path: Path) -> None:
    """Writes a body file, whole or not at all."""
    with whole_file(path) as part:
        save_file({name: value.contiguous() for name, value in body.tensors().items()}, part)


def load_body(path: Path) -> LinearBody:
    """Reads a body file.

    Raises:
        InputError: it is not one.
    """
    try:
        return LinearBody(**load_file(path))
    except (SafetensorError, OSError, TypeError) as error:
        raise InputError(f"'{path}' is no body file: {error}") from error
