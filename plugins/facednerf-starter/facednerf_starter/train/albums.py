"""Further pictures of the people in shards: in another style, drawn by the world, and as a generator draws them.

An album is made once, where the training runs, and kept there as bytes: a picture and its mask for each head.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from facednerf_eg3d.network import TriPlaneGenerator
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from facednerf_core import statedicts
from facednerf_core.errors import InputError
from facednerf_starter.train import draws
from facednerf_starter.train.mapping import Design, numbers
from facednerf_starter.world.attributes import Attributes, decode, draw
from facednerf_starter.world.cameras import draw_cameras
from facednerf_starter.world.render import render

YAW = 0.4
"""Largest yaw, in radians, from which a generator's pictures and restyled people are seen."""
PITCH = 0.25


@dataclass(frozen=True)
class Album:
    """One picture over white of each of M heads."""

    image: Tensor  # (M, 3, H, W) uint8
    mask: Tensor  # (M, 1, H, W) uint8

    def __len__(self) -> int:
        return len(self.image)

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures (B, 3, H, W) in [-1, 1] and masks (B, 1, H, W) in [0, 1] of rows (B,)."""
        return self.image[rows].float() / 127.5 - 1, self.mask[rows].float() / 255


def restyled(z: Tensor, seed: int, name: str, *, numbers: Tensor) -> Attributes:
    """The people of Gaussian draws z (N, Z_DIM) in the style, expression, age and light of other ones.

    `numbers` (N,) tells the heads apart: the style of a head is a function of (seed, name, its number) alone.
    """
    style, _ = draws.key(seed, "album", name)
    return decode(z).dressed_as(decode(torch.cat([draw(style, number, 1) for number in numbers.tolist()])))


def seen_from(seed: int, name: str, count: int) -> Tensor:
    """One camera for each of `count` heads, (count, 1, 25), within YAW and PITCH, about as far as the generator expects."""
    first, _ = draws.key(seed, "album", name, "cameras")
    return draw_cameras(first, 0, count, 1, YAW, PITCH, jitter=0.02)


def drawn_by_world(
    heads: Attributes, cameras: Tensor, size: int, device: torch.device, *, batch: int = 64, compile: bool = False
) -> Album:
    """What the world shows of N heads from one camera each, (N, 1, 25)."""

    def shown(part: Tensor) -> tuple[Tensor, Tensor]:
        if compile:  # compiled for one shape
            part = torch.cat([part, part[-1:].expand(batch - len(part))])
        seen = render(heads[part].to(device), cameras[part].to(device), size, supersample=2, compile=compile)
        return seen.image[:, 0], seen.mask[:, 0]

    return _collected(shown, len(heads), batch)


@torch.no_grad()
def drawn_by_generator(
    network: TriPlaneGenerator, ws: Tensor, cameras: Tensor, size: int, device: torch.device, *, batch: int = 32
) -> Album:
    """What a generator shows of N latents (N, L, C) from one camera each, (N, 1, 25)."""

    def shown(part: Tensor) -> tuple[Tensor, Tensor]:
        image, volume = network(ws[part].to(device), cameras[part].to(device))
        found = [image[:, 0], volume.alpha[:, 0]]
        image, alpha = (
            x if x.shape[-1] == size else F.interpolate(x, (size, size), mode="bilinear", antialias=True) for x in found
        )
        return image, alpha

    return _collected(shown, len(ws), batch)


def _collected(shown: Callable[[Tensor], tuple[Tensor, Tensor]], count: int, batch: int) -> Album:
    images, masks = [], []
    for part in torch.arange(count).split(batch):
        image, mask = shown(part)
        images.append(((image[: len(part)].clamp(-1, 1) + 1) * 127.5).round().byte())
        masks.append((mask[: len(part)].clamp(0, 1) * 255).round().byte())
    return Album(torch.cat(images), torch.cat(masks))


@dataclass(frozen=True)
class Portraitist:
    """A trained generator of the starter, with its way from a head to a latent."""

    network: TriPlaneGenerator
    design: Design | None  # None: W is learned, and a latent comes from a Gaussian draw by the mapping

    @classmethod
    def from_file(cls, path: Path, device: torch.device) -> Portraitist:
        """Reads generator.safetensors, and generator.json and generator.card.json beside it."""
        config = json.loads(path.with_suffix(".json").read_text("utf-8"))
        config.pop("class")
        network = TriPlaneGenerator.from_state_dict(statedicts.read(path), **config).to(device).requires_grad_(False).eval()
        settings = json.loads(path.with_suffix(".card.json").read_text("utf-8"))["settings"]
        designed = settings["mapping"].get("designed", False)
        return cls(network, Design(config["w_dim"], settings["seed"], device) if designed else None)

    @torch.no_grad()
    def latents(self, heads: Attributes) -> Tensor:
        """Latents (N, L, C) of heads, also of people in another style, for whom there is no Gaussian draw.

        Raises:
            InputError: W was learned, so that only Gaussian draws have a latent.
        """
        if self.design is None:
            raise InputError(
                "this generator's W was learned: a restyled person has no latent in it; give a generator with a designed W "
                "(python -m facednerf_starter.train mapping --designed), or leave --generator out"
            )
        return self.design.rows(numbers(heads).to(self.design.mean.device), self.network.num_ws)


def kept(path: Path, make: Callable[[], Album], about: dict[str, object]) -> Album:
    """An album from a file, on the CPU, or made and written there, if the file was made for other settings (`about`)."""
    told = json.dumps(about, sort_keys=True)
    if path.exists():
        with safe_open(path, framework="pt") as file:
            same = (file.metadata() or {}).get("album") == told
        if same:
            found = load_file(path)
            return Album(found["image"], found["mask"])
    album = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".part")
    tensors = {"image": album.image.cpu().contiguous(), "mask": album.mask.cpu().contiguous()}
    save_file(tensors, fresh, metadata={"album": told})
    fresh.replace(path)
    return album
