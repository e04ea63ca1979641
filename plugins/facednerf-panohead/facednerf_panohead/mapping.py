"""Random vectors and cameras become latents, and the camera's own offset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from facednerf_eg3d import mapping as eg3d
from facednerf_eg3d.layers import FullyConnected, unit_second_moment
from torch import Tensor


class MappingNetwork(eg3d.MappingNetwork):
    """EG3D's, computing in the dtype of its weights, also where autocast is on: latents deserve their precision."""

    def row(self, z: Tensor, c: Tensor) -> Tensor:
        """The one latent row (N, w_dim) that the network computes, before it is repeated."""
        weight = self.embed.weight
        with torch.autocast(weight.device.type, enabled=False):
            label = unit_second_moment(self.embed(c.to(weight) * self.c_scale))
            x = torch.cat([unit_second_moment(z.to(weight)), label], dim=1)
            for index in range(self.num_layers):
                x = getattr(self, f"fc{index}")(x)
        return x


def latent_mapping(
    z_dim: int, c_dim: int, w_dim: int, num_ws: int, layers: int, rendering: Mapping[str, Any]
) -> MappingNetwork:
    """What draws latents; conditioned on a camera as `rendering_kwargs` say."""
    return MappingNetwork(
        z_dim=z_dim, c_dim=c_dim, w_dim=w_dim, num_ws=num_ws, num_layers=layers, **_conditioning(rendering)
    )


def offset_mapping(z_dim: int, c_dim: int, layers: int, rendering: Mapping[str, Any]) -> MappingNetwork:
    """What says how far a head stands from where its camera's label puts it (An et al. 2023, section 3.4: the learned
    camera offset that aligns in-the-wild views); three numbers, the last layer without activation."""
    network = MappingNetwork(
        z_dim=z_dim, c_dim=c_dim, w_dim=3, num_ws=1, num_layers=layers, lr_multiplier=1.0, **_conditioning(rendering)
    )
    last = getattr(network, f"fc{layers - 1}")
    assert isinstance(last, FullyConnected)
    last.activated = False
    return network


def _conditioning(rendering: Mapping[str, Any]) -> dict[str, Any]:
    """A missing `c_scale` counts as 0: no conditioning."""
    return {
        "c_scale": float(rendering.get("c_scale", 0.0)),
        "zero_c": bool(rendering.get("c_gen_conditioning_zero", False)),
    }


def moved(camera: Tensor, offset: Tensor) -> Tensor:
    """Camera labels (N, 25) whose translation is shifted by offsets (N, 3), world units."""
    shift = torch.zeros_like(camera).index_copy(1, torch.tensor([3, 7, 11], device=camera.device), offset.to(camera))
    return camera + shift
