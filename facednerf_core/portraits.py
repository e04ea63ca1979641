"""A portrait kept in a run folder, so that a resumed run sees bit for bit what the first one saw."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from facednerf_core.errors import InputError
from facednerf_core.files import write_tensors
from facednerf_core.photos import Portrait

if TYPE_CHECKING:
    from torch import Tensor

LAYERS = ("image", "seen", "mask", "person", "background", "landmarks")


def save(portrait: Portrait, path: Path) -> None:
    """Write a portrait as safetensors, whole or not at all."""
    import torch

    tensors: dict[str, Tensor] = {name: getattr(portrait, name) for name in LAYERS if getattr(portrait, name) is not None}
    tensors |= {"camera": portrait.camera, "transform": torch.from_numpy(portrait.transform.copy())}
    tensors["angles"] = torch.tensor([portrait.yaw, portrait.pitch], dtype=torch.float64)
    write_tensors(path, tensors, {"notes": json.dumps(portrait.notes)})


def load(path: Path) -> Portrait:
    """Read back what `save` wrote.

    Raises:
        InputError: the file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - see checkpoints
            notes = tuple(json.loads((file.metadata() or {}).get("notes", "[]")))
    except (SafetensorError, OSError) as error:
        raise InputError(f"the portrait {path} cannot be read ({error}); start the run again.") from error
    yaw, pitch = tensors["angles"].tolist()
    layers = {name: tensors.get(name) for name in LAYERS if name not in ("image", "seen")}
    return Portrait(
        image=tensors["image"],
        seen=tensors["seen"],
        camera=tensors["camera"],
        yaw=yaw,
        pitch=pitch,
        transform=tensors["transform"].numpy(),
        notes=notes,
        **layers,
    )
