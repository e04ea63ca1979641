"""What stands around the rendered head: a background that is locked to the screen, the raw image, the enlargement."""

from __future__ import annotations

from typing import NamedTuple

import torch
from facednerf_eg3d.superresolution import SuperResolution, resized
from facednerf_eg3d.synthesis import Noise, SynthesisNetwork
from torch import Tensor


class Composed(NamedTuple):
    """What V cameras see of N heads in front of their backgrounds, before super-resolution."""

    feature: Tensor  # (N, V, C, r, r), the head's features over the background's
    raw: Tensor  # (N, V, 3, r, r), the image before super-resolution, not limited to [-1, 1]
    depth: Tensor  # (N, V, 1, r, r), distance along the ray, world units
    alpha: Tensor  # (N, V, 1, r, r), how much of the pixel is subject, [0, 1]

    @property
    def mask(self) -> Tensor:
        """The original's `image_mask`: alpha, widened to [-0.001, 1.001]. It is returned, never blended with."""
        return self.alpha * 1.002 - 0.001


def background_rows(ws: Tensor, count: int) -> Tensor:
    """The first `count` rows of a latent (N, L, C); a shorter one goes on with its last row."""
    missing = max(0, count - ws.shape[1])
    return torch.cat([ws[:, :count], ws[:, -1:].expand(-1, missing, -1)], dim=1)


def painted(network: SynthesisNetwork, ws: Tensor, noise: Noise) -> Tensor:
    """The background's features (N, C, R, R): a synthesis network under the head's latent, or one of its own."""
    image: Tensor = network(background_rows(ws, network.num_ws), noise)
    return image


def over(feature: Tensor, alpha: Tensor, background: Tensor, *, antialias: bool) -> Tensor:
    """Rendered features (N, V, C, r, r), which alpha (N, V, 1, r, r) has weighted already, over a background
    (N, C, R, R), which is brought to their resolution and is the same in every view."""
    side, background = feature.shape[-1], background.to(feature.dtype)
    if background.shape[-1] != side:
        background = resized(background, side, antialias=antialias)
    return feature + (1.0 - alpha) * background[:, None]


def enlarged(network: SuperResolution, feature: Tensor, raw: Tensor, w: Tensor, noise: Noise) -> Tensor:
    """The image (B, 3, p, p) of features (B, C, r, r), accumulated on their raw image (B, 3, r, r).

    EG3D's super-resolution takes the first three features for the raw image; here it is given. It stays as it is: where
    the original resizes nothing, its 2X and 4X add to it in place.

    Args:
        network: EG3D's.
        feature: composed features, resized in their own dtype.
        raw: their image.
        w: one latent row (B, C) for all layers, in the dtype of the network.
        noise: maps under 'block0.conv0' and so on.
    """
    both = network.fitted(torch.cat([raw, feature], dim=1)).to(w.dtype)
    image, x = both[:, : raw.shape[1]], both[:, raw.shape[1] :]
    rows = w[:, None].expand(-1, 3, -1)
    for name, block in (("block0", network.block0), ("block1", network.block1)):
        own = {layer: noise[f"{name}.{layer}"] for layer in ("conv0", "conv1") if f"{name}.{layer}" in noise}
        x, image = block(x, image, rows, own)
    return image
