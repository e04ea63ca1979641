"""A radiance field that can be written on one line: a sum of coloured Gaussian blobs, moved by a latent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from facednerf_core.interfaces import Generator
from facednerf_core.scene import Latent, Rendering, Scene
from facednerf_core.views import Orbit, View

NEAR, FAR = 2.2, 3.2  # distances along a ray between which something is


@dataclass(frozen=True)
class BlobScene(Scene):
    """The blobs of N heads."""

    blobs: Tensor  # (N, L, 8): centre, log of radius, colour before the sigmoid, log of density

    def field(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Density (N, ...) and colour (N, ..., 3) in [0, 1] at points (N, ..., 3)."""
        blobs = self.blobs.view(len(self.blobs), *[1] * (points.ndim - 2), *self.blobs.shape[1:])
        away = (points.unsqueeze(-2) - blobs[..., :3]).square().sum(-1)  # (N, ..., L)
        each = blobs[..., 7].exp() * torch.exp(-away / (2 * (2 * blobs[..., 3]).exp()))
        density = each.sum(-1)
        colour = (each.unsqueeze(-1) * blobs[..., 4:7].sigmoid()).sum(-2) / density.clamp_min(1e-6).unsqueeze(-1)
        return density, colour


class Blobs(Generator):
    """Blob l of a head is base[l] + w[l] . basis[l]; rays are summed up by quadrature (Max 1995) over white."""

    def __init__(self, base: Tensor, basis: Tensor, orbit: Orbit, samples: int = 24, side: int = 48) -> None:
        frozen = [value if value.requires_grad else nn.Parameter(value, requires_grad=False) for value in (base, basis)]
        self.base, self.basis = frozen  # (L, 8), (L, C, 8)
        self.orbit, self.size, self.samples = orbit, (side, side), samples

    def mean(self) -> Latent:
        return Latent(torch.zeros(1, *self.basis.shape[:2], device=self.base.device))

    def deviation(self) -> Tensor:
        return torch.ones(self.basis.shape[1], device=self.base.device)

    def sample(self, rng: torch.Generator, truncation: float = 0.7) -> Latent:
        row = torch.randn(1, 1, self.basis.shape[1], generator=rng).to(self.base.device)
        return Latent(truncation * row.repeat(1, self.basis.shape[0], 1))

    def synthesize(self, latent: Latent) -> BlobScene:
        return BlobScene(self.base + torch.einsum("nlc,lcp->nlp", latent.w, self.basis))

    def render(
        self, scene: Scene, view: View, *, jitter: Sequence[torch.Generator] | None, size: int | None = None
    ) -> Rendering:
        assert isinstance(scene, BlobScene)
        side = size or self.size[0]
        origin, direction = _rays(view.camera, side)  # (N, V, 1, 3), (N, V, R, 3)
        places = torch.full((view.count, side * side, self.samples), 0.5)
        if jitter is not None:
            places = torch.stack([torch.rand(side * side, self.samples, generator=rng) for rng in jitter])
        step = (FAR - NEAR) / self.samples
        depths = NEAR + step * (torch.arange(self.samples) + places).to(origin)  # (V, R, S)
        points = origin.unsqueeze(-2) + direction.unsqueeze(-2) * depths.unsqueeze(-1)
        density, colour = scene.field(points)
        through = torch.exp(-step * density.cumsum(-1))  # what light passes each sample
        weight = torch.cat([torch.ones_like(through[..., :1]), through[..., :-1]], -1) - through
        mask = weight.sum(-1)  # (N, V, R)
        seen = (weight.unsqueeze(-1) * colour).sum(-2) + (1 - mask).unsqueeze(-1)
        depth = (weight * depths).sum(-1) + (1 - mask) * FAR

        def picture(value: Tensor) -> Tensor:
            return value.unflatten(2, (side, side))

        image = picture(seen).movedim(-1, 2) * 2 - 1
        return Rendering(scene, view, image, depth=picture(depth).unsqueeze(2), mask=picture(mask).unsqueeze(2))

    def tunable(self) -> Mapping[str, nn.Parameter]:
        return {"base": self.base, "basis": self.basis}

    def tuned(self, tensors: Mapping[str, Tensor]) -> Blobs:
        base, basis = tensors.get("base", self.base), tensors.get("basis", self.basis)
        return Blobs(base, basis, self.orbit, self.samples, self.size[0])

    def density(self, scene: Scene, points: Tensor, view: View) -> Tensor:
        assert isinstance(scene, BlobScene)
        return scene.field(points)[0]


def _rays(camera: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Origins (N, V, 1, 3) and unit directions (N, V, R, 3) of the rays through the centres of side x side pixels."""
    pose = camera[..., :16].unflatten(-1, (4, 4))
    centre = (torch.arange(side).to(camera) + 0.5) / side
    y, x = torch.meshgrid(centre, centre, indexing="ij")
    ahead = torch.stack([x.flatten(), y.flatten(), torch.ones(side * side).to(camera)], -1)  # (R, 3)
    inverse = torch.linalg.inv(camera[..., 16:].unflatten(-1, (3, 3)))
    world = ahead @ inverse.mT @ pose[..., :3, :3].mT
    return pose[..., None, :3, 3], world / world.norm(dim=-1, keepdim=True)
