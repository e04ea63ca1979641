"""Official tensors: what they say of the network that holds them, and whether they are all there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from facednerf_core.errors import InputError
from facednerf_eva3d.parts import PARTS

_LAYER = re.compile(r"renderer\.vox_list\.(\d+)\.network\.pts_linears\.(\d+)\.weight")


def sizes(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Arguments of `Eva3dNetwork` that can be read from the tensors; what a missing tensor would say is left out."""
    found: dict[str, Any] = {}
    style = tensors.get("style.0.weight")
    if style is not None and style.ndim == 2:
        found["style_dim"] = style.shape[0]
    first = tensors.get("renderer.vox_list.0.network.pts_linears.0.weight")
    if first is not None and first.ndim == 2:
        found["width"] = first.shape[0]
    layers = _indices(tensors, re.compile(r"style\.(\d+)\.weight"))
    if layers:
        found["n_mlp"] = layers
    matches = [match for match in map(_LAYER.fullmatch, tensors) if match]
    counts = [sum(int(match[1]) == index for match in matches) for index in range(len(PARTS))]
    if all(counts):
        found["depths"] = counts
    return found


def checked(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, once they are known to be those of the network.

    The original's demo leaves aside what does not fit; here every name and shape must.

    Raises:
        InputError: tensors are missing, superfluous or of another shape.
    """
    wrong = [f"{name} is missing" for name in wanted if name not in tensors]
    wrong += [f"{name} is unknown" for name in tensors if name not in wanted]
    wrong += [
        f"{name} is {tuple(tensors[name].shape)} instead of {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in tensors and tensors[name].shape != value.shape
    ]
    if wrong:
        more = f", and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise InputError(
            f"these are not the tensors of this EVA3D generator: {'; '.join(wrong[:5])}{more}. A checkpoint of the AIST "
            f"release wants is_aist; an official file must be read from its 'g_ema'."
        )
    return dict(tensors)


def _indices(names: Iterable[str], pattern: re.Pattern[str]) -> int:
    """How many of the names match, counted by their different indices."""
    return len({match[1] for match in map(pattern.fullmatch, names) if match})
