"""The official checkpoints (a dictionary of state dicts that torch saved) become our files, without the body in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from facednerf_core.errors import InputError
from facednerf_eva3d.network import BODY, Eva3dNetwork
from facednerf_eva3d.parts import PARTS, aist
from facednerf_eva3d.tensors import sizes

TENSORS, CONFIG = "eva3d.safetensors", "eva3d.json"
SAMPLES = 28  # as the official scripts render


def convert(source: Path, folder: Path) -> None:
    """Writes the averaged generator of an official file into `folder`, as eva3d.safetensors and eva3d.json.

    torch reads the file with its own allow-list, so that nothing in it is executed. SMPL's buffers are left out.

    Raises:
        InputError: it is not such a file.
    """
    tensors = generator_of(source)
    config: dict[str, Any] = {"N_samples": SAMPLES, "res_HW": [512, 256]}
    if sizes(tensors).get("depths") == [part.depth for part in aist(PARTS)]:
        config["is_aist"] = True
    Eva3dNetwork.from_state_dict(tensors, **config)
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / TENSORS)
    (folder / CONFIG).write_text(json.dumps(config, indent=1), encoding="utf-8")


def generator_of(source: Path) -> dict[str, Tensor]:
    """The tensors of the averaged generator ('g_ema') of an official file, or of a bare state dict; without SMPL's.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    try:
        found = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises what the file's bytes amount to
        raise InputError(f"'{source}' is no checkpoint that can be read safely: {type(error).__name__}: {error}") from error
    state = found.get("g_ema", found) if isinstance(found, Mapping) else found
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()) or not state:
        raise InputError(f"'{source}' holds no generator: neither 'g_ema' nor tensors by name.")
    return {str(name): value for name, value in state.items() if not str(name).startswith(BODY)}
