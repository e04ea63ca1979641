"""Axes of W that weights bring along: directions in each of which one thing changes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from facednerf_core import statedicts
from facednerf_core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

ROLE = "axes"  # of the file among those of a weights card, and the name of its tensor
TOLERANCE = 0.01  # of the rows' lengths and angles: half precision stays well within it


def read(path: Path, w_dim: int) -> Tensor:
    """The axes in a safetensors file: rows (K, w_dim) made exactly orthonormal again.

    Raises:
        InputError: the file has no such tensor, or its rows are not orthonormal, nearly.
    """
    tensors = statedicts.read(path)
    axes = tensors.get(ROLE)
    if axes is None or axes.ndim != 2 or axes.shape[1] != w_dim or len(axes) > w_dim:
        shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in tensors.items()) or "nothing"
        raise InputError(f"{path} should hold '{ROLE}', at most {w_dim} rows of {w_dim} numbers; it holds {shapes}.")
    left, lengths, right = torch.linalg.svd(axes.double(), full_matrices=False)
    if not torch.allclose(lengths, torch.ones_like(lengths), atol=TOLERANCE):
        raise InputError(f"the axes in {path} are not orthonormal rows.")
    return (left @ right).float()
