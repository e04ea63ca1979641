"""PanoHead's generator (An et al. 2023): a latent becomes a tri-grid, seen from all round in front of a background."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Self, TypeAlias

import torch
from facednerf_eg3d.layers import ToImage
from facednerf_eg3d.network import Backbone
from facednerf_eg3d.rays import camera_rays
from facednerf_eg3d.sampling import Draws, middle_draws
from facednerf_eg3d.superresolution import SuperResolution, clamp_of, design
from facednerf_eg3d.synthesis import Noise, SynthesisNetwork
from facednerf_eg3d.volume import Field, Rules, trace
from torch import Tensor, nn

from facednerf_core.errors import InputError
from facednerf_panohead.clouds import HeadRayOptions, trimmed
from facednerf_panohead.composition import Composed, enlarged, over, painted
from facednerf_panohead.decoder import Decoder, activation
from facednerf_panohead.gridfield import field_of
from facednerf_panohead.mapping import latent_mapping, moved, offset_mapping
from facednerf_panohead.tensors import checked, sizes
from facednerf_panohead.trigrid import PANOHEAD_AXES, as_grids, grid_axes

Maps: TypeAlias = Noise | Literal["const", "none"]
"""Noise maps by layer ('b16.conv0', 'bcg_synthesis.b16.conv0'); 'const': the checkpoint's own; 'none'."""
BACKGROUND = "bcg_synthesis."


