"""What a recipe leaves behind: half-precision tensors, the settings that rebuild the network, and a model card.

`python -m facednerf_starter.train.exports`, after files of the shipped weights were replaced, writes their hashes anew.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from facednerf_core.weights import digest
from facednerf_starter.plugin import FOLDER, HASHES
from facednerf_starter.train.pieces import Piece, rate, write_json
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
        "ended": ending(piece),
        "seconds": round(piece.seconds, 1),
        "hardware": hardware(device),
        "torch": torch.__version__,
        "measured_on_held_out_heads": dict(measured),
        "limits": limits,
    }


def ending(piece: Piece) -> str:
    """How a run came to its end, in words: with all its steps, or closed before the learning rate had fallen."""
    if piece.finished:
        return "all steps done, the learning rate fell to its end"
    if piece.steps is None:
        return "closed early: how many steps there would be was not known yet, the learning rate had not begun to fall"
    share = rate(piece.step, piece.steps)
    return f"closed early at step {piece.step} of {piece.steps}: the learning rate was at {share:.0%} of its highest"


def keep(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes a safetensors file whole, floats as float16."""
    half = {
        key: (value.detach().half() if value.is_floating_point() else value.detach()).cpu().contiguous().clone()
        for key, value in tensors.items()
    }
    fresh = path.with_name(path.name + ".part")
    save_file(half, fresh)
    fresh.replace(path)


def export(out: Path, name: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Writes NAME.safetensors (floats as float16), NAME.json (`config`) and NAME.card.json (`about`), each whole."""
    path = out / f"{name}.safetensors"
    keep(path, tensors)
    write_json(out / f"{name}.json", config)
    write_json(out / f"{name}.card.json", {**about, "bytes": path.stat().st_size})
    print(f"{name}: {path.stat().st_size / 1e6:.2f} MB in '{path}'", flush=True)


def seal(folder: Path = FOLDER) -> dict[str, str]:
    """Writes the SHA-256 of every file and folder of shipped weights, beside them, for the weights cards; returns them."""
    named = [path for path in sorted(folder.iterdir()) if not path.name.endswith((".card.json", HASHES.name))]
    hashes = {path.name: digest(path) for path in named if not path.name.startswith(".")}
    write_json(folder / HASHES.name, hashes)
    return hashes


if __name__ == "__main__":
    for name, sha256 in seal().items():
        print(f"{sha256}  {name}")
