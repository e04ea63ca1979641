"""The StyleGAN2 synthesis network with skip connections: latent rows become the channels of the planes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from facednerf_eg3d.layers import ModulatedConvolution, ToImage, fir_filter, upsample_image

Noise = Mapping[str, Tensor]
"""Noise maps by layer ('b16.conv0'), each (p, p) or (N, 1, p, p); a layer without a map gets none."""


class SynthesisBlock(nn.Module):
    """Two modulated convolutions and an image layer; the image is accumulated on the upsampled one before.

    The first block of a network (`in_channels` 0) starts from a learnt constant and has one convolution. `up=False`
    keeps the resolution, as the first block of EG3D's 2X and 4X super-resolution does.
    """

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        w_dim: int,
        resolution: int,
        image_channels: int,
        up: bool = True,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.up = up
        self.first = in_channels == 0
        if self.first:
            self.const = nn.Parameter(torch.randn(out_channels, resolution, resolution))
        self.register_buffer("resample_filter", fir_filter())
        if not self.first:
            self.conv0 = ModulatedConvolution(
                in_channels, out_channels, w_dim=w_dim, resolution=resolution, up=up, clamp=clamp
            )
        self.conv1 = ModulatedConvolution(out_channels, out_channels, w_dim=w_dim, resolution=resolution, clamp=clamp)
        self.torgb = ToImage(out_channels, image_channels, w_dim=w_dim, clamp=clamp)

    @property
    def rows(self) -> int:
        """How many latent rows the convolutions use; the image layer uses the next one."""
        return 1 if self.first else 2

    def forward(
        self, x: Tensor | None, image: Tensor | None, ws: Tensor, noise: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Activations and image, each (N, ., H, W) or None before the first block, to those of this block.

        Args:
            x: activations.
            image: what was accumulated so far; never changed in place.
            ws: this block's latent rows (N, rows + 1, C).
            noise: maps under 'conv0' and 'conv1'.
        """
        x = self.const.expand(ws.shape[0], -1, -1, -1) if x is None else self.conv0(x, ws[:, 0], noise.get("conv0"))
        mixing = self.torgb.mixing(ws[:, self.rows])
        x, drawn = self.conv1.drawn(x, ws[:, self.rows - 1], noise.get("conv1"), mixing)
        drawn = self.torgb.finished(drawn)
        if image is None:
            return x, drawn
        return x, drawn + (upsample_image(image, self.resample_filter) if self.up else image)


class SynthesisNetwork(nn.Module):
    """Latents (N, num_ws, C) to images (N, image_channels, resolution, resolution)."""

    def __init__(
        self,
        *,
        w_dim: int,
        resolution: int,
        image_channels: int,
        channel_base: int = 32768,
        channel_max: int = 512,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.resolutions = [4 << step for step in range(resolution.bit_length() - 2)]
        if resolution < 4 or self.resolutions[-1] != resolution:
            raise ValueError(f"a synthesis network's resolution is a power of two from 4 up, not {resolution}")
        width = {p: min(channel_base // p, channel_max) for p in self.resolutions}
        for p in self.resolutions:
            block = SynthesisBlock(
                0 if p == 4 else width[p // 2],
                width[p],
                w_dim=w_dim,
                resolution=p,
                image_channels=image_channels,
                clamp=clamp,
            )
            self.add_module(f"b{p}", block)
        self.num_ws = 2 * len(self.resolutions)

    def blocks(self) -> Mapping[str, SynthesisBlock]:
        """The blocks by name, coarse to fine."""
        found = {f"b{p}": getattr(self, f"b{p}") for p in self.resolutions}
        return {name: block for name, block in found.items() if isinstance(block, SynthesisBlock)}

    def layers(self) -> Mapping[str, ModulatedConvolution]:
        """The layers that take noise, by name ('b16.conv0'), coarse to fine."""
        return {name: layer for name, layer in self.named_modules() if isinstance(layer, ModulatedConvolution)}

    def own_noise(self) -> Noise:
        """The fixed maps that the checkpoint carries (`noise_const`)."""
        return {name: layer.noise_const for name, layer in self.layers().items()}

    def random_noise(self, subjects: int, rng: torch.Generator) -> Noise:
        """Fresh maps (N, 1, p, p), drawn on the CPU: what the official code calls noise_mode 'random'."""
        return {
            name: torch.randn(subjects, 1, layer.resolution, layer.resolution, generator=rng).to(layer.weight)
            for name, layer in self.layers().items()
        }

    def forward(self, ws: Tensor, noise: Noise) -> Tensor:
        """The image of latents (N, num_ws, C). A block's image layer shares its row with the next block's `conv0`."""
        x: Tensor | None = None
        image: Tensor | None = None
        row = 0
        for name, block in self.blocks().items():
            own = {layer: noise[f"{name}.{layer}"] for layer in ("conv0", "conv1") if f"{name}.{layer}" in noise}
            x, image = block(x, image, ws[:, row : row + block.rows + 1], own)
            row += block.rows
        assert image is not None
        return image
