"""Reading the world's shards: memory-mapped on a CPU, resident on a GPU.

A shard is a folder of .npy files and a captions.json, described by its index.json (see the world's data recipe).
All shards of a folder are one long list of heads; head `h` here is the h-th of that list.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from facednerf_core.errors import FacednerfError


class ShardsError(FacednerfError):
    """The folder of shards cannot be read, or holds too little."""


@dataclass(frozen=True)
class Field:
    """One array of all shards, picked by head and view: `field.take(heads, views)`."""

    name: str
    parts: tuple[np.ndarray, ...]  # (n, ...) each, memory-mapped
    starts: np.ndarray  # (shards + 1,) first head of each, then the count
    resident: Tensor | None  # (count, ...) on the device, or None: read from the parts

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one head's entry."""
        return tuple(self.parts[0].shape[1:])

    def take(self, heads: Tensor, views: Tensor | None = None) -> Tensor:
        """Entries of heads (B,), or of heads and views (B,) or (B, M) alike: (B, ...) or (B, M, ...).

        The result lies on the field's device, in the shard's number type (uint8 images stay uint8)."""
        if views is not None and views.ndim == 2 and heads.ndim == 1:
            heads = heads[:, None].expand_as(views)
        if self.resident is not None:
            heads = heads.to(self.resident.device)
            return self.resident[heads] if views is None else self.resident[heads, views.to(self.resident.device)]
        flat = heads.reshape(-1).cpu().numpy()
        seen = None if views is None else views.reshape(-1).cpu().numpy()
        width = self.shape if seen is None else self.shape[1:]
        out = np.empty((flat.size, *width), dtype=self.parts[0].dtype)
        shard = np.searchsorted(self.starts, flat, side="right") - 1
        for which in np.unique(shard):
            rows = np.flatnonzero(shard == which)
            local = flat[rows] - self.starts[which]
            out[rows] = self.parts[which][local] if seen is None else self.parts[which][local, seen[rows]]
        return torch.from_numpy(out).reshape(*heads.shape, *width)


class Shards:
    """All shards of a folder.

    Every `held_every`-th head of the world (by its number in the world, so it stays the same as shards are added)
    is held out: `training` and `held` are the two lists of heads, int64 on the CPU.
    """

    def __init__(self, folder: Path, *, held_every: int = 50) -> None:
        self.folder = Path(folder)
        self.paths = tuple(
            sorted(path.parent for path in self.folder.glob("shard-*/index.json") if path.parent.suffix != ".part")
        )
        if not self.paths:
            raise ShardsError(
                f"no shards in '{self.folder}' (folders shard-*/ with an index.json); "
                "make some with: python -m facednerf_starter.train data --out DIR"
            )
        indices = [json.loads((path / "index.json").read_text()) for path in self.paths]
        for path, index in zip(self.paths, indices, strict=True):
            if (index["views"], index["size"]) != (indices[0]["views"], indices[0]["size"]):
                raise ShardsError(
                    f"'{path.name}' holds {index['views']} views of {index['size']} px, "
                    f"'{self.paths[0].name}' {indices[0]['views']} of {indices[0]['size']} px; keep one kind per folder"
                )
        self.views: int = indices[0]["views"]
        self.size: int = indices[0]["size"]
        self.starts = np.cumsum([0, *(index["count"] for index in indices)])
        self.count = int(self.starts[-1])
        numbers = np.concatenate([index["first"] + np.arange(index["count"]) for index in indices])
        held = numbers % held_every == held_every - 1
        if not held.any() or held.all():
            raise ShardsError(
                f"{self.count} heads in '{self.folder}' are too few to hold out every {held_every}th; make more"
            )
        self.training = torch.from_numpy(np.flatnonzero(~held))
        self.held = torch.from_numpy(np.flatnonzero(held))

    def field(self, name: str, device: torch.device | str = "cpu") -> Field:
        """The array NAME.npy of all shards: copied whole to a GPU, memory-mapped for a CPU."""
        parts = []
        for path in self.paths:
            file = path / f"{name}.npy"
            if not file.exists():
                held = ", ".join(sorted(other.stem for other in path.glob("*.npy")))
                raise ShardsError(f"no '{name}.npy' in '{path}'; it holds: {held}")
            parts.append(np.load(file, mmap_mode="r"))
        resident = None
        if torch.device(device).type != "cpu":
            kind = torch.from_numpy(np.empty(0, dtype=parts[0].dtype)).dtype
            resident = torch.empty((self.count, *parts[0].shape[1:]), dtype=kind, device=device)
            for start, part in zip(self.starts, parts, strict=False):
                resident[start : start + len(part)] = torch.from_numpy(np.array(part))
        return Field(name, tuple(parts), self.starts, resident)

    def captions(self) -> list[list[str]]:
        """The captions of every head."""
        return [captions for path in self.paths for captions in json.loads((path / "captions.json").read_text("utf-8"))]
