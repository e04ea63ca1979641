"""IResNet, the face-recognition network of insightface's `arcface_torch` (Deng et al. 2019, "ArcFace"; MIT code).

A residual network for 112 x 112 RGB faces, aligned by five landmarks. Every unit is BN - conv - BN - PReLU - conv - BN
(Han et al. 2017's pyramidal unit with PReLU); the first unit of each of the four stages halves the size. Tensor names
are those of the public module, so that its state dicts load as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

FACE_SIZE = 112
"""Height and width of the aligned face that the network reads, in pixels."""

TEMPLATE: tuple[tuple[float, float], ...] = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)
"""Where the five landmarks (left eye, right eye, nose tip, left and right mouth corner, as seen in the image) lie in an
aligned face: (x, y) in pixels of a 112 x 112 image."""


class IResNetUnit(nn.Module):
    """One residual unit. The shortcut is a strided 1 x 1 convolution where `stride` or the width changes."""

    def __init__(self, in_channels: int, channels: int, stride: int, *, project: bool) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.prelu = nn.PReLU(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.downsample: nn.Sequential | None = None
        if project:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(self.bn1(x))
        y = self.bn3(self.conv2(self.prelu(self.bn2(y))))
        return y + (x if self.downsample is None else self.downsample(x))


class IResNet(nn.Module):
    """Aligned faces `(B, 3, 112, 112)`, RGB in [-1, 1], to embeddings `(B, embedding)` of ARBITRARY norm.

    Similarity is the cosine of two embeddings: normalise them outside. The defaults are IResNet50 (`w600k_r50`);
    `widths` and `units` are the channels and the number of units of the four stages.
    """

    def __init__(
        self,
        widths: Sequence[int] = (64, 128, 256, 512),
        units: Sequence[int] = (3, 4, 14, 3),
        embedding: int = 512,
    ) -> None:
        super().__init__()
        if len(widths) != 4 or len(units) != 4:
            raise ValueError(f"an IResNet has four stages; got {len(widths)} widths and {len(units)} unit counts")
        self.widths, self.units, self.embedding = tuple(widths), tuple(units), embedding
        self.conv1 = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.prelu = nn.PReLU(widths[0])
        self.layer1 = _stage(widths[0], widths[0], units[0])
        self.layer2 = _stage(widths[0], widths[1], units[1])
        self.layer3 = _stage(widths[1], widths[2], units[2])
        self.layer4 = _stage(widths[2], widths[3], units[3])
        self.bn2 = nn.BatchNorm2d(widths[3])
        self.fc = nn.Linear(widths[3] * (FACE_SIZE // 16) ** 2, embedding)
        self.features = nn.BatchNorm1d(embedding)
        self.features.weight.requires_grad = False  # stays 1 in training: the loss sees the direction only

    def forward(self, faces: Tensor) -> Tensor:
        x = self.prelu(self.bn1(self.conv1(faces)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.features(self.fc(torch.flatten(self.bn2(x), 1)))


def _stage(in_channels: int, channels: int, units: int) -> nn.Sequential:
    first = IResNetUnit(in_channels, channels, 2, project=True)
    return nn.Sequential(first, *(IResNetUnit(channels, channels, 1, project=False) for _ in range(units - 1)))
