"""The user's own SMPL file (Loper et al. 2015) as a body. SMPL has a licence of its own, and none of it is shipped here."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from facednerf_core.errors import InputError
from facednerf_eva3d.body import JOINTS, SHAPES, LinearBody
from facednerf_eva3d.meshsdf import signed_distances
from facednerf_eva3d.pickled import plain, read_pickle

NAMES = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "f")
NO_PARENT = 2**32 - 1  # how the files write that the root has none


class Arrays(NamedTuple):
    """What an SMPL file says, as float64 and int64."""

    template: NDArray[np.float64]  # (V, 3)
    shapedirs: NDArray[np.float64]  # (V, 3, 10)
    posedirs: NDArray[np.float64]  # (207, 3 V)
    joint_regressor: NDArray[np.float64]  # (24, V)
    weights: NDArray[np.float64]  # (V, 24)
    parents: NDArray[np.int64]  # (24,)
    faces: NDArray[np.int64]  # (F, 3)


def smpl_body(path: Path, template_sdf: Path | None = None, *, resolution: int = 128) -> LinearBody:
    """The body of an SMPL file, float32, on the CPU.

    Args:
        path: a .pkl file as SMPL's authors give it, or .npz with arrays of the same names. Nothing in it is executed.
        template_sdf: a .npy file of distances (X, Y, Z) to use; None derives them from the mesh, half a minute's work.
        resolution: of the derived distances.

    Raises:
        InputError: a file cannot be read, or is not what it should be.
    """
    arrays = read_smpl(path)
    volume = _volume(template_sdf) if template_sdf else signed_distances(arrays.template, arrays.faces, resolution)
    tensors = {
        name: torch.from_numpy(np.ascontiguousarray(value, np.float32))
        for name, value in arrays._asdict().items()
        if name not in ("parents", "faces")
    }
    return LinearBody(**tensors, parents=torch.from_numpy(arrays.parents.copy()), template_sdf=torch.from_numpy(volume))


def read_smpl(path: Path) -> Arrays:
    """The arrays of an SMPL file, as far as EVA3D needs them: ten shapes of however many, and 24 joints.

    Raises:
        InputError: the file cannot be read, is damaged, or is no SMPL model of 24 joints.
    """
    path = Path(path)
    found = _zipped(path) if path.suffix == ".npz" else {k: v for k, v in read_pickle(path).items() if k in NAMES}
    missing = [name for name in NAMES if name not in found]
    if missing:
        raise InputError(f"'{path}' is no SMPL file: it lacks {', '.join(missing)}.")
    try:
        arrays = {name: plain(value) for name, value in found.items()}
    except InputError as error:
        raise InputError(f"'{path}' cannot be read: {error}") from error
    count = len(arrays["v_template"])
    for name, shape in {
        "v_template": (count, 3),
        "posedirs": (count, 3, 9 * (JOINTS - 1)),
        "J_regressor": (JOINTS, count),
        "weights": (count, JOINTS),
        "kintree_table": (2, JOINTS),
    }.items():
        if arrays[name].shape != shape:
            raise InputError(
                f"'{path}' is no SMPL model of {JOINTS} joints: {name} is {arrays[name].shape}, not {shape}. "
                f"SMPL-H and SMPL-X have other joints; EVA3D wants SMPL itself."
            )
    shapes = arrays["shapedirs"]
    if shapes.ndim != 3 or shapes.shape[:2] != (count, 3) or shapes.shape[2] < SHAPES:
        raise InputError(f"'{path}' has shapedirs {shapes.shape}; ({count}, 3, {SHAPES} or more) are wanted.")
    return Arrays(
        arrays["v_template"].astype(np.float64),
        shapes[:, :, :SHAPES].astype(np.float64),
        arrays["posedirs"].reshape(3 * count, -1).T.astype(np.float64),
        arrays["J_regressor"].astype(np.float64),
        arrays["weights"].astype(np.float64),
        _parents(arrays["kintree_table"], path),
        arrays["f"].astype(np.int64),
    )


def _parents(tree: NDArray[Any], path: Path) -> NDArray[np.int64]:
    """(24,) of the table's two rows, the parents and their children."""
    above, joints = tree.astype(np.int64)
    if sorted(joints.tolist()) != list(range(JOINTS)):
        raise InputError(f"'{path}' numbers its joints {joints.tolist()}, not 0 to {JOINTS - 1}.")
    parents = np.empty(JOINTS, np.int64)
    parents[joints] = np.where((above < 0) | (above == NO_PARENT), -1, above)
    return parents


def _zipped(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in NAMES if name in file}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"'{path}' cannot be read as plain arrays: {error}") from error


def _volume(path: Path) -> NDArray[np.float32]:
    try:
        volume = np.load(path, allow_pickle=False)
        if volume.ndim != 3 or not np.isfinite(volume).all():
            raise InputError(f"'{path}' holds {volume.shape} numbers; finite distances (X, Y, Z) are wanted.")
        return np.ascontiguousarray(volume, np.float32)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"'{path}' is no .npy file of distances: {error}") from error
