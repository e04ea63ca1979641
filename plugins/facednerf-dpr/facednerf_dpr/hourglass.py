"""DPR's network: a portrait's lightness in, its light estimated, and the lightness under another light out.

Zhou, Hadap, Sunkavalli and Jacobs 2019, "Deep Single-Image Portrait Relighting". Four nested levels of an hourglass
(Newell et al. 2016) with skip branches; at the bottom the first channels are the light, and the others the face. Tensors
have the official names in their flat form; see `tensors.py` for the nested ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facednerf_core.errors import InputError
from facednerf_dpr.tensors import official

LEVELS = 4
COARSEST = 2**LEVELS
"""How many pixels of the input one position at the bottom stands for, along each side."""


class Block(nn.Module):
    """Two 3 x 3 convolutions, normalised, and a shortcut: the input, or a 1 x 1 convolution of it where the width changes.

    The official checkpoints have the tensor of that convolution in every block, used or not.
    """

    def __init__(self, inputs: int, outputs: int, norm: type[nn.BatchNorm2d] | type[nn.InstanceNorm2d]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn1 = norm(outputs)
        self.bn2 = norm(outputs)
        self.shortcuts = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        same = x.shape[1] == y.shape[1]
        return F.relu(y + (x if same else self.shortcuts(x)))


class Level(nn.Module):
    """One level: `upper` stays at its resolution, `low1` leads down to the next one, `low2` comes back."""

    def __init__(self, inputs: int, inner: int) -> None:
        super().__init__()
        self.upper = Block(inputs, inputs, nn.InstanceNorm2d)
        self.low1 = Block(inputs, inner, nn.BatchNorm2d)
        self.low2 = Block(inner, inputs, nn.InstanceNorm2d)

    def down(self, x: Tensor) -> Tensor:
        """To half the size: (B, inputs, H, W) -> (B, inner, H / 2, W / 2)."""
        lower: Tensor = self.low1(F.max_pool2d(x, 2))
        return lower

    def up(self, x: Tensor) -> Tensor:
        """Back: (B, inner, H / 2, W / 2) -> (B, inputs, H, W)."""
        return F.interpolate(self.low2(x), scale_factor=2, mode="nearest")


class LightNet(nn.Module):
    """Nine SH coefficients of the features that stand for light, and such features of nine others."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.predict_FC1 = nn.Conv2d(features, hidden, 1, bias=False)
        self.predict_relu1 = nn.PReLU()
        self.predict_FC2 = nn.Conv2d(hidden, 9, 1, bias=False)
        self.post_FC1 = nn.Conv2d(9, hidden, 1, bias=False)
        self.post_relu1 = nn.PReLU()
        self.post_FC2 = nn.Conv2d(hidden, features, 1, bias=False)

    def estimate(self, features: Tensor) -> Tensor:
        """The light (B, 9) of features (B, F, h, w), by their mean; these few numbers are left out of autocast."""
        with torch.autocast(features.device.type, enabled=False):
            mean = features.to(self.predict_FC1.weight.dtype).mean((2, 3), keepdim=True)
            found: Tensor = self.predict_FC2(self.predict_relu1(self.predict_FC1(mean)))
        return found.flatten(1)

    def features(self, light: Tensor) -> Tensor:
        """Features (B, F, 1, 1) of a light (B, 9)."""
        with torch.autocast(light.device.type, enabled=False):
            column = light.to(self.post_FC1.weight.dtype)[:, :, None, None]
            return F.relu(self.post_FC2(self.post_relu1(self.post_FC1(column))))


