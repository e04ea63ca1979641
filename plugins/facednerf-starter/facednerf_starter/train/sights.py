"""Single views of the world as training samples, picked by (seed, recipe, step)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from facednerf_starter.train import draws
from facednerf_starter.train.shards import Shards


@dataclass(frozen=True)
class Sights:
    """B views of heads, as the world rendered them over white."""

    heads: Tensor  # (B,) int64
    image: Tensor  # (B, 3, H, W) in [-1, 1]
    mask: Tensor  # (B, 1, H, W) in [0, 1]
    landmarks: Tensor  # (B, K, 2) in image coordinates, 0 and 1 the edges
    cameras: Tensor  # (B, 25)


class SightReader:
    """Reads views of all shards: from memory-mapped files on a CPU, from the device's memory on a GPU."""

    def __init__(self, shards: Shards, device: torch.device) -> None:
        self.shards, self.device = shards, device
        self._training = shards.training.to(device)
        self._image = shards.field("image", device)
        self._mask = shards.field("mask", device)
        self._landmarks = shards.field("landmarks", device)
        self._cameras = shards.field("cameras", device)

    @property
    def points(self) -> int:
        """K, the number of landmarks."""
        return self._landmarks.shape[1]

    def pick(self, count: int, at: draws.Key, heads: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Heads and views, each (count,), at random from the training heads or from those given."""
        pool = self._training if heads is None else heads.to(self.device)
        number = draws.integers((2, count), 1 << 30, at, self.device)
        return pool[number[0] % len(pool)], number[1] % self.shards.views

    def read(self, heads: Tensor, views: Tensor) -> Sights:
        """The views named by heads (B,) and views (B,)."""
        image = self._image.take(heads, views).to(self.device)
        mask = self._mask.take(heads, views).to(self.device)
        return Sights(
            heads=heads,
            image=image.permute(0, 3, 1, 2).float() / 127.5 - 1,
            mask=mask.unsqueeze(1).float() / 255,
            landmarks=self._landmarks.take(heads, views).to(self.device).float(),
            cameras=self._cameras.take(heads, views).to(self.device).float(),
        )


def snapshots(sights: Sights, seed: int, names: tuple[str | int, ...]) -> Tensor:
    """What a camera makes of the sights (see `world.photos`), (B, 3, H, W) in [-1, 1]."""
    from facednerf_starter.world.photos import photograph

    return photograph(sights.image, sights.mask, draws.generator(seed, *names, "photo"))
