"""EVA3D behind the interface of facednerf."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from facednerf_core import statedicts
from facednerf_core.errors import InputError
from facednerf_core.interfaces import Generator
from facednerf_core.scene import Latent, Rendering, Scene
from facednerf_core.views import Orbit, View
from facednerf_eva3d.body import POSE, Body
from facednerf_eva3d.film import Films
from facednerf_eva3d.geometry import locate
from facednerf_eva3d.mapping import Statistics, statistics
from facednerf_eva3d.network import Eva3dNetwork
from facednerf_eva3d.orbit import BodyOrbit
from facednerf_eva3d.retuning import with_tensors
from facednerf_eva3d.sights import Sights
from facednerf_eva3d.volume import beside, density

if TYPE_CHECKING:
    from facednerf_eva3d.options import Eva3dOptions

MESH_NEIGHBOURS = 8  # vertices that carry a point where density is asked for, as when the original makes a mesh
MESH_DIRECTION = (1.0, 0.0, 0.0)


@dataclass(frozen=True)
class Clothed(Scene):
    """EVA3D's scene: what the latent makes of each part's network. Pose and shape come with the view."""

    films: Sequence[Films]  # one for each part


class Eva3d(Generator):
    """EVA3D as a frozen generator of posed bodies.

    A latent has a row for each FiLM layer, part by part (68 in the releases); all equal, they are the original's one style.
    A view's pose is 85 numbers, as `body` explains; a view without one shows `pose`.
    """

    def __init__(
        self,
        network: Eva3dNetwork,
        body: Body,
        orbit: Orbit | None = None,
        *,
        pose: Tensor | None = None,
        near: float | None = 0.0,
        known: Statistics | None = None,
        sights: Sights | None = None,
    ) -> None:
        """
        Args:
            network: frozen, in float32.
            body: on the network's device.
            orbit: the cameras in which it can be trusted; None for the official demos'.
            pose: (85,), of views that name none; None for the T pose of the mean shape, at the world's origin.
            near: nothing nearer to the camera is drawn; None for the original's way, see `geometry.look`.
            known: mean and deviation of the styles, if they have been estimated.
            sights: what has been seen of the body, if it is shared with another generator.
        """
        self.network = network
        self.body = body
        self.orbit = orbit or BodyOrbit(aspect=network.size[0] / network.size[1])
        self.size = network.size
        self.pose = torch.zeros(POSE) if pose is None else pose
        self.near = near
        self._known = known
        self._sights = sights or Sights(body)

    @property
    def statistics(self) -> Statistics:
        """Mean and deviation of the styles, estimated once."""
        if self._known is None:
            self._known = statistics(self.network.style)
        return self._known

    def mean(self) -> Latent:
        """The mean style in every row, (1, L, C). There are no noise maps."""
        return self._latent(self.statistics.mean[None])

    def deviation(self) -> Tensor:
        """The standard deviation of styles along each dimension, (C,)."""
        return self.statistics.deviation

    @torch.no_grad()
    def sample(self, rng: torch.Generator, truncation: float = 0.7) -> Latent:
        """A random latent (1, L, C); drawn on the CPU. The official demos truncate at 0.5."""
        mean = self.statistics.mean
        row: Tensor = self.network.style(torch.randn(1, len(mean), generator=rng).to(mean))
        return self._latent(mean.lerp(row, truncation))

    def _latent(self, row: Tensor) -> Latent:
        return Latent(row[:, None].repeat(1, self.network.num_ws, 1))

    def synthesize(self, latent: Latent) -> Clothed:
        """The scene of a latent (N, L, C).

        Raises:
            KeyError: the latent has noise maps, for which EVA3D has no layer.
        """
        if latent.noise:
            raise KeyError(f"no layer of EVA3D takes noise; the latent has {', '.join(latent.noise)}")
        return Clothed(self.network.films(latent.w))

    def render(
        self, scene: Scene, view: View, *, jitter: Sequence[torch.Generator] | None, size: int | None = None
    ) -> Rendering:
        """All views in one call, each pixel by rays of its own at any `size`, on the network's plain background.

        Without jitter, samples lie where their intervals begin, as in the original. Depth is along the ray; where no part
        may be, it is the view's largest.
        """
        assert isinstance(scene, Clothed)
        height, width = self.size
        if size is not None:
            height, width = size, max(1, round(size * width / height))
        noise = None
        if jitter is not None:
            if len(jitter) != view.count:
                raise ValueError(f"{view.count} views want as many random generators, not {len(jitter)}")
            noise = [torch.rand(height * width, self.network.samples, generator=rng) for rng in jitter]
        subjects = []
        for n in range(len(view.camera)):
            drive = [films.of(n) for films in scene.films]
            views = []
            for v, camera in enumerate(view.camera[n]):
                given = None if noise is None else noise[v]
                sight = self._sights.sight(self.network, camera, self._posed(view, n, v), (height, width), given, self.near)
                views.append(self.network.draw(drive, sight))
            subjects.append(beside(views, dim=1))
        volume = beside(subjects, dim=0)
        return Rendering(scene, view, volume.image, depth=volume.depth, mask=volume.mask)

    def _posed(self, view: View, n: int, v: int) -> Tensor:
        return self.pose.to(view.camera.device) if view.pose is None else view.pose[n, v]

    def tunable(self) -> Mapping[str, nn.Parameter]:
        """The parts' networks, without the style network, and without the softness of surfaces, which is no one's look."""
        return {
            name: parameter
            for name, parameter in self.network.named_parameters()
            if name.startswith("renderer.") and not name.endswith("sigmoid_beta")
        }

    def tuned(self, tensors: Mapping[str, Tensor]) -> Eva3d:
        """This generator with some tensors replaced; what has been seen of the body is shared."""
        if not tensors:
            return self
        network = with_tensors(self.network, tensors)
        known, sights = self.statistics, self._sights
        return Eva3d(network, self.body, self.orbit, pose=self.pose, near=self.near, known=known, sights=sights)

    def distance(self, scene: Scene, points: Tensor, view: View) -> Tensor:
        """Signed distance (N, P), metres, at world points (N, P, 3), in the pose of each subject's first view.

        As the original does for meshes (whose surface is where it is 0), points are carried back by their eight nearest
        vertices, which is smoother than the one that renderings use. It is 1 where no part is.
        """
        assert isinstance(scene, Clothed)
        found = []
        for n, each in enumerate(points):
            stance = self._sights.stance(self._posed(view, n, 0))
            geometry = locate(
                self.body,
                stance,
                self.network.parts,
                each.to(stance.vertices),
                torch.tensor(MESH_DIRECTION).to(stance.vertices).expand_as(each),
                fixed_direction=self.network.fixed_direction,
                neighbours=MESH_NEIGHBOURS,
            )
            found.append(self.network.field([films.of(n) for films in scene.films], geometry).distance)
        return torch.stack(found)

    def density(self, scene: Scene, points: Tensor, view: View) -> Tensor:
        """Volume density (N, P), per metre, at world points (N, P, 3): of `distance`, where renderings would find it."""
        return density(self.distance(scene, points, view), self.network.renderer.sigmoid_beta)


def read(tensors: Path, config: Path) -> Eva3dNetwork:
    """The frozen float32 network of a safetensors file and the JSON file of `Eva3dNetwork`'s arguments.

    Raises:
        InputError: the files do not describe such a network.
    """
    try:
        arguments: dict[str, Any] = dict(json.loads(config.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise InputError(f"'{config}' is not a JSON file of the network's arguments: {error}") from error
    arguments.pop("class", None)
    try:
        return Eva3dNetwork.from_state_dict(statedicts.read(tensors), **arguments)
    except SafetensorError as error:
        raise InputError(f"'{tensors}' is no safetensors file: {error}") from error
    except TypeError as error:
        raise InputError(f"'{config}' does not fit the network: {error}") from error


def adjusted(network: Eva3dNetwork, options: Eva3dOptions) -> Eva3dNetwork:
    """The network with the samples and the picture's height that the user asked for."""
    network.samples = options.samples or network.samples
    if options.height is not None:
        height, width = network.size
        network.size = (options.height, max(1, round(options.height * width / height)))
    return network
