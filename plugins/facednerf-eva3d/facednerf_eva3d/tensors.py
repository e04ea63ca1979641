"""Official tensors: what they say of the network that holds them, and whether they are all there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from facednerf_core.statedicts import check
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
    hint = "A checkpoint of the AIST release wants is_aist; an official file must be read from its 'g_ema'."
    check(tensors, wanted, "this EVA3D generator", hint=hint)
    return dict(tensors)


def _indices(names: Iterable[str], pattern: re.Pattern[str]) -> int:
    """How many of the names match, counted by their different indices."""
    return len({match[1] for match in map(pattern.fullmatch, names) if match})
