"""The published EG3D networks: what is said of them before they are here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from facednerf_core.cards import WeightsCard

LICENCE = "NVIDIA Source Code License for EG3D"
TERMS = "For research or evaluation only, not commercially; read the licence where you get the file."
SOURCE = "https://catalog.ngc.nvidia.com/orgs/nvidia/teams/research/models/eg3d"
FACE_FRAMING = {
    "eye_x": 0.0839,
    "eye_y": 0.0783,
    "eye_z": 0.0359,
    "nose_y": -0.0125,
    "nose_z": 0.1492,
    "mouth_x": 0.0676,
    "mouth_y": -0.1030,
    "mouth_z": 0.0603,
}
"""The mean face of the pose estimator that cropped the photos of FFHQ for EG3D (Deng et al. 2019): its five points, in the
estimator's units, times 2.7 / 10, the ratio of the two cameras' distances. Derived, not measured on the network's renderings
(`facednerf_core.framing.measured`), as no official file was at hand."""


@dataclass(frozen=True)
class Release:
    """One of the published networks."""

    name: str  # of its card, after the stroke
    file: str
    summary: str
    domain: str
    pivot: tuple[float, float, float]
    resolution: int = 512
    rays: int = 128
    module: str = "8XDC"  # of super-resolution
    radius: float = 2.7
    focal: float = 4.2647
    yaw: float = 0.6  # how far from frontal it can be trusted, radians: ours, from what its photos show
    pitch: float = 0.3
    sampling: Mapping[str, Any] | None = None  # rendering arguments, where they are not those of faces

    def arguments(self) -> dict[str, Any]:
        """What the network was constructed with: for files that hold its tensors only."""
        rendering = {
            "image_resolution": self.resolution,
            "disparity_space_sampling": False,
            "clamp_mode": "softplus",
            "superresolution_module": f"training.superresolution.SuperresolutionHybrid{self.module}",
            "c_gen_conditioning_zero": False,
            "c_scale": 1.0,
            "superresolution_noise_mode": "none",
            "decoder_lr_mul": 1.0,
            "sr_antialias": True,
            "depth_resolution": 48,
            "depth_resolution_importance": 48,
            "ray_start": 2.25,
            "ray_end": 3.3,
            "box_warp": 1,
            "avg_camera_radius": self.radius,
            "avg_camera_pivot": list(self.pivot),
        }
        return {
            "z_dim": 512,
            "c_dim": 25,
            "w_dim": 512,
            "img_resolution": self.resolution,
            "img_channels": 3,
            "mapping_kwargs": {"num_layers": 2},
            "channel_base": 32768,
            "channel_max": 512,
            "conv_clamp": None,
            "sr_num_fp16_res": 4,
            "neural_rendering_resolution": self.rays,
            "rendering_kwargs": rendering | dict(self.sampling or {}),
        }

    def card(self) -> WeightsCard:
        """For the registry."""
        whole = self.domain == "car"  # and nothing behind it, so that opacity is its mask
        return WeightsCard(
            f"eg3d/{self.name}",
            "eg3d",
            "generator",
            "official",
            self.summary,
            domains=(self.domain,),
            files={"tensors": "generator.safetensors", "config": "generator.json"},
            licence=LICENCE,
            terms_of_use=TERMS,
            source=f"{SOURCE} (the file {self.file})",
            converter=f"facednerf_eg3d.conversion:{self.name}",
            resolution=self.resolution,
            latent=(14, 512),
            provides=("depth", "mask", "density") if whole else ("depth", "density"),
            crop=FACE_FRAMING if self.domain == "face" else {},
            orbit={
                "radius": self.radius, "pivot": self.pivot, "focal": self.focal, "yaw": self.yaw, "pitch": self.pitch
            },
            background="white" if whole else "own",
        )  # fmt: skip


RELEASES = {
    release.name: release
    for release in (
        Release(
            "ffhq",
            "ffhqrebalanced512-128.pkl",
            "EG3D's faces at 512 pixels, trained on FFHQ",
            "face",
            (0.0, 0.0, 0.2),
        ),
        Release(
            "cats",
            "afhqcats512-128.pkl",
            "EG3D's cats at 512 pixels, trained on AFHQ",
            "cat",
            (0.0, 0.0, -0.06),
        ),
        Release(
            "cars",
            "shapenetcars128-64.pkl",
            "EG3D's cars at 128 pixels, trained on renderings of ShapeNet",
            "car",
            (0.0, 0.0, 0.0),
            resolution=128,
            rays=64,
            module="2X",
            radius=1.7,
            focal=1.7074,
            yaw=3.1416,
            pitch=0.5,
            sampling={
                "c_gen_conditioning_zero": True,
                "depth_resolution": 64,
                "depth_resolution_importance": 64,
                "ray_start": 0.1,
                "ray_end": 2.6,
                "box_warp": 1.6,
                "white_back": True,
            },
        ),
    )
}
"""By the last part of their cards' names."""