class TriGridGenerator(nn.Module):
    """PanoHead's generator, under the tensor names of the official checkpoints.

    Synthesis and rendering are separate, so that one tri-grid serves many cameras. Networks compute in the dtype of the
    parameters, or as autocast has it; volume and composition in float32 at least. Nothing is drawn at random unless the
    caller gives the numbers.
    """

    def __init__(
        self,
        z_dim: int = 512,
        c_dim: int = 25,
        w_dim: int = 512,
        img_resolution: int = 512,
        img_channels: int = 3,
        *,
        rendering_kwargs: Mapping[str, Any],
        mapping_kwargs: Mapping[str, Any] | None = None,
        channel_base: int = 32768,
        channel_max: int = 512,
        conv_clamp: float | None = None,
        architecture: str = "skip",
        sr_num_fp16_res: int = 0,
        num_fp16_res: int = 0,
        fused_modconv_default: str = "inference_only",
        sr_kwargs: Mapping[str, Any] | None = None,
        neural_rendering_resolution: int = 64,
        axes: Sequence[Sequence[Sequence[float]]] | Tensor | None = None,
        plane_resolution: int | None = None,
        plane_features: int = 32,
        decoder_hidden: int = 64,
        sr_input_resolution: int | None = None,
        sr_widths: tuple[int, int] | None = None,
        offset_layers: int | None = None,
    ) -> None:
        """The first group of arguments is the official constructor's; what follows `sr_kwargs` is ours, and by default
        gives the official network.

        Args:
            z_dim: length of the random vector.
            c_dim: length of the camera label.
            w_dim: length of a latent row.
            img_resolution: of the finished image; must be what the super-resolution gives.
            img_channels: three.
            rendering_kwargs: how rays are sampled (`HeadRayOptions.read`), and the names used below.
            mapping_kwargs: `num_layers` (2).
            channel_base: a block of resolution p has min(channel_base // p, channel_max) channels; half of the base in
                the background's network.
            channel_max: see `channel_base`.
            conv_clamp: clamp of the layers before super-resolution, None in all releases.
            architecture: 'skip'.
            sr_num_fp16_res: above 0, super-resolution layers are clamped at 256, as the original does on any device.
            num_fp16_res: accepted as the checkpoints store it.
            fused_modconv_default: accepted as the checkpoints store it; both ways give the same values.
            sr_kwargs: accepted as the checkpoints store it; the original ignores it too.
            neural_rendering_resolution: rays per side, unless a call says otherwise.
            axes: the checkpoint's `plane_axes` (3, 3, 3); None for the published table.
            plane_resolution: height and width of a grid; None for the option `triplane_size`.
            plane_features: channels of a grid and of the rendered features.
            decoder_hidden: width of the decoder.
            sr_input_resolution: of the super-resolution, and the background's; None for the official module's.
            sr_widths: channels of its two blocks; None for the official module's.
            offset_layers: of the network behind the camera's offset; None for as many as the mapping has.

        Raises:
            InputError: the arguments do not describe a network.
        """
        super().__init__()
        del num_fp16_res, fused_modconv_default, sr_kwargs
        if img_channels != 3:
            raise InputError(f"img_channels is {img_channels}; only three, RGB, exist.")
        if architecture != "skip":
            raise InputError(f"architecture is {architecture!r}; only 'skip' exists.")
        self.rendering_kwargs = kwargs = dict(rendering_kwargs)
        self.options = HeadRayOptions.read(kwargs)
        self.axes = PANOHEAD_AXES if axes is None else grid_axes(axes)
        self.neural_rendering_resolution = neural_rendering_resolution
        self.img_resolution = img_resolution
        self.antialias = bool(kwargs.get("sr_antialias", True))
        self.depth = int(kwargs.get("triplane_depth", 1))
        if self.depth < 1:
            raise InputError(f"triplane_depth is {self.depth}; a grid has at least one slice.")
        synthesis = SynthesisNetwork(
            w_dim=w_dim,
            resolution=plane_resolution or int(kwargs.get("triplane_size", 256)),
            image_channels=3 * plane_features * self.depth,
            channel_base=channel_base,
            channel_max=channel_max,
            clamp=conv_clamp,
        )
        layers = int((mapping_kwargs or {}).get("num_layers", 2))
        self.backbone = Backbone(synthesis, latent_mapping(z_dim, c_dim, w_dim, synthesis.num_ws, layers, kwargs))
        plan = design(str(kwargs["superresolution_module"]))
        plan = replace(
            plan,
            input_resolution=sr_input_resolution or plan.input_resolution,
            widths=plan.widths if sr_widths is None else (sr_widths[0], sr_widths[1]),
        )
        self.superresolution = SuperResolution(
            plan, features=plane_features, w_dim=w_dim, clamp=clamp_of(sr_num_fp16_res), antialias=self.antialias
        )
        if self.superresolution.resolution != img_resolution:
            raise InputError(
                f"img_resolution is {img_resolution}, but the super-resolution gives {self.superresolution.resolution}."
            )
        self.sr_noise = str(kwargs.get("superresolution_noise_mode", "none"))
        if self.sr_noise not in ("none", "const"):
            raise InputError(f"superresolution_noise_mode is {self.sr_noise!r}; 'none' and 'const' exist.")
        self.decoder = Decoder(
            plane_features,
            plane_features,
            decoder_hidden,
            lr_multiplier=float(kwargs.get("decoder_lr_mul", 1.0)),
            activation=activation(str(kwargs.get("decoder_activation", "sigmoid"))),
        )
        self.torgb = ToImage(plane_features, 3, w_dim=w_dim) if kwargs.get("use_torgb_raw", False) else None
        self.bcg_synthesis = None
        if kwargs.get("use_background", False):
            self.bcg_synthesis = SynthesisNetwork(
                w_dim=w_dim,
                resolution=plan.input_resolution,
                image_channels=plane_features,
                channel_base=channel_base // 2,
                channel_max=channel_max,
                clamp=conv_clamp,
            )
        self.t_mapping = offset_mapping(z_dim, c_dim, offset_layers or layers, kwargs)

    @classmethod
    def from_state_dict(cls, tensors: Mapping[str, Tensor], **config: Any) -> Self:
        """The frozen network that holds these tensors (shared, not copied), constructed with `config`.

        The official constructor's arguments are enough: sizes that the original has in its code are read from the tensors.
        Where `use_torgb_raw` or `use_background` is off, their tensors are left aside.

        Raises:
            InputError: tensors are missing, superfluous or of another shape, or the low pass is not StyleGAN's.
        """
        rendering = config["rendering_kwargs"]
        with torch.device("meta"):
            network = cls(**(sizes(tensors, rendering) | config))
        network.load_state_dict(checked(tensors, network.state_dict(), rendering), assign=True)
        return network.requires_grad_(False).eval()

    @property
    def num_ws(self) -> int:
        """L, the rows of a latent."""
        return self.backbone.synthesis.num_ws

    def mapping(self, z: Tensor, c: Tensor, truncation: float = 1.0, cutoff: int | None = None) -> Tensor:
        """Latents (N, L, C) of random vectors (N, z_dim) under conditioning cameras (N, 25)."""
        ws: Tensor = self.backbone.mapping(z, c, truncation, cutoff)
        return ws

    def offset(self, z: Tensor, c: Tensor, truncation: float = 1.0, cutoff: int | None = None) -> Tensor:
        """How far the cameras c (N, 25) of random vectors (N, z_dim) have to be shifted, (N, 3), world units."""
        found: Tensor = self.t_mapping(z, c, truncation, cutoff)
        return found[:, 0]

    def own_noise(self) -> Noise:
        """The fixed maps that the checkpoint carries, the background's with its name before the layer's."""
        maps = dict(self.backbone.synthesis.own_noise())
        if self.bcg_synthesis is not None:
            maps |= {BACKGROUND + name: value for name, value in self.bcg_synthesis.own_noise().items()}
        return maps

    def random_noise(self, subjects: int, rng: torch.Generator) -> Noise:
        """Fresh maps (N, 1, p, p), drawn on the CPU: what the official code calls noise_mode 'random', its default."""
        maps = dict(self.backbone.synthesis.random_noise(subjects, rng))
        if self.bcg_synthesis is not None:
            maps |= {BACKGROUND + name: value for name, value in self.bcg_synthesis.random_noise(subjects, rng).items()}
        return maps

    def _maps(self, noise: Maps) -> Noise:
        if isinstance(noise, str):
            return self.own_noise() if noise == "const" else {}
        return noise

    def grids(self, ws: Tensor, noise: Maps = "const") -> Tensor:
        """The tri-grid (N, 3, C, D, H, W) of latents (N, L, C)."""
        image: Tensor = self.backbone.synthesis(ws, self._maps(noise))
        return as_grids(image, self.depth)

    def background(self, ws: Tensor, noise: Maps = "const") -> Tensor | None:
        """What stands behind the head on the screen, features (N, C, R, R), or None where the network has none.

        Args:
            ws: the head's latents (N, L, C), or others, of any number of rows: the background's own.
            noise: see `Maps`.
        """
        if self.bcg_synthesis is None:
            return None
        given = self._maps(noise)
        own = {name.removeprefix(BACKGROUND): map_ for name, map_ in given.items() if name.startswith(BACKGROUND)}
        return painted(self.bcg_synthesis, ws, own)

    def field(self, grids: Tensor) -> Field:
        """What a tri-grid (N, 3, C, D, H, W) and the decoder make of points: a function of (N, P, 3) to raw density (N, P)
        and colour features (N, P, C). Nothing is cropped: that is the renderer's part (`clouds.trimmed`)."""
        return field_of(grids, self.decoder, self.axes, self.options.box_warp)

    def render(
        self,
        grids: Tensor,
        camera: Tensor,
        ws: Tensor,
        background: Tensor | None = None,
        *,
        resolution: int | None = None,
        draws: Draws | None = None,
        rules: Rules = "view",
        options: HeadRayOptions | None = None,
    ) -> Composed:
        """What cameras (N, V, 25) see of tri-grids (N, 3, C, D, H, W); the V views share their subject's.

        Args:
            grids: from `grids`.
            camera: labels.
            ws: the latents (N, L, C), of which the last row styles the raw image.
            background: from `background`; None for none.
            resolution: rays per side.
            draws: the random numbers behind the depths; None for the middle of each interval.
            rules: whether batch-wide rules hold per view or, as in the original, for the whole batch.
            options: how rays are sampled and what is cropped, other than the checkpoint's own.
        """
        resolution = resolution or self.neural_rendering_resolution
        options = options or self.options
        dtype = torch.promote_types(grids.dtype, torch.float32)
        with torch.autocast(grids.device.type, enabled=False):
            origins, directions = camera_rays(camera.to(dtype), resolution)
            draws = draws or middle_draws(options.coarse, options.fine, directions)
            draws = Draws(draws.coarse.to(dtype), draws.fine.to(dtype))
            field = trimmed(self.field(grids.to(dtype)), options)
            traced = trace(field, origins, directions, options, draws, rules=rules)
            side = (resolution, resolution)
            feature = traced.feature.transpose(2, 3).unflatten(3, side)
            depth, alpha = (value[:, :, None].unflatten(3, side) for value in (traced.depth, traced.alpha))
            if background is not None:
                feature = over(feature, alpha, background, antialias=self.antialias)
            return Composed(feature, self._raw(feature, ws), depth, alpha)

    def _raw(self, feature: Tensor, ws: Tensor) -> Tensor:
        """The image (N, V, 3, r, r) of composed features (N, V, C, r, r)."""
        if self.torgb is None:
            return feature[:, :, :3]
        like = self.torgb.weight
        raw: Tensor = self.torgb(feature.flatten(0, 1).to(like), _per_view(ws, feature.shape[1]).to(like))
        return raw.unflatten(0, feature.shape[:2]).to(feature)

    def enlarge(self, composed: Composed, ws: Tensor) -> Tensor:
        """Finished images (N, V, 3, p, p), styled by the last row of latents (N, L, C)."""
        views = composed.feature.shape[1]
        noise = self.superresolution.own_noise() if self.sr_noise == "const" else {}
        w = _per_view(ws, views).to(self.superresolution.block0.conv0.weight)
        image = enlarged(self.superresolution, composed.feature.flatten(0, 1), composed.raw.flatten(0, 1), w, noise)
        return image.unflatten(0, (-1, views))

    def forward(
        self,
        ws: Tensor,
        camera: Tensor,
        *,
        ws_bcg: Tensor | None = None,
        noise: Maps = "const",
        resolution: int | None = None,
        draws: Draws | None = None,
        rules: Rules = "view",
        options: HeadRayOptions | None = None,
    ) -> tuple[Tensor, Composed]:
        """Finished images (N, V, 3, p, p) and what they were made from: the original's `synthesis`, which moves no camera.

        Latents (N, L, C), cameras (N, V, 25); `ws_bcg` is the background's latent, the head's unless given.
        """
        background = self.background(ws if ws_bcg is None else ws_bcg, noise)
        composed = self.render(
            self.grids(ws, noise), camera, ws, background, resolution=resolution, draws=draws, rules=rules, options=options
        )
        return self.enlarge(composed, ws), composed

    def generate(
        self, z: Tensor, c: Tensor, truncation: float = 1.0, cutoff: int | None = None, **how: Any
    ) -> tuple[Tensor, Composed]:
        """The original's `forward`: random vectors (N, z_dim), mapped under cameras c (N, 25) and seen from the same
        cameras after the learnt offset; `how` as in `forward`."""
        ws = self.mapping(z, c, truncation, cutoff)
        camera = moved(c, self.offset(z, c, truncation, cutoff))
        image, composed = self(ws, camera[:, None], **how)
        return image, composed


def _per_view(ws: Tensor, views: int) -> Tensor:
    """The last latent row, once for each view: (N * V, C)."""
    return ws[:, -1:].expand(-1, views, -1).flatten(0, 1)
