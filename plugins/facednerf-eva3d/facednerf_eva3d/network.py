"""EVA3D's generator (Hong et al. 2023): a style drives sixteen networks, which draw a posed body between them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from facednerf_core.errors import InputError
from facednerf_eva3d.body import Body
from facednerf_eva3d.film import Films, FilmSiren
from facednerf_eva3d.geometry import Geometry, Sight, look
from facednerf_eva3d.mapping import StyleNetwork
from facednerf_eva3d.parts import PARTS, Part, aist, listed, with_depths
from facednerf_eva3d.stance import Stance
from facednerf_eva3d.tensors import checked, sizes
from facednerf_eva3d.volume import Volume, beside, composite, density, sample_weights, spread

BODY = "renderer.smpl_model."  # the names under which official checkpoints carry SMPL's buffers

Drive = Sequence[Films]  # one for each part


class PartVolume(nn.Module):
    """A part under its stored names. `sigmoid_beta` is stored with it and never used, as in the original."""

    def __init__(self, depth: int, width: int, style_dim: int) -> None:
        super().__init__()
        self.sigmoid_beta = nn.Parameter(torch.full((1,), 0.1))
        self.network = FilmSiren(depth, width, style_dim)


class PartRenderer(nn.Module):
    """The parts and the softness of the surface, under their stored names."""

    def __init__(self, parts: Sequence[Part], width: int, style_dim: int) -> None:
        super().__init__()
        self.sigmoid_beta = nn.Parameter(torch.full((1,), 0.1))
        self.vox_list = nn.ModuleList(PartVolume(part.depth, width, style_dim) for part in parts)


@dataclass(frozen=True)
class Field:
    """What the networks make of P samples."""

    distance: Tensor  # (P,), signed distance, metres
    raw: Tensor  # (P, 3), colour before its sigmoid
    deltas: tuple[
        Tensor, ...
    ]  # for each part (M,), what its network adds to the template's distance at the samples it knows


class Eva3dNetwork(nn.Module):
    """EVA3D's generator, under the tensor names of the official checkpoints.

    A camera and a pose become a `Sight`, which no style enters; a style becomes `Films`; both become an image. All
    arithmetic of the networks is in the floating-point format of the parameters, all geometry in that of the body. Nothing
    is drawn at random unless the caller gives the numbers.
    """

    def __init__(
        self,
        style_dim: int = 128,
        width: int = 128,
        *,
        N_samples: int = 24,
        res_HW: Sequence[int] = (512, 256),
        fix_viewdir: bool = True,
        white_bg: bool = True,
        is_aist: bool = False,
        n_mlp: int = 3,
        depths: Sequence[int] | None = None,
        parts: Iterable[Mapping[str, Any]] | Sequence[Part] | None = None,
    ) -> None:
        """The arguments that the official scripts give, and some of our own for other networks.

        Args:
            style_dim: length of a style and of the random vector behind it.
            width: of the parts' networks; 128 in every release.
            N_samples: of a ray; 24 unless told, 28 in the official scripts.
            res_HW: height and width of an image.
            fix_viewdir: networks are told that all is seen from the front, as in all official demos.
            white_bg: images are drawn on white, else on black.
            is_aist: depths of the networks as in the AIST release; see `parts.aist`.
            n_mlp: layers of the style network.
            depths: of the parts' networks, if others.
            parts: the parts, or a table of them (see `parts.listed`), if others.

        Raises:
            InputError: the arguments describe no network.
        """
        super().__init__()
        height, width_of_image = (int(side) for side in res_HW)
        if min(style_dim, width, height, width_of_image, n_mlp) < 1 or N_samples < 2:
            raise InputError(
                f"style_dim {style_dim}, width {width}, n_mlp {n_mlp} and res_HW {tuple(res_HW)} must be above 0, "
                f"and N_samples {N_samples} above 1."
            )
        self.is_aist = is_aist
        self.parts = _parts(parts, depths, is_aist)
        self.samples = N_samples
        self.size = (height, width_of_image)
        self.fixed_direction = fix_viewdir
        self.white = white_bg
        self.style = StyleNetwork(style_dim, n_mlp)
        self.renderer = PartRenderer(self.parts, width, style_dim)

    @classmethod
    def from_state_dict(cls, tensors: Mapping[str, Tensor], **config: Any) -> Self:
        """The frozen network that holds these tensors (shared, not copied), constructed with `config`.

        What the tensors say by their shapes (`style_dim`, `width`, `n_mlp`, `depths`) need not be given. The buffers of
        SMPL that official checkpoints carry (`renderer.smpl_model.*`) are dropped.

        Raises:
            InputError: tensors are missing, superfluous or of another shape.
        """
        own = {name: value for name, value in tensors.items() if not name.startswith(BODY)}
        said = sizes(own)
        if config.get("is_aist") or config.get("parts") is not None:
            said.pop("depths", None)
        with torch.device("meta"):
            network = cls(**(said | config))
        network.load_state_dict(checked(own, network.state_dict()), assign=True)
        return network.requires_grad_(False).eval()

    @property
    def num_ws(self) -> int:
        """L, the FiLM layers of all parts: the rows of an extended latent."""
        return sum(part.depth + 1 for part in self.parts)

    @property
    def networks(self) -> list[FilmSiren]:
        """The parts' networks, in their order."""
        found = [part.network for part in self.renderer.vox_list if isinstance(part, PartVolume)]
        assert len(found) == len(self.parts)
        return found

    def films(self, style: Tensor) -> list[Films]:
        """Frequencies and phases for each part.

        Args:
            style: (N, C), or (N, 1, C), shared by all layers as in the original; or (N, L, C), a row for each layer: part by
                part, the view layer last.

        Raises:
            InputError: the style has another shape.
        """
        if style.ndim == 3 and style.shape[1] == 1:
            style = style[:, 0]
        if style.shape[-1] != self.style.style_dim or not (style.ndim == 2 or style.shape[1:2] == (self.num_ws,)):
            raise InputError(
                f"a style is (N, {self.style.style_dim}) or (N, {self.num_ws}, {self.style.style_dim}), "
                f"not {tuple(style.shape)}."
            )
        if style.ndim == 2:
            return [network.films(style) for network in self.networks]
        rows = style.split([part.depth + 1 for part in self.parts], dim=1)
        return [network.films(row) for network, row in zip(self.networks, rows, strict=True)]

    def field(self, drive: Drive, geometry: Geometry) -> Field:
        """What one subject's networks make of samples; where parts overlap, their raw outputs are blended.

        Args:
            drive: from `films`, of one subject, or frequencies and phases of your own.
            geometry: from `geometry.look` or `geometry.locate`.
        """
        dtype = self.renderer.sigmoid_beta.dtype
        base = geometry.base.to(dtype)
        total = torch.zeros(len(base), 4, dtype=dtype, device=base.device)
        deltas = []
        for network, known, films in zip(self.networks, geometry.parts, drive, strict=True):
            raw = total[:0]
            if len(known.sample):
                raw = network(known.inputs[None].to(dtype), films)[0]
                total = total.index_add(0, known.sample, known.share[:, None].to(dtype) * raw)
            deltas.append(raw[:, 3])
        return Field(base + total[:, 3], total[:, :3], tuple(deltas))

    def see(
        self,
        body: Body,
        stance: Stance,
        camera: Tensor,
        *,
        size: tuple[int, int] | None = None,
        noise: Tensor | None = None,
        near: float | None = None,
    ) -> Sight:
        """What a camera (25,) sees of a body in a pose, with this network's samples; see `geometry.look`."""
        return look(
            body,
            stance,
            self.parts,
            camera,
            size or self.size,
            samples=self.samples,
            noise=noise,
            fixed_direction=self.fixed_direction,
            near=near,
        )

    def draw(self, drive: Drive, sight: Sight) -> Volume:
        """One picture (N = V = 1) of one subject. Rays that meet no box show the background."""
        field = self.field(drive, sight.geometry)
        with torch.autocast(sight.depths.device.type, enabled=False):
            depths = sight.depths.to(field.raw)
            sigma = density(field.distance, self.renderer.sigmoid_beta).view_as(depths)
            seen = composite(depths, sigma, field.raw.unflatten(0, depths.shape))
            rgb = seen.rgb + (1 - seen.alpha[:, None]) if self.white else seen.rgb
            ends = sight.origin.to(depths) * seen.alpha[:, None] + sight.directions.to(depths) * seen.depth[:, None]
            return Volume(
                spread(2 * rgb - 1, sight.rays, sight.size, 1.0 if self.white else -1.0)[None, None],
                spread(seen.alpha[:, None], sight.rays, sight.size, 0.0)[None, None],
                spread(seen.depth[:, None], sight.rays, sight.size, _farthest(seen.depth))[None, None],
                spread(ends, sight.rays, sight.size, 0.0)[None, None],
            )

    def template(self, sight: Sight) -> tuple[Tensor, Tensor]:
        """Depth and mask, each (1, 1, 1, H, W), of the template alone, without what the networks add to it."""
        depths = sight.depths.to(self.renderer.sigmoid_beta)
        sigma = density(sight.geometry.base.to(depths), self.renderer.sigmoid_beta).view_as(depths)
        weights = sample_weights(depths, sigma)
        depth = (weights * depths).sum(dim=1, keepdim=True)
        mask = weights.sum(dim=1, keepdim=True)
        return (
            spread(depth, sight.rays, sight.size, _farthest(depth))[None, None],
            spread(mask, sight.rays, sight.size, 0.0)[None, None],
        )

    def forward(
        self,
        style: Tensor,
        camera: Tensor,
        pose: Tensor,
        body: Body,
        *,
        size: tuple[int, int] | None = None,
        noise: Tensor | None = None,
        near: float | None = None,
    ) -> Volume:
        """What cameras (N, V, 25) see of the bodies of styles in poses (N, V, 85).

        Args:
            style: see `films`.
            camera: labels; see `rays.camera_label` for the original's cameras.
            pose: axis-angles 72, shape 10, translation 3; see `body`.
            body: the body model.
            size: height and width of the image, if other than `res_HW`.
            noise: of the depths, (N, V, H W, S) in [0, 1); None for none.
            near: see `geometry.look`.
        """
        drives = self.films(style)
        subjects = []
        for n in range(len(camera)):
            drive = [films.of(n) for films in drives]
            views = []
            for v in range(camera.shape[1]):
                given = None if noise is None else noise[n, v]
                stance = Stance.of(body, pose[n, v])
                sight = self.see(body, stance, camera[n, v], size=size, noise=given, near=near)
                views.append(self.draw(drive, sight))
            subjects.append(beside(views, dim=1))
        return beside(subjects, dim=0)

    def reset(self, rng: torch.Generator) -> Self:
        """Starting values for training, drawn on the CPU."""
        self.style.reset(rng)
        for network in self.networks:
            network.reset(rng)
        return self


def _farthest(depth: Tensor) -> Tensor | float:
    return depth.detach().max() if len(depth) else 0.0


def _parts(
    given: Iterable[Mapping[str, Any]] | Sequence[Part] | None, depths: Sequence[int] | None, is_aist: bool
) -> tuple[Part, ...]:
    table = list(PARTS if given is None else given)
    parts = tuple(part for part in table if isinstance(part, Part))
    if len(parts) != len(table):
        parts = listed(entry for entry in table if isinstance(entry, Mapping))
    if is_aist:
        parts = aist(parts)
    return parts if depths is None else with_depths(depths, parts)
