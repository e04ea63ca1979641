"""Pairs of pictures of one person, for the judges and the identity to learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from facednerf_starter.judges.questions import Truth, truth
from facednerf_starter.train import draws
from facednerf_starter.train.albums import Album, Portraitist, drawn_by_generator, drawn_by_world, kept, restyled, seen_from
from facednerf_starter.train.shards import Shards
from facednerf_starter.world.anatomy import measure
from facednerf_starter.world.attributes import IDENTITY, VECTOR, Attributes, decode
from facednerf_starter.world.landmarks import landmarks

LIGHT_ON_TRAITS = {"femininity": 0.3, "ear_size": 0.3, "ear_angle": 0.3, "neck": 0.3}
"""Traits that hair tells better than a face does, or that a face hardly shows, count less."""


@dataclass(frozen=True)
class Sitting:
    """2P pictures of P people: picture i and picture i + P show one person in other styles."""

    image: Tensor  # (2P, 3, H, W) in [-1, 1], over white
    mask: Tensor  # (2P, 1, H, W) in [0, 1]
    landmarks: Tensor  # (2P, K, 2) in image coordinates, 0 and 1 the edges
    truth: Truth
    people: Tensor  # (2P,) int64, heads of the shards

    @staticmethod
    def cat(parts: Sequence[Sitting]) -> Sitting:
        """Several sittings as one."""
        image, mask, landmarks, told, people = (
            [getattr(part, name) for part in parts] for name in ("image", "mask", "landmarks", "truth", "people")
        )
        return Sitting(torch.cat(image), torch.cat(mask), torch.cat(landmarks), Truth.cat(told), torch.cat(people))


@dataclass(frozen=True)
class Page:
    """One picture of each of the first M training heads, in the style that `truth` tells of all heads."""

    album: Album
    landmarks: Tensor  # (M, K, 2)
    truth: Truth


class PairReader:
    """Reads pairs of training heads: of the world's views, of its restyled people, of a generator's pictures of both.

    A restyled person's style belongs to the head, so that a head has two sets of attributes: its own and the other's.
    """

    def __init__(
        self, shards: Shards, device: torch.device, folder: Path, *, seed: int, people: int,
        painter: Portraitist | None = None, compile: bool = False,
    ) -> None:  # fmt: skip
        self.shards, self.device = shards, device
        self._training = shards.training.to(device)
        self._image, self._mask = shards.field("image", device), shards.field("mask", device)
        self._landmarks = shards.field("landmarks", device)
        z = shards.field("z").take(torch.arange(shards.count))
        own, other = decode(z), restyled(z, seed, "style", numbers=torch.arange(shards.count))
        self._own, self._other = (Truth(t.choices.to(device), t.numbers.to(device)) for t in (truth(own), truth(other)))
        self.traits = traits(own, shards.training).to(device)  # (heads, traits)
        sitters = shards.training[:people]
        cameras = seen_from(seed, "world", shards.count)
        about: dict[str, object] = {"seed": seed, "people": people, "heads": shards.count, "size": shards.size}
        album = kept(
            folder / "restyled.safetensors",
            lambda: drawn_by_world(other[sitters], cameras[sitters], shards.size, device, compile=compile),
            about,
        )
        self._restyled = self._page_of(album, other[sitters], cameras[sitters], self._other)
        self._drawn: tuple[Page, Page] | None = None
        if painter is not None:
            one, two = (
                self._page_of(
                    drawn_by_generator(painter.network, painter.latents(heads), cameras, shards.size, device),
                    heads,
                    cameras,
                    told,
                )
                for heads, told, cameras in (
                    (own[shards.training], self._own, seen_from(seed, "drawn", shards.count)[shards.training]),
                    (other[shards.training], self._other, seen_from(seed, "drawn again", shards.count)[shards.training]),
                )
            )
            self._drawn = one, two

    def read(self, count: int, seed: int, names: tuple[str | int, ...]) -> Sitting:
        """Pairs of `count` people. A quarter each: a view and the restyled; a view and what the generator makes of the
        restyled; the generator's two; the restyled and what the generator makes of the head. Without a generator, half
        a view and the restyled, half two views."""
        key = draws.key(seed, *names, "people")
        number = draws.integers((3, count), 1 << 30, key, self.device)
        parts = number.chunk(4 if self._drawn else 2, dim=1)
        if self._drawn is None:
            firsts = [self._view(self._some(parts[0]), parts[0][1]), self._view(self._any(parts[1]), parts[1][1])]
            step = 1 + parts[1][2] % max(1, self.shards.views - 1)
            seconds = [self._page(self._restyled, parts[0]), self._view(self._any(parts[1]), parts[1][1] + step)]
        else:
            one, two = self._drawn
            some = parts[3] % len(self._restyled.album)  # the rows of training heads begin with the sitters'
            firsts = [
                self._view(self._some(parts[0]), parts[0][1]),
                self._view(self._any(parts[1]), parts[1][1]),
                self._page(one, parts[2]),
                self._page(self._restyled, parts[3]),
            ]
            seconds = [
                self._page(self._restyled, parts[0]),
                self._page(two, parts[1]),
                self._page(two, parts[2]),
                self._page(one, some),
            ]
        return Sitting.cat([*firsts, *seconds])

    def _any(self, number: Tensor) -> Tensor:
        return self._training[number[0] % len(self._training)]

    def _some(self, number: Tensor) -> Tensor:
        return self._training[number[0] % len(self._restyled.album)]

    def _view(self, heads: Tensor, views: Tensor) -> Sitting:
        views = views % self.shards.views
        return Sitting(
            image=self._image.take(heads, views).to(self.device).permute(0, 3, 1, 2).float() / 127.5 - 1,
            mask=self._mask.take(heads, views).to(self.device).unsqueeze(1).float() / 255,
            landmarks=self._landmarks.take(heads, views).to(self.device).float(),
            truth=self._own[heads],
            people=heads,
        )

    def _page(self, page: Page, number: Tensor) -> Sitting:
        rows = number[0] % len(page.album)
        heads = self._training[rows]
        return Sitting(*page.album.take(rows), page.landmarks[rows], page.truth[heads], heads)

    def _page_of(self, album: Album, heads: Attributes, cameras: Tensor, told: Truth) -> Page:
        """The page of an album that shows `heads` from `cameras` (M, 1, 25), both on the CPU."""
        album = Album(album.image.to(self.device), album.mask.to(self.device))
        return Page(album, landmarks(measure(heads), cameras)[:, 0].to(self.device), told)


def traits(heads: Attributes, training: Tensor) -> Tensor:
    """What stays with each of N people, standardised over those of `training`, (N, T)."""
    names = [name for name in VECTOR if name in IDENTITY or name.split("=")[0] in IDENTITY]
    values = heads.vector()[:, [VECTOR.index(name) for name in names]]
    mean, deviation = values[training].mean(0), values[training].std(0).clamp_min(1e-6)
    return (values - mean) / deviation * torch.tensor([LIGHT_ON_TRAITS.get(name, 1.0) for name in names])
