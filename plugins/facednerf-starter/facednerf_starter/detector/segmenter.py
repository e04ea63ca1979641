"""The network that tells people from what is behind them: MediaPipe's selfie segmentation, in torch, with its own weights.

Written from the graph in the published file (`selfie_segmentation.tflite`, 256 x 256, 2021; Google, Apache-2.0): a small
MobileNetV3 (Howard et al. 2019) whose levels are added up again, each gated by its own mean (Hu et al. 2018, "Squeeze-and-
excitation").
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = 256
"""Height and width of the picture that the network reads, in pixels."""

Activation = Callable[[Tensor], Tensor]
BLOCKS = (  # kernel, stride, channels within, channels out, channels of the gate (0: none), hard swish
    (3, 2, 16, 16, 8, False),
    (3, 2, 72, 24, 0, False),
    (3, 1, 88, 24, 0, False),
    (5, 2, 96, 32, 24, True),
    (5, 1, 128, 32, 32, True),
    (5, 1, 128, 32, 32, True),
    (5, 1, 96, 32, 24, True),
    (5, 1, 96, 32, 24, True),
)
LEVELS = ((2, 24), (0, 16), (-1, 16))  # which block's features come back, -1 for the stem's, and their channels


class SameConv(nn.Conv2d):
    """A convolution whose output has the input's size over the stride; what padding is odd goes right and below."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int = 1, *, each: bool = False) -> None:
        super().__init__(channels, out, kernel, stride, groups=channels if each else 1)

    def forward(self, input: Tensor) -> Tensor:
        size, step, kernel = input.shape[-1], self.stride[0], self.kernel_size[0]
        total = max((-(-size // step) - 1) * step + kernel - size, 0)
        before, after = total // 2, total - total // 2
        return super().forward(F.pad(input, (before, after, before, after)))


class Gate(nn.Module):
    """From features to a factor in (0, 1) for each channel, by their mean over the picture."""

    def __init__(self, channels: int, within: int) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(channels, within, 1), nn.Conv2d(within, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))).sigmoid()


class Block(nn.Module):
    """An inverted residual: wider, each channel by itself, gated, narrower; added to its input where they are alike."""

    def __init__(self, channels: int, kernel: int, stride: int, within: int, out: int, gate: int, swish: bool) -> None:
        super().__init__()
        self.wide, self.each = SameConv(channels, within, 1), SameConv(within, within, kernel, stride, each=True)
        self.gate = Gate(within, gate) if gate else None
        self.narrow = SameConv(within, out, 1)
        self.activation: Activation = F.hardswish if swish else F.relu
        self.added = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.each(self.activation(self.wide(x))))
        if self.gate is not None:
            y = y * self.gate(y)
        y = self.narrow(y)
        return x + y if self.added else y


class Level(nn.Module):
    """Coarse features, twice as large, beside the finer ones of the way down."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.fit, self.gate = SameConv(channels, out, 1), Gate(out, out)
        self.mix, self.each = SameConv(out, out, 1), SameConv(out, out, 3, each=True)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        up = self.fit(F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False))
        y = F.relu(self.mix(fine * self.gate(fine + up) + up))
        return y + F.relu(self.each(y))


class PersonSegmenter(nn.Module):
    """Pictures `(N, 3, 256, 256)`, RGB in [0, 1], to the logits `(N, 1, 256, 256)` of being a person."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv(3, 16, 3, 2)
        self.blocks = nn.ModuleList()
        channels = 16
        for kernel, stride, within, out, gate, swish in BLOCKS:
            self.blocks.append(Block(channels, kernel, stride, within, out, gate, swish))
            channels = out
        self.head, self.weigh = SameConv(channels, 128, 1), SameConv(channels, 128, 1)
        self.levels = nn.ModuleList()
        channels = 128
        for _, out in LEVELS:
            self.levels.append(Level(channels, out))
            channels = out
        self.last = nn.ConvTranspose2d(channels, 1, 2, 2)

    def forward(self, pictures: Tensor) -> Tensor:
        x = F.hardswish(self.stem(pictures))
        seen: dict[int, Tensor] = {-1: x}
        for number, block in enumerate(self.blocks):
            x = block(x)
            seen[number] = x
        x = F.relu(self.head(x)) * self.weigh(x.mean((2, 3), keepdim=True)).sigmoid()
        for (back, _), level in zip(LEVELS, self.levels, strict=True):
            x = level(x, seen[back])
        return torch.as_tensor(self.last(x))
