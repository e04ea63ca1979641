"""The judges' networks: residual convolutions with squeeze-and-excitation, read by global pooling."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = 128
"""Height and width of the pictures that judges read, in pixels, framed as the starter's generator frames a head."""
FACE = (0.19, 0.94, 0.125, 0.875)
"""Top, bottom, left and right of the part around the face that a person is known by, in picture widths."""


class Excitation(nn.Module):
    """Scales channels by what the whole map holds (Hu et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = max(4, channels // 8)
        self.squeeze, self.excite = nn.Linear(channels, narrow), nn.Linear(narrow, channels)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.excite(F.silu(self.squeeze(x.mean((2, 3))))).sigmoid()
        return x * gate[:, :, None, None]


class Block(nn.Module):
    """Two 3 x 3 convolutions and an excitation beside a shortcut; `stride` 2 halves the size by means of 2 x 2."""

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.excitation = Excitation(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(stride), nn.Conv2d(in_channels, channels, 1, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(F.silu(self.norm1(self.conv1(x)))))
        return F.silu(self.excitation(y) + self.shortcut(x))


class Judge(nn.Module):
    """Pictures `(N, 3, H, W)`, RGB in [-1, 1], to `outputs` numbers each `(N, outputs)`.

    `widths` are the channels at a half, a quarter, an eighth and a sixteenth of the size, `blocks` how many blocks there.
    """

    def __init__(self, outputs: int, widths: Sequence[int], blocks: Sequence[int]) -> None:
        super().__init__()
        if len(widths) != 4 or len(blocks) != 4:
            raise ValueError(f"a judge has four sizes; got {len(widths)} widths and {len(blocks)} numbers of blocks")
        self.stem = nn.Sequential(nn.Conv2d(3, widths[0], 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(widths[0]))
        layers: list[nn.Module] = []
        channels = widths[0]
        for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            for index in range(count):
                layers.append(Block(channels, width, 2 if stage > 0 and index == 0 else 1))
                channels = width
        self.stages = nn.Sequential(*layers)
        self.head = nn.Linear(2 * channels, outputs)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stages(F.silu(self.stem(image)))
        return self.head(torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1))


class PersonJudge(Judge):
    """A judge that sees the face alone, and tells people apart: unit vectors `(N, outputs)`."""

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        top, bottom = round(FACE[0] * height), round(FACE[1] * height)
        left, right = round(FACE[2] * width), round(FACE[3] * width)
        return F.normalize(super().forward(image[..., top:bottom, left:right]).float(), dim=-1)
