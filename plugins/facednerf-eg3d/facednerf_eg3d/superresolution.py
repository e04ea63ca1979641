"""The last stage: rendered features become an image of two, four or eight times the size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facednerf_core.errors import InputError
from facednerf_eg3d.layers import ModulatedConvolution, fir_filter
from facednerf_eg3d.synthesis import Noise, SynthesisBlock


@dataclass(frozen=True)
class Design:
    """One of the official modules: two synthesis blocks and when their input is resized."""

    input_resolution: int
    widths: tuple[int, int]
    grows: bool  # the first block doubles the size too
    resize: Literal["differs", "smaller"]  # when, compared with the input resolution
    own_filter: bool  # the module itself stores one more `resample_filter`


DESIGNS = {
    "8XDC": Design(128, (256, 128), grows=True, resize="differs", own_filter=False),
    "8X": Design(128, (128, 64), grows=True, resize="differs", own_filter=True),
    "4X": Design(128, (128, 64), grows=False, resize="smaller", own_filter=True),
    "2X": Design(64, (128, 64), grows=False, resize="differs", own_filter=True),
}
"""The modules by what follows 'SuperresolutionHybrid' in their official names."""


def design(name: str) -> Design:
    """The design behind an official dotted path ('training.superresolution.SuperresolutionHybrid2X') or its ending.

    Raises:
        InputError: there is no such module.
    """
    ending = name.rsplit(".", 1)[-1].removeprefix("SuperresolutionHybrid")
    if ending not in DESIGNS:
        raise InputError(f"no super-resolution module {name!r}; there are: {', '.join(DESIGNS)}.")
    return DESIGNS[ending]


class SuperResolution(nn.Module):
    """Features (B, C, r, r), of which the first three are the raw image, to an image (B, 3, p, p).

    The raw image is accumulated as a skip image. In the original's 2X and 4X that happens in place, so that the raw
    image it returns has changed; here it has not.
    """

    resample_filter: Tensor

    def __init__(
        self,
        plan: Design,
        *,
        features: int = 32,
        w_dim: int = 512,
        clamp: float | None = None,
        antialias: bool = True,
    ) -> None:
        super().__init__()
        self.plan = plan
        self.antialias = antialias
        if plan.own_filter:
            self.register_buffer("resample_filter", fir_filter())
        middle = plan.input_resolution * (2 if plan.grows else 1)
        first, second = plan.widths
        self.block0 = SynthesisBlock(
            features, first, w_dim=w_dim, resolution=middle, image_channels=3, up=plan.grows, clamp=clamp
        )
        self.block1 = SynthesisBlock(first, second, w_dim=w_dim, resolution=2 * middle, image_channels=3, clamp=clamp)
        self.resolution = 2 * middle

    def own_noise(self) -> Noise:
        """The fixed maps that the checkpoint carries; the released models use none here."""
        return {name: part.noise_const for name, part in self.named_modules() if isinstance(part, ModulatedConvolution)}

    def forward(self, feature: Tensor, w: Tensor, noise: Noise) -> Tensor:
        """The image (B, 3, p, p) under one latent row `w` (B, C), with maps under 'block0.conv0' and so on."""
        feature = self.fitted(feature)
        if feature.device.type != "cpu":
            return self._enlarged(feature, w, noise)
        # one by one: pictures of this size leave the cache anyway, and need less memory
        return torch.cat(
            [
                self._enlarged(
                    feature[one],
                    w[one],
                    {name: map_[one] if map_.ndim == 4 and len(map_) > 1 else map_ for name, map_ in maps},
                )
                for one, maps in ((slice(index, index + 1), noise.items()) for index in range(len(feature)))
            ]
        )

    def _enlarged(self, feature: Tensor, w: Tensor, noise: Noise) -> Tensor:
        rows = w[:, None].expand(-1, 3, -1)
        x, image = feature.to(self.block0.conv0.weight.dtype), feature[:, :3]
        for name, block in (("block0", self.block0), ("block1", self.block1)):
            own = {layer: noise[f"{name}.{layer}"] for layer in ("conv0", "conv1") if f"{name}.{layer}" in noise}
            x, image = block(x, image, rows, own)
        return image.contiguous()

    def fitted(self, feature: Tensor) -> Tensor:
        """The features at the resolution that the blocks expect."""
        wanted, have = self.plan.input_resolution, feature.shape[-1]
        if have == wanted or (self.plan.resize == "smaller" and have > wanted):
            return feature
        return resized(feature, wanted, antialias=self.antialias)


def resized(image: Tensor, size: int, *, antialias: bool = True) -> Tensor:
    """Images (B, C, h, w) at `size` squared pixels, bilinear."""
    if not antialias or size > image.shape[-1]:  # antialiasing changes nothing where an image grows
        return F.interpolate(image, size=(size, size), mode="bilinear", align_corners=False)
    return F.interpolate(image, size=(size, size), mode="bilinear", align_corners=False, antialias=True)


def clamp_of(half_blocks: int) -> float | None:
    """The clamp that `sr_num_fp16_res` implies: half precision keeps within 256, on every device."""
    return 256.0 if half_blocks > 0 else None
