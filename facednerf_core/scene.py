"""What flows through the loop: a latent becomes a scene, a scene becomes renderings, a subject is who we look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from facednerf_core.views import View


@dataclass(frozen=True)
class Latent:
    """A point of the generator's extended latent space W+, one for each of N subjects, with its noise maps."""

    w: Tensor  # (N, L, C)
    noise: Mapping[str, Tensor] = field(default_factory=dict)  # name -> map, shared by the subjects

    def detach(self) -> Latent:
        """The same latent without gradient."""
        return Latent(self.w.detach(), {name: value.detach() for name, value in self.noise.items()})

    def to(self, device: torch.device) -> Latent:
        """The same latent on another device."""
        return Latent(self.w.to(device), {name: value.to(device) for name, value in self.noise.items()})

    def toward(self, other: Latent, strength: float) -> Latent:
        """The point `strength` of the way to another latent: 0 is here, 1 is there, more goes beyond."""
        noise = {name: value.lerp(other.noise[name], strength) for name, value in self.noise.items()}
        return Latent(self.w.lerp(other.w, strength), noise)

    def with_w(self, w: Tensor) -> Latent:
        """The same noise maps with another w (N, L, C)."""
        return replace(self, w=w)


@dataclass(frozen=True)
class Atlas:
    """M random heads of a generator, seen from the front."""

    latents: Tensor  # (M, C), one row of w each
    pictures: Tensor  # (M, 3, H, W) in [-1, 1]


class Scene:
    """What a generator makes of a latent once per step; opaque to the core, subclassed by each backbone."""


@dataclass(frozen=True)
class Rendering:
    """What V cameras see of N scenes."""

    scene: Scene
    view: View
    image: Tensor  # (N, V, 3, H, W), RGB, nominally [-1, 1], never clamped
    depth: Tensor | None = None  # (N, V, 1, h, w), distance along the ray, world units
    mask: Tensor | None = None  # (N, V, 1, h, w), how much of the pixel is the subject, [0, 1]
    landmarks: Tensor | None = None  # (N, V, K, 2), x and y in [0, 1]

    def __getitem__(self, views: slice) -> Rendering:
        """Some of the V views."""

        def part(value: Tensor | None) -> Tensor | None:
            return None if value is None else value[:, views]

        return Rendering(
            self.scene, self.view[views], self.image[:, views], part(self.depth), part(self.mask), part(self.landmarks)
        )


@dataclass(frozen=True)
class Subject:
    """Who or what is to be kept: a photo in the backbone's crop, where its camera stands, and what was found in it."""

    view: View  # (N, 1, 25)
    image: Tensor | None = None  # (N, 1, 3, H, W) in [-1, 1]
    mask: Tensor | None = None  # (N, 1, 1, H, W) in [0, 1], the foreground
    landmarks: Tensor | None = None  # (N, 1, K, 2), x and y in [0, 1] of the crop
    latent: Latent | None = None

    def to(self, device: torch.device) -> Subject:
        """The same subject on another device."""

        def moved(value: Tensor | None) -> Tensor | None:
            return None if value is None else value.to(device)

        return Subject(
            self.view.to(device),
            moved(self.image),
            moved(self.mask),
            moved(self.landmarks),
            None if self.latent is None else self.latent.to(device),
        )
