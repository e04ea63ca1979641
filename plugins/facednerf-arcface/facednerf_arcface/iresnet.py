"""IResNet, the face-recognition network of insightface's `arcface_torch` (Deng et al. 2019, "ArcFace"; MIT code).

A residual network for 112 x 112 RGB faces, aligned by five landmarks. Every unit is BN - conv - BN - PReLU - conv - BN
(Han et al. 2017's pyramidal unit with PReLU); the first unit of each of the four stages halves the size. Tensor names
are those of the public module, so that its state dicts load as they are.

In evaluation a batch normalisation is a scale and a shift, which the convolution before it can take in (`folded`); so
insightface's exported files have them. A unit's first normalisation comes before a padded convolution and cannot be.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from facednerf_arcface.statedict import agreed, filled, width
from facednerf_core.errors import InputError

WHAT = "an IResNet"

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

    def __init__(self, in_channels: int, channels: int, stride: int, *, project: bool, folded: bool = False) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=folded)
        self.bn2 = _norm(channels, folded)
        self.prelu = nn.PReLU(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=folded)
        self.bn3 = _norm(channels, folded)
        self.downsample: nn.Sequential | None = None
        if project:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride=stride, bias=folded), _norm(channels, folded)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(self.bn1(x))
        y = self.bn3(self.conv2(self.prelu(self.bn2(y))))
        return y + (x if self.downsample is None else self.downsample(x))


class IResNet(nn.Module):
    """Aligned faces `(B, 3, 112, 112)`, RGB in [-1, 1], to embeddings `(B, embedding)` of ARBITRARY norm.

    Similarity is the cosine of two embeddings: normalise them outside. The defaults are IResNet50 (`w600k_r50`);
    `widths` and `units` are the channels and the number of units of the four stages. A `folded` network has no batch
    normalisation but the units' first ones; its convolutions have biases instead.
    """

    alignment: ClassVar[Literal["landmarks"]] = "landmarks"  # how insightface brings a picture to the network

    def __init__(
        self,
        widths: Sequence[int] = (64, 128, 256, 512),
        units: Sequence[int] = (3, 4, 14, 3),
        embedding: int = 512,
        *,
        folded: bool = False,
    ) -> None:
        super().__init__()
        if len(widths) != 4 or len(units) != 4:
            raise ValueError(f"an IResNet has four stages; got {len(widths)} widths and {len(units)} unit counts")
        self.widths, self.units, self.embedding, self.folded = tuple(widths), tuple(units), embedding, folded
        self.conv1 = nn.Conv2d(3, widths[0], 3, padding=1, bias=folded)
        self.bn1 = _norm(widths[0], folded)
        self.prelu = nn.PReLU(widths[0])
        self.layer1 = _stage(widths[0], widths[0], units[0], folded)
        self.layer2 = _stage(widths[0], widths[1], units[1], folded)
        self.layer3 = _stage(widths[1], widths[2], units[2], folded)
        self.layer4 = _stage(widths[2], widths[3], units[3], folded)
        self.bn2 = _norm(widths[3], folded)
        self.fc = nn.Linear(widths[3] * (FACE_SIZE // 16) ** 2, embedding)
        self.features: nn.Module = nn.Identity()
        if not folded:
            self.features = nn.BatchNorm1d(embedding)
            self.features.weight.requires_grad = False  # stays 1 in training: the loss sees the direction only

    def forward(self, faces: Tensor) -> Tensor:
        x = self.prelu(self.bn1(self.conv1(faces)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.features(self.fc(torch.flatten(self.bn2(x), 1)))

    @classmethod
    def from_state_dict(
        cls, tensors: Mapping[str, Tensor], *, num_features: int | None = None, dropout: float | None = None
    ) -> Self:
        """The frozen network of tensors by insightface's names, in evaluation mode; widths, depth and folding are told.

        The other arguments are the official constructor's: `num_features`, the length of an embedding, is only checked;
        `dropout` does nothing in evaluation.

        Raises:
            InputError: the tensors are not an IResNet's, or not what the arguments say.
        """
        embedding = width(tensors, "fc.weight", WHAT)
        units = [_units(tensors, stage) for stage in range(1, 5)]
        if not all(units):
            raise InputError(f"these are not the tensors of {WHAT}: tensors of 'layer1' to 'layer4' are missing.")
        widths = [width(tensors, f"layer{stage}.0.conv1.weight", WHAT) for stage in range(1, 5)]
        folded = "conv1.bias" in tensors
        agreed("a network", num_features=(num_features, embedding))
        if dropout is not None and not 0 <= dropout < 1:
            raise InputError(f"dropout is a probability, not {dropout}.")
        return filled(lambda: cls(widths, units, embedding, folded=folded), tensors, WHAT)


def _stage(in_channels: int, channels: int, units: int, folded: bool) -> nn.Sequential:
    first = IResNetUnit(in_channels, channels, 2, project=True, folded=folded)
    rest = (IResNetUnit(channels, channels, 1, project=False, folded=folded) for _ in range(units - 1))
    return nn.Sequential(first, *rest)


def _norm(channels: int, folded: bool) -> nn.Module:
    return nn.Identity() if folded else nn.BatchNorm2d(channels)


def _units(tensors: Mapping[str, Tensor], stage: int) -> int:
    """How many residual units a stage has."""
    return len({name for name in tensors if re.fullmatch(rf"layer{stage}\.\d+\.conv1\.weight", name)})
