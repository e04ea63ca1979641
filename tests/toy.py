"""A generator small enough to reason about: an image that is linear in w, seen by a camera that shifts it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from facednerf_core.interfaces import Generator
from facednerf_core.scene import Latent, Rendering, Scene
from facednerf_core.views import Orbit, View, angles


@dataclass
class ToyScene(Scene):
    """The picture before a camera looks at it, (N, 3, 8, 8)."""

    picture: Tensor


@dataclass
class Count:
    """How often each verb was called."""

    synthesize: int = 0
    render: int = 0
    views: list[int] = field(default_factory=list)


class ToyGenerator(Generator):
    """picture = tanh(basis . w + noise) ; a view multiplies by cos(yaw) and adds a little depth jitter."""

    def __init__(self, basis: Tensor | None = None, count: Count | None = None) -> None:
        draws = torch.Generator().manual_seed(0)
        self.orbit, self.size = Orbit(), (8, 8)
        start = torch.randn(2, 5, 3 * 64, generator=draws) * 0.2
        self.basis = torch.nn.Parameter(start, requires_grad=False) if basis is None else basis
        self.count = count or Count()

    def mean(self) -> Latent:
        return Latent(torch.full((1, 2, 5), 0.3), {"noise": torch.linspace(-1, 1, 64).reshape(8, 8)})

    def deviation(self) -> Tensor:
        return torch.linspace(0.5, 1.5, 5)

    def sample(self, rng: torch.Generator, truncation: float = 0.7) -> Latent:
        drawn = torch.randn(1, 1, 5, generator=rng).expand(1, 2, 5) * self.deviation()
        return self.mean().with_w(self.mean().w + truncation * drawn)

    def synthesize(self, latent: Latent) -> ToyScene:
        self.count.synthesize += 1
        flat = torch.einsum("nlc,lcp->np", latent.w, self.basis).unflatten(-1, (3, 8, 8))
        return ToyScene(torch.tanh(flat + 0.01 * latent.noise["noise"]))

    def render(
        self, scene: Scene, view: View, *, jitter: Sequence[torch.Generator] | None, size: int | None = None
    ) -> Rendering:
        assert isinstance(scene, ToyScene)
        self.count.render += 1
        self.count.views.append(view.count)
        yaw, pitch = angles(view.camera)
        image = scene.picture.unsqueeze(1) * (yaw.cos() * pitch.cos())[..., None, None, None]
        if jitter is not None:
            draws = [torch.randn(3, 8, 8, generator=each) for each in jitter]
            image = image + 0.01 * torch.stack(draws)
        if size is not None and size != 8:
            image = torch.nn.functional.interpolate(image.flatten(0, 1), size=(size, size)).unflatten(0, image.shape[:2])
        return Rendering(scene, view, image, mask=torch.sigmoid(image.mean(dim=2, keepdim=True)))

    def tunable(self) -> Mapping[str, torch.nn.Parameter]:
        assert isinstance(self.basis, torch.nn.Parameter)
        return {"basis": self.basis}

    def tuned(self, tensors: Mapping[str, Tensor]) -> ToyGenerator:
        return ToyGenerator(tensors.get("basis", self.basis), self.count)
