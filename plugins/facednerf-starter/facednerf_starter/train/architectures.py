"""The networks that the generator's recipe can train, sized for the starter: EG3D's, and PanoHead's for heads seen from all
round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from facednerf_eg3d.layers import FullyConnected, ModulatedConvolution
from facednerf_eg3d.network import TriPlaneGenerator
from facednerf_eg3d.volume import Field
from facednerf_panohead.network import TriGridGenerator
from torch import Tensor, nn

from facednerf_starter.train.gathering import compiled, tabulated
from facednerf_starter.world.attributes import Z_DIM

Network = TriPlaneGenerator | TriGridGenerator


class _Planes(TriPlaneGenerator):
    """EG3D's, its planes read in the way that a compiler fuses."""

    def field(self, planes: Tensor) -> Field:
        if planes.device.type == "cpu":
            return super().field(planes)
        return _fused(planes, self.decoder.net, self.axes, self.options.box_warp, bounded=True)


class _Grids(TriGridGenerator):
    """PanoHead's, likewise."""

    def field(self, grids: Tensor) -> Field:
        if grids.device.type == "cpu":
            return super().field(grids)
        assert self.decoder.activation != "lrelu"  # no configuration here has it, and `gathering.decoded` does not
        bounded = self.decoder.activation == "sigmoid"
        return _fused(grids, self.decoder.net, self.axes, self.options.box_warp, bounded=bounded)


def _fused(grids: Tensor, layers: nn.Sequential, axes: Any, box_warp: float, *, bounded: bool) -> Field:
    first, last = layers[0], layers[2]
    assert isinstance(first, FullyConnected)
    assert isinstance(last, FullyConnected)
    table, sizes = tabulated(grids), tuple(grids.shape[3:][::-1])
    weights = (*first.scaled(), *last.scaled())
    return lambda points: compiled()(table, points, weights, axes, sizes, box_warp, bounded)


@dataclass(frozen=True)
class Architecture:
    """One of them: how it is told, and how it is called."""

    file: str  # the stem of the files that the recipe leaves
    plain: type[Network]  # what the files are read into
    fused: type[Network]  # the same, as it is trained
    about: str
    rendering: dict[str, Any]  # what of `rendering_kwargs` is its own
    sizes: Callable[[int, int], dict[str, int]]  # of the widest layer and the planes' features


ARCHITECTURES = {
    "eg3d": Architecture(
        "generator",
        TriPlaneGenerator,
        _Planes,
        "EG3D-architecture generator of the starter world's heads, 128 px, over white.",
        {"avg_camera_pivot": [0, 0, 0.2]},
        lambda channels, features: {"channel_base": 24 * channels, "plane_features": features},
    ),
    "panohead": Architecture(
        "panohead",
        TriGridGenerator,
        _Grids,
        "PanoHead-architecture generator of the starter world's heads from all round, 128 px, over white.",
        {
            "avg_camera_pivot": [0, 0, 0],
            "triplane_depth": 3,
            "triplane_crop": None,  # the world's shoulders reach the sides of the cube
            "decoder_activation": "none",
            "use_torgb_raw": True,
            "use_background": False,  # everything stands before white: a network for that would be two fifths of the file
        },
        lambda channels, features: {"channel_base": 20 * channels, "plane_features": features},
    ),
}


def configuration(
    name: str,
    size: int,
    *,
    width: int,
    layers: int,
    channels: int,
    features: int,
    hidden: int,
    samples: tuple[int, int],
    tiny: bool,
) -> dict[str, Any]:
    """Arguments of the network for images of `size` pixels; `width` and `layers` are the mapping's.

    Args:
        name: 'eg3d' or 'panohead'.
        size: of the image; half of it is the number of rays per side.
        width: numbers of w.
        layers: of the mapping.
        channels: most channels of a layer.
        features: channels of a plane.
        hidden: width of the decoder.
        samples: coarse and fine samples of a ray.
        tiny: a very small network instead, to try the recipe.
    """
    chosen = ARCHITECTURES[name]
    rendering = {
        "depth_resolution": 6 if tiny else samples[0],
        "depth_resolution_importance": 6 if tiny else samples[1],
        "ray_start": 2.25,
        "ray_end": 3.3,
        "box_warp": 1,
        "white_back": True,
        "c_scale": 0.0,
        "c_gen_conditioning_zero": True,
        "superresolution_module": "SuperresolutionHybrid2X",
        "superresolution_noise_mode": "none",
        "sr_antialias": True,
        "decoder_lr_mul": 1.0,
        "avg_camera_radius": 2.7,
        **chosen.rendering,
    }
    sizes = {"channel_base": 512, "plane_features": 4} if tiny else chosen.sizes(channels, features)
    return {
        "z_dim": Z_DIM,
        "c_dim": 25,
        "w_dim": width,
        "img_resolution": size,
        "img_channels": 3,
        "rendering_kwargs": rendering,
        "mapping_kwargs": {"num_layers": layers},
        "channel_max": 8 if tiny else channels,
        "plane_resolution": 32 if tiny else 128,
        "decoder_hidden": 8 if tiny else hidden,
        "neural_rendering_resolution": size // 2,
        "sr_input_resolution": size // 2,
        "sr_widths": [8, 4] if tiny else [48, 24],
        **sizes,
    }


def build(name: str, config: dict[str, Any]) -> Network:
    """The network to be trained, the noise maps of its planes made parameters: zero at first, at full strength."""
    network = ARCHITECTURES[name].fused(**config)
    for layer in network.backbone.synthesis.modules():
        if isinstance(layer, ModulatedConvolution):
            shape = layer.noise_const.shape
            del layer.noise_const
            layer.noise_const = nn.Parameter(torch.zeros(shape))
            nn.init.ones_(layer.noise_strength)
    return network
