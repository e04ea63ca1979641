"""EG3D's generator (Chan et al. 2022): a latent becomes three planes, planes are rendered, the rendering is enlarged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

from facednerf_core.errors import InputError
from facednerf_eg3d.arguments import UNUSED, check_arguments, check_tensors, widths_of
from facednerf_eg3d.decoder import Decoder
from facednerf_eg3d.mapping import MappingNetwork
from facednerf_eg3d.modulation import precise
from facednerf_eg3d.planefield import PlaneField
from facednerf_eg3d.rays import camera_rays
from facednerf_eg3d.sampling import Draws, middle_draws
from facednerf_eg3d.superresolution import SuperResolution, clamp_of, design
from facednerf_eg3d.synthesis import Noise, SynthesisNetwork
from facednerf_eg3d.triplanes import EG3D_AXES, mean_features, plane_axes
from facednerf_eg3d.volume import Field, RayOptions, Rules, trace

POINTS_AT_ONCE = 2**18
"""How many points of a subject a GPU decodes together where no gradient is wanted."""


class Volume(NamedTuple):
    """What V cameras see of N sets of planes, before super-resolution."""

    feature: Tensor  # (N, V, C, r, r), the first three channels an image in about [-1, 1]
    depth: Tensor  # (N, V, 1, r, r), distance along the ray, world units
    alpha: Tensor  # (N, V, 1, r, r), how much of the pixel is subject, [0, 1]

    @property
    def raw(self) -> Tensor:
        """The image before super-resolution, (N, V, 3, r, r)."""
        return self.feature[:, :, :3]


class Backbone(nn.Module):
    """The StyleGAN2 part, under its stored names."""

    def __init__(self, synthesis: SynthesisNetwork, mapping: MappingNetwork) -> None:
        super().__init__()
        self.synthesis = synthesis
        self.mapping = mapping


class TriPlaneGenerator(nn.Module):
    """EG3D's generator, under the tensor names of the official checkpoints.

    Synthesis of planes and rendering are separate, so that one set of planes serves many cameras. Parameters may have any
    float dtype, and autocast any: both reach the convolutions only. Images are accumulated, and volumes rendered, in float32
    at least. Nothing is drawn at random unless the caller gives the numbers.
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
        sr_num_fp16_res: int = 0,
        num_fp16_res: int = 0,
        fused_modconv_default: str = "inference_only",
        sr_kwargs: Mapping[str, Any] | None = None,
        neural_rendering_resolution: int = 64,
        axes: Sequence[Sequence[Sequence[float]]] | Tensor | None = None,
        plane_resolution: int = 256,
        plane_features: int = 32,
        decoder_hidden: int = 64,
        sr_input_resolution: int | None = None,
        sr_widths: tuple[int, int] | None = None,
    ) -> None:
        """The first group of arguments is the official constructor's; what follows `sr_kwargs` is ours, and by default
        gives the official network.

        Args:
            z_dim: length of the random vector.
            c_dim: length of the camera label.
            w_dim: length of a latent row.
            img_resolution: of the finished image; must be what the super-resolution gives.
            img_channels: three.
            rendering_kwargs: how rays are sampled; see `RayOptions.read`, and the names used below.
            mapping_kwargs: `num_layers` (2).
            channel_base: a block of resolution p has min(channel_base // p, channel_max) channels.
            channel_max: see `channel_base`.
            conv_clamp: clamp of the backbone's layers, None in all releases.
            sr_num_fp16_res: above 0, super-resolution layers are clamped at 256, as the original does on any device.
            num_fp16_res: accepted as the checkpoints store it; everything here is float32.
            fused_modconv_default: accepted as the checkpoints store it; both ways give the same values.
            sr_kwargs: accepted as the checkpoints store it; the original ignores it too.
            neural_rendering_resolution: rays per side, unless a call says otherwise (128 in the 512-pixel releases).
            axes: the checkpoint's `plane_axes` (3, 3, 3); None for the published table.
            plane_resolution: height and width of a plane.
            plane_features: channels of a plane and of the rendered features.
            decoder_hidden: width of the decoder.
            sr_input_resolution: of the super-resolution; None for the official module's.
            sr_widths: channels of its two blocks; None for the official module's.

        Raises:
            InputError: the arguments do not describe a network.
        """
        super().__init__()
        del num_fp16_res, fused_modconv_default, sr_kwargs
        if img_channels != 3:
            raise InputError(f"img_channels is {img_channels}; only three, RGB, exist.")
        self.rendering_kwargs = dict(rendering_kwargs)
        self.options = RayOptions.read(rendering_kwargs)
        self.axes = EG3D_AXES if axes is None else plane_axes(axes)
        self.neural_rendering_resolution = neural_rendering_resolution
        self.plane_features = plane_features
        self.img_resolution = img_resolution
        synthesis = SynthesisNetwork(
            w_dim=w_dim,
            resolution=plane_resolution,
            image_channels=3 * plane_features,
            channel_base=channel_base,
            channel_max=channel_max,
            clamp=conv_clamp,
        )
        mapping = MappingNetwork(
            z_dim=z_dim,
            c_dim=c_dim,
            w_dim=w_dim,
            num_ws=synthesis.num_ws,
            num_layers=int((mapping_kwargs or {}).get("num_layers", 2)),
            c_scale=float(rendering_kwargs.get("c_scale", 0.0)),
            zero_c=bool(rendering_kwargs.get("c_gen_conditioning_zero", False)),
        )
        self.backbone = Backbone(synthesis, mapping)
        plan = design(str(rendering_kwargs.get("superresolution_module")))
        self.superresolution = SuperResolution(
            replace(
                plan,
                input_resolution=sr_input_resolution or plan.input_resolution,
                widths=plan.widths if sr_widths is None else (sr_widths[0], sr_widths[1]),
            ),
            features=plane_features,
            w_dim=w_dim,
            clamp=clamp_of(sr_num_fp16_res),
            antialias=bool(rendering_kwargs.get("sr_antialias", True)),
        )
        if self.superresolution.resolution != img_resolution:
            raise InputError(
                f"img_resolution is {img_resolution}, but the super-resolution gives {self.superresolution.resolution}."
            )
        self.sr_noise = str(rendering_kwargs.get("superresolution_noise_mode", "none"))
        if self.sr_noise not in ("none", "const"):
            raise InputError(
                f"superresolution_noise_mode is {self.sr_noise!r}; 'none' and 'const' exist, and `enlarge` takes other maps."
            )
        self.decoder = Decoder(
            plane_features,
            plane_features,
            decoder_hidden,
            lr_multiplier=float(rendering_kwargs.get("decoder_lr_mul", 1.0)),
        )

    @classmethod
    def from_state_dict(cls, tensors: Mapping[str, Tensor], **config: Any) -> Self:
        """The frozen network that holds these tensors (shared, not copied), constructed with `config`.

        `tensors` have the official names ('backbone.synthesis.b4.const', 'decoder.net.0.weight') and any float dtype, which
        the network keeps. `config` has the official constructor's arguments, as a checkpoint stores them, and
        `neural_rendering_resolution`, which a checkpoint stores beside them. Where widths of ours (the arguments from
        `plane_resolution` on) are not given, the tensors tell them, so that shrunken networks need none.

        Raises:
            InputError: an argument is unknown, tensors are missing, superfluous or of another shape, or the low pass is not
                EG3D's.
        """
        given = {name: value for name, value in tensors.items() if name not in UNUSED}
        check_arguments(cls, config)
        with torch.device("meta"):
            network = cls(**(widths_of(given, config) | config))
        check_tensors(given, network.state_dict())
        network.load_state_dict(given, assign=True)
        return network.requires_grad_(False).eval()

    @property
    def num_ws(self) -> int:
        """L, the rows of a latent."""
        return self.backbone.synthesis.num_ws

    def mapping(self, z: Tensor, c: Tensor, truncation: float = 1.0, cutoff: int | None = None) -> Tensor:
        """Latents (N, L, C) of random vectors (N, z_dim) under conditioning cameras (N, 25)."""
        ws: Tensor = self.backbone.mapping(z, c, truncation, cutoff)
        return ws

    def own_noise(self) -> Noise:
        """The fixed maps of the planes' layers that the checkpoint carries."""
        return self.backbone.synthesis.own_noise()

    def planes(self, ws: Tensor, noise: Noise | Literal["const", "none"] = "const") -> Tensor:
        """The planes (N, 3, C, H, W) of latents (N, L, C), with the checkpoint's noise maps, none, or these."""
        if isinstance(noise, str):
            noise = self.own_noise() if noise == "const" else {}
        image: Tensor = self.backbone.synthesis(ws, noise)
        return image.unflatten(1, (3, self.plane_features))

    def field(self, planes: Tensor) -> Field:
        """What planes (N, 3, C, H, W) and decoder make of points: a function of (N, P, 3) to raw density (N, P), before the
        marcher's shift and softplus, and colour features (N, P, C)."""
        planes = planes.to(torch.promote_types(planes.dtype, torch.float32))
        if planes.device.type == "cpu":
            first, bias, last, biases = (part.to(planes.dtype) for part in self.decoder.weights())
            return PlaneField(planes, self.axes, (first, bias, last, biases), self.options.box_warp)
        return lambda points: self._decoded(planes, points)

    def _decoded(self, planes: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """The plain way, in portions where no gradient is wanted, so that large images fit into memory."""
        if torch.is_grad_enabled() or points.shape[1] <= POINTS_AT_ONCE:
            sigma, colours = self.decoder(mean_features(planes, points, self.axes, self.options.box_warp))
            return sigma, colours
        portions = [self._decoded(planes, part) for part in points.split(POINTS_AT_ONCE, dim=1)]
        return torch.cat([sigma for sigma, _ in portions], dim=1), torch.cat([colour for _, colour in portions], dim=1)

    def render(
        self,
        planes: Tensor,
        camera: Tensor,
        *,
        resolution: int | None = None,
        draws: Draws | None = None,
        rules: Rules = "view",
        options: RayOptions | None = None,
    ) -> Volume:
        """What cameras (N, V, 25) see of planes (N, 3, C, H, W); the V views share their subject's planes.

        Args:
            planes: from `planes`.
            camera: labels.
            resolution: rays per side.
            draws: the random numbers behind the depths; None for the middle of each interval.
            rules: whether batch-wide rules hold per view or, as in the original, for the whole batch.
            options: how rays are sampled, other than the checkpoint's own.
        """
        resolution = resolution or self.neural_rendering_resolution
        options = options or self.options
        planes = planes.to(torch.promote_types(planes.dtype, torch.float32))
        with precise(planes):
            origins, directions = camera_rays(camera.to(planes.dtype), resolution)
            draws = (draws or middle_draws(options.coarse, options.fine, directions)).to(planes)
            field = self.field(planes)
            density = field.density if isinstance(field, PlaneField) else None
            traced = trace(field, origins, directions, options, draws, rules=rules, density=density)
        side = (resolution, resolution)
        return Volume(
            traced.feature.transpose(2, 3).unflatten(3, side),
            traced.depth[:, :, None].unflatten(3, side),
            traced.alpha[:, :, None].unflatten(3, side),
        )

    def enlarge(self, feature: Tensor, ws: Tensor, noise: Noise | Literal["const", "none"] | None = None) -> Tensor:
        """Finished images (N, V, 3, p, p) of rendered features (N, V, C, r, r), styled by the last latent row.

        `noise` is what the super-resolution adds: the checkpoint's maps, none, or these under 'block0.conv0' and so on; None
        for what the checkpoint asks for, which is none in all releases.
        """
        views = feature.shape[1]
        w = ws[:, -1:].expand(-1, views, -1).flatten(0, 1)
        chosen = self.sr_noise if noise is None else noise
        if isinstance(chosen, str):
            chosen = self.superresolution.own_noise() if chosen == "const" else {}
        image: Tensor = self.superresolution(feature.flatten(0, 1), w, chosen)
        return image.unflatten(0, (-1, views))

    def forward(
        self,
        ws: Tensor,
        camera: Tensor,
        *,
        noise: Noise | Literal["const", "none"] = "const",
        resolution: int | None = None,
        draws: Draws | None = None,
        rules: Rules = "view",
    ) -> tuple[Tensor, Volume]:
        """Finished images (N, V, 3, p, p) and the rendering they were made from; latents (N, L, C), cameras (N, V, 25)."""
        volume = self.render(self.planes(ws, noise), camera, resolution=resolution, draws=draws, rules=rules)
        return self.enlarge(volume.feature, ws), volume
