"""What a recipe leaves behind: half-precision tensors, the settings that rebuild the network, and a model card."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from facednerf_starter.train.pieces import Piece, write_json
from facednerf_starter.train.shards import Shards


def hardware(device: torch.device) -> str:
    """The device in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {os.cpu_count()} cores"


def card(
    piece: Piece, shards: Shards, device: torch.device, *, about: str, recipe: str, measured: Mapping[str, Any], limits: str
) -> dict[str, Any]:
    """A model card: what the network is, what it was trained on and how, what was measured on held-out heads, limits."""
    return {
        "about": about,
        "data": {
            "world": "facednerf-starter's procedural heads; nothing else",
            "heads": shards.count,
            "held_out_heads": len(shards.held),
            "views": shards.views,
            "size": shards.size,
        },
        "recipe": recipe,
        "settings": piece.settings,
        "steps": piece.step,
        "finished": piece.finished,
        "seconds": round(piece.seconds, 1),
        "hardware": hardware(device),
        "torch": torch.__version__,
        "measured_on_held_out_heads": dict(measured),
        "limits": limits,
    }


def export(out: Path, name: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Writes NAME.safetensors (floats as float16), NAME.json (`config`) and NAME.card.json (`about`), each whole."""
    half = {
        key: (value.detach().half() if value.is_floating_point() else value.detach()).cpu().contiguous().clone()
        for key, value in tensors.items()
    }
    path = out / f"{name}.safetensors"
    fresh = path.with_name(path.name + ".part")
    save_file(half, fresh)
    fresh.replace(path)
    write_json(out / f"{name}.json", config)
    write_json(out / f"{name}.card.json", {**about, "bytes": path.stat().st_size})
    print(f"{name}: {path.stat().st_size / 1e6:.2f} MB in '{path}'", flush=True)