class Hourglass(nn.Module):
    """The network. The defaults are the official one at 512 pixels; a narrower one has the same tensors, smaller.

    Args:
        width: channels of the outermost level; the inner ones have 2, 4 and 8 times as many.
        light_features: channels at the bottom, besides those 8 times, that stand for light.
        light_hidden: hidden units between these and the nine coefficients.
        size: the shorter side, in pixels, of the pictures that it was trained on.

    Raises:
        InputError: a number is below 1, or the size is no multiple of 16.
    """

    def __init__(self, width: int = 16, light_features: int = 27, light_hidden: int = 128, size: int = 512) -> None:
        super().__init__()
        for name, value in {"width": width, "light_features": light_features, "light_hidden": light_hidden}.items():
            if value < 1:
                raise InputError(f"{name} of a DPR network must be at least 1, not {value}.")
        if size < 2 * COARSEST or size % COARSEST:
            raise InputError(f"size of a DPR network must be a multiple of {COARSEST} from {2 * COARSEST}, not {size}.")
        self.size, self.light_features = size, light_features
        self.pre_conv = nn.Conv2d(1, width, 5, padding=2)
        self.pre_bn = nn.BatchNorm2d(width)
        self.light = LightNet(light_features, light_hidden)
        self.HG0 = Level(4 * width, 8 * width + light_features)
        self.HG1 = Level(2 * width, 4 * width)
        self.HG2 = Level(width, 2 * width)
        self.HG3 = Level(width, width)
        self.conv_1 = nn.Conv2d(width, width, 3, padding=1)
        self.bn_1 = nn.BatchNorm2d(width)
        self.conv_2 = nn.Conv2d(width, width, 1)
        self.bn_2 = nn.BatchNorm2d(width)
        self.conv_3 = nn.Conv2d(width, width, 1)
        self.bn_3 = nn.BatchNorm2d(width)
        self.output = nn.Conv2d(width, 1, 1)

    @classmethod
    def from_state_dict(cls, tensors: Mapping[str, Tensor], **config: Any) -> Self:
        """The frozen network, in evaluation mode, that holds these tensors.

        Args:
            tensors: under the official names: the 112 flat ones, or all 250 of an official file, or nested ones alone. Half
                precision becomes float32.
            config: the constructor's arguments; none for the official network.

        Raises:
            InputError: tensors are missing, unknown, of another shape, or two names of one tensor disagree; or the
                constructor has no such argument.
        """
        try:
            with torch.device("meta"):
                network = cls(**config)
        except TypeError as error:
            raise InputError(f"a DPR network has no such configuration: {error}") from error
        network.load_state_dict(official(tensors, network.state_dict()), assign=True)
        return network.requires_grad_(False).eval()

    def forward(self, lightness: Tensor, light: Tensor, skip_count: int = 0) -> tuple[Tensor, Tensor]:
        """The picture's lightness under another light, and its own light estimated.

        Args:
            lightness: L* / 100, (B, 1, H, W), in [0, 1]; H and W multiples of 16, at least 32.
            light: the wanted SH coefficients, (B, 9) or (B, 9, 1, 1), in the camera's frame.
            skip_count: how many of the outer levels leave out their `upper` branch: 0 for none, as in use; 4 for all, as at
                the beginning of the published training.

        Returns:
            The lightness (B, 1, H, W), in (0, 1), and the estimate (B, 9), at least float32.

        Raises:
            ValueError: the sizes are others.
        """
        bottom, skips = self.descend(lightness, skip_count)
        return self.ascend(bottom, skips, light), _single(self.light.estimate(bottom[:, : self.light_features]))

    def descend(self, lightness: Tensor, skip_count: int = 0) -> tuple[Tensor, list[Tensor | None]]:
        """The way down: the features at the bottom (B, light_features + 8 width, H / 16, W / 16), of which the first
        `light_features` are the light and the others the face, and the skip branch of each level, outermost first.

        Arguments and errors are those of `forward`.
        """
        height, width = lightness.shape[-2:]
        if height % COARSEST or width % COARSEST or min(height, width) <= COARSEST:
            raise ValueError(f"DPR wants multiples of {COARSEST}, more than one each way, not {height} x {width} pixels")
        x = self._stem(lightness)
        skips: list[Tensor | None] = []
        for count, level in enumerate(self._levels()):
            skips.append(level.upper(x) if count >= skip_count else None)
            x = level.down(x)
        return x, skips

    def ascend(self, bottom: Tensor, skips: list[Tensor | None], light: Tensor) -> Tensor:
        """The way back up from what `descend` gave: the lightness (B, 1, H, W) of the face under a light (B, 9)."""
        wanted = self.light.features(light.flatten(1)).to(bottom.dtype).expand(-1, -1, *bottom.shape[-2:])
        x = torch.cat([wanted, bottom[:, self.light_features :]], dim=1)
        for level, skip in zip(reversed(self._levels()), reversed(skips), strict=True):
            x = level.up(x) if skip is None else level.up(x) + skip
        return self._tail(x)

    def estimate(self, lightness: Tensor) -> Tensor:
        """The light (B, 9) alone, equal to that of `forward`: it needs neither the way back up nor the skip branches."""
        x = self._stem(lightness)
        for level in self._levels():
            x = level.down(x)
        return _single(self.light.estimate(x[:, : self.light_features]))

    def _levels(self) -> tuple[Level, Level, Level, Level]:
        """From the outermost to the innermost."""
        return self.HG3, self.HG2, self.HG1, self.HG0

    def _stem(self, lightness: Tensor) -> Tensor:
        return F.relu(self.pre_bn(self.pre_conv(lightness.to(self.pre_conv.weight.dtype))))

    def _tail(self, x: Tensor) -> Tensor:
        for conv, norm in ((self.conv_1, self.bn_1), (self.conv_2, self.bn_2), (self.conv_3, self.bn_3)):
            x = F.relu(norm(conv(x)))
        return torch.sigmoid(_single(self.output(x)))


def _single(value: Tensor) -> Tensor:
    """In float32 at least."""
    return value.to(torch.promote_types(value.dtype, torch.float32))
