"""What a checkpoint's constructor arguments and tensors say of a network, before it is built."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from facednerf_core.errors import InputError
from facednerf_core.statedicts import check
from facednerf_eg3d.layers import fir_filter
from facednerf_eg3d.superresolution import design

UNUSED = frozenset({"dataset_label_std"})
"""Tensors that checkpoints may hold and that no generator reads: statistics of the training labels."""
_BLOCK = re.compile(r"backbone\.synthesis\.b(\d+)\.torgb\.weight")


def check_arguments(network: type[nn.Module], given: Iterable[str]) -> None:
    """Refuses constructor arguments that a network does not have.

    Raises:
        InputError: names them, and what exists.
    """
    known = [name for name in signature(network).parameters if name != "self"]
    unknown = [name for name in given if name not in known]
    if unknown:
        raise InputError(f"{network.__name__} has no argument {', '.join(unknown)}; it has: {', '.join(known)}.")


def check_tensors(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Holds tensors against a network's names and shapes, and their low passes against the one there is.

    Raises:
        InputError: tensors are missing, superfluous or of another shape, or the low pass is not StyleGAN's.
    """
    faults = [
        f"{name} is not the filter of taps 1, 3, 3, 1"
        for name, value in given.items()
        if name.endswith("resample_filter") and not torch.allclose(value.cpu().float(), fir_filter(), atol=1e-6)
    ]
    check(given, wanted, "this generator", faults=faults)


def widths_of(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Any]:
    """The widths of `TriPlaneGenerator` that are not arguments of the official constructor, as far as tensors under the
    official names tell them; in the official networks they are the defaults."""
    found: dict[str, Any] = {}
    blocks = {int(match[1]): name for name in tensors if (match := _BLOCK.fullmatch(name))}
    if blocks:
        found["plane_resolution"] = max(blocks)
        found["plane_features"] = tensors[blocks[max(blocks)]].shape[0] // 3
    hidden = tensors.get("decoder.net.0.weight")
    if hidden is not None:
        found["decoder_hidden"] = hidden.shape[0]
    parts = [tensors.get(f"superresolution.{name}") for name in ("block0.conv1.weight", "block1.conv1.weight")]
    noise = tensors.get("superresolution.block0.conv1.noise_const")
    module = dict(config.get("rendering_kwargs") or {}).get("superresolution_module")
    if noise is not None and parts[0] is not None and parts[1] is not None and module is not None:
        found["sr_widths"] = (parts[0].shape[0], parts[1].shape[0])
        found["sr_input_resolution"] = noise.shape[-1] // (2 if design(str(module)).grows else 1)
    return found
