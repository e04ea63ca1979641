"""The network that reads a face: landmarks, pose of the head and foreground mask of a loose square crop of a photo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CROP_SIZE = 128
"""Height and width of the crop that the network reads, in pixels."""


@dataclass(frozen=True)
class Reading:
    """What the network says of N crops."""

    landmarks: Tensor  # (N, K, 2): x, y; 0 and 1 are the crop's edges, and points may lie outside
    pose: Tensor  # (N, 3): yaw, pitch, roll in radians; yaw and pitch as `facednerf_core.views.angles`, roll clockwise
    mask: Tensor  # (N, 1, 128, 128): logits of the person (head, hair, neck, clothes) against the background


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with batch norm beside a shortcut; `stride` 2 halves the size."""

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class FaceReader(nn.Module):
    """Crops `(N, 3, 128, 128)`, RGB in [-1, 1], to a `Reading`.

    A U-shaped network. Landmarks are the means of softmax heat maps at a quarter of the size (Nibali et al. 2018, DSNT)
    plus a correction from the whole crop, with which they can lie outside of it. The pose is read from where the
    landmarks lie around their middle, in units of their spread. `widths` are the channels at 64, 32, 16, 8 and 4 pixels.
    """

    def __init__(self, landmarks: int, widths: Sequence[int] = (16, 32, 64, 112, 144)) -> None:
        super().__init__()
        if len(widths) != 5:
            raise ValueError(f"the face reader has five sizes; got {len(widths)} widths")
        self.points, self.widths = landmarks, tuple(widths)
        stem, *rest = widths
        self.stem = nn.Sequential(nn.Conv2d(3, stem, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(stem), nn.ReLU())
        self.down = nn.ModuleList()
        channels = stem
        for width in rest:
            self.down.append(nn.Sequential(ResidualBlock(channels, width, 2), ResidualBlock(width, width)))
            channels = width
        self.up = nn.ModuleList()
        for width in reversed(widths[:-1]):
            self.up.append(ResidualBlock(channels + width, width))
            channels = width
        self.whole = nn.Sequential(nn.Linear(widths[-1] * 16, 96), nn.ReLU(), nn.Linear(96, 2 * landmarks))
        self.pose = nn.Sequential(nn.Linear(2 * landmarks, 96), nn.ReLU(), nn.Linear(96, 3))
        self.heat = nn.Conv2d(widths[1], landmarks, 1)
        self.mask = nn.Sequential(
            nn.Conv2d(stem + 3, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 1, 3, padding=1),
        )

    def forward(self, crops: Tensor) -> Reading:
        x = self.stem(crops)
        levels = [x]
        for stage in self.down:
            x = stage(x)
            levels.append(x)
        whole = self.whole(x.flatten(1)).unflatten(1, (self.points, 2))
        heat = x
        for stage, level in zip(self.up, reversed(levels[:-1]), strict=True):
            x = stage(torch.cat([F.interpolate(x, scale_factor=2.0, mode="nearest"), level], dim=1))
            if x.shape[-1] == CROP_SIZE // 4:
                heat = self.heat(x)  # (N, K, 32, 32)
        fine = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        landmarks = expectation(heat) + whole
        return Reading(
            landmarks=landmarks,
            pose=self.pose(about_middle(landmarks.detach()).flatten(1)),
            mask=self.mask(torch.cat([fine, crops], dim=1)),
        )


def about_middle(points: Tensor) -> Tensor:
    """Points `(N, K, 2)` about their mean, in units of their root mean square distance from it."""
    shape = points - points.mean(1, keepdim=True)
    return shape / shape.square().sum(-1).mean(-1).sqrt()[:, None, None].clamp_min(1e-6)


def expectation(heat: Tensor) -> Tensor:
    """Mean positions `(N, K, 2)`, x and y in [0, 1], of the softmax of heat maps `(N, K, H, W)`."""
    height, width = heat.shape[-2:]
    weight = heat.flatten(2).float().softmax(-1).unflatten(-1, (height, width))
    x = (torch.arange(width, device=heat.device) + 0.5) / width
    y = (torch.arange(height, device=heat.device) + 0.5) / height
    return torch.stack([(weight.sum(-2) * x).sum(-1), (weight.sum(-1) * y).sum(-1)], dim=-1)
