"""Heads under several lights each, by the world or by a generator, and pairs of such pictures to learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from facednerf_dpr.lab import lightness
from torch import Tensor

from facednerf_starter.train import draws, lamps
from facednerf_starter.train.albums import Portraitist, drawn_by_generator
from facednerf_starter.train.draws import Key
from facednerf_starter.train.shards import Shards
from facednerf_starter.world.attributes import Attributes
from facednerf_starter.world.cameras import draw_cameras
from facednerf_starter.world.render import relit

YAW = 0.7
"""Largest yaw, in radians: as far round as dpr judges."""
PITCH = 0.3


@dataclass(frozen=True)
class Studio:
    """M heads, each from one camera under L lights, over white."""

    image: Tensor  # (M, L, 3, H, W) uint8
    mask: Tensor  # (M, L, 1, H, W) uint8
    light: Tensor  # (M, L, 9) luminance of the light, in the camera's frame

    def __len__(self) -> int:
        return len(self.image)


@dataclass(frozen=True)
class Pairs:
    """2P pictures: i and i + P are one head from one camera, under two lights or, as exposed, under two strengths."""

    lightness: Tensor  # (2P, 1, H, W) L* / 100, over white
    mask: Tensor  # (2P, 1, H, W) in [0, 1]
    light: Tensor  # (2P, 9) in the camera's frame


def seen_from(seed: int, name: str, count: int) -> Tensor:
    """One camera for each of `count` heads, (count, 1, 25), within YAW and PITCH."""
    first, _ = draws.key(seed, "studio", name)
    return draw_cameras(first, 0, count, 1, YAW, PITCH, jitter=0.02)


def by_world(
    heads: Attributes, cameras: Tensor, lights: Tensor, size: int, device: torch.device, *, batch: int = 64,
    compile: bool = False,
) -> Studio:  # fmt: skip
    """What the world shows of M heads from one camera each, (M, 1, 25), under lights (M, L, 3, 9)."""
    images, masks = [], []
    for part in torch.arange(len(heads)).split(batch):
        rows = torch.cat([part, part[-1:].expand(batch - len(part))]) if compile else part  # compiled for one shape
        found, shown = relit(
            heads[rows].to(device), cameras[rows].to(device), size, lights[rows].to(device), compile=compile
        )
        image, mask = found[: len(part), 0], shown.mask[: len(part), 0]  # (B, L, 3, H, W), (B, 1, H, W)
        images.append(((image.clamp(-1, 1) + 1) * 127.5).round().byte())
        masks.append((mask * 255).round().byte())
    mask = torch.cat(masks)[:, None].expand(-1, lights.shape[1], -1, -1, -1)
    return Studio(torch.cat(images), mask, lamps.seen(lights, cameras).to(device))


def by_generator(
    painter: Portraitist, heads: Attributes, cameras: Tensor, lights: Tensor, size: int, device: torch.device
) -> Studio:
    """What a generator shows of the same: the light is a part of its designed W, the rest of which is left as it is."""
    count, each = lights.shape[:2]
    rows = torch.arange(count).repeat_interleave(each)
    ws = painter.latents(heads[rows].replace(light=lights.flatten(0, 1)))
    album = drawn_by_generator(painter.network, ws, cameras[rows], size, device)
    image, mask = (x.unflatten(0, (count, each)) for x in (album.image, album.mask))
    return Studio(image, mask, lamps.seen(lights, cameras).to(device))


class LightReader:
    """Reads pairs: of each studio under two of its lights, and, a quarter of them, twice the same view of the shards."""

    def __init__(self, shards: Shards, studios: Sequence[Studio], device: torch.device) -> None:
        self.device, self.studios, self.views = device, tuple(studios), shards.views
        self._training = shards.training.to(device)
        self._image, self._mask = shards.field("image", device), shards.field("mask", device)
        every = torch.arange(shards.count)
        light = shards.field("light").take(every).unflatten(1, (1, 3, -1))  # (heads, 1, 3, 9)
        self._light = lamps.seen(light, shards.field("cameras").take(every)).to(device)  # (heads, views, 9)

    def read(self, count: int, at: Key) -> Pairs:
        """`count` pairs."""
        number = draws.integers((4, count), 1 << 30, at, self.device)
        quarter = max(1, count // 4)
        parts = [self._twice(number[:, :quarter])]
        chunks = number[:, quarter:].tensor_split(len(self.studios), dim=1)
        parts += [self._posed(studio, chunk) for studio, chunk in zip(self.studios, chunks, strict=True)]
        image, mask, light = (torch.cat([part[i] for part in parts], dim=1).flatten(0, 1) for i in range(3))
        return Pairs(lightness(image.float() / 255), mask.float() / 255, light)

    def _twice(self, number: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        heads, views = self._training[number[0] % len(self._training)], number[1] % self.views
        image = self._image.take(heads, views).to(self.device).permute(0, 3, 1, 2)
        mask = self._mask.take(heads, views).to(self.device).unsqueeze(1)
        return image.expand(2, -1, -1, -1, -1), mask.expand(2, -1, -1, -1, -1), self._light[heads, views].expand(2, -1, -1)

    def _posed(self, studio: Studio, number: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        lights = studio.light.shape[1]
        heads, one = number[0] % len(studio), number[1] % lights
        other = (one + 1 + number[2] % max(1, lights - 1)) % lights
        both = torch.stack([one, other])  # (2, B)
        return studio.image[heads, both], studio.mask[heads, both], studio.light[heads, both]
