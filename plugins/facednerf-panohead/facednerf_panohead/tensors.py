"""Official tensors: what they say of the network that holds them, and whether they are all there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from facednerf_eg3d.arguments import UNUSED, check_tensors
from facednerf_eg3d.superresolution import design
from torch import Tensor

OPTIONAL = {"use_torgb_raw": "torgb.", "use_background": "bcg_synthesis."}
"""Rendering options that switch a part off, and the names of its tensors, which are then left aside."""


def sizes(tensors: Mapping[str, Tensor], rendering: Mapping[str, Any]) -> dict[str, Any]:
    """The sizes that the original has in its code and not in its arguments, as the tensors show them.

    What cannot be read because a tensor is missing is left out.
    """
    found: dict[str, Any] = {}
    hidden = tensors.get("decoder.net.0.weight")
    if hidden is not None and hidden.ndim == 2:
        found |= {"decoder_hidden": hidden.shape[0], "plane_features": hidden.shape[1]}
    blocks = [tensors.get(f"superresolution.block{index}.conv0.weight") for index in (0, 1)]
    noise = tensors.get("superresolution.block0.conv1.noise_const")
    if noise is not None and noise.ndim == 2 and "superresolution_module" in rendering:
        grows = design(str(rendering["superresolution_module"])).grows
        found["sr_input_resolution"] = noise.shape[0] // (2 if grows else 1)
    widths = [block.shape[0] for block in blocks if block is not None and block.ndim == 4]
    if len(widths) == 2:
        found["sr_widths"] = (widths[0], widths[1])
    layers = sum(name.startswith("t_mapping.fc") and name.endswith(".weight") for name in tensors)
    if layers:
        found["offset_layers"] = layers
    return found


def checked(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], rendering: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a network, once they are known to be its own; a number may come as a vector of one.

    Args:
        tensors: as given, under official names.
        wanted: names and shapes.
        rendering: the checkpoint's `rendering_kwargs`.

    Raises:
        InputError: tensors are missing, superfluous or of another shape, or the low pass is not StyleGAN's.
    """
    off = tuple(prefix for option, prefix in OPTIONAL.items() if not rendering.get(option, False))
    given = {name: value for name, value in tensors.items() if name not in UNUSED and not (off and name.startswith(off))}
    for name, value in wanted.items():
        if value.ndim == 0 and name in given and given[name].shape == (1,):
            given[name] = given[name].reshape(())
    check_tensors(given, wanted)
    return given
