"""The style network: a random vector becomes the style that all parts and layers share."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class StyleNetwork(nn.ModuleList):
    """z (N, C) to styles (N, C): linear layers, each with a leaky ReLU of slope 0.2 and gain 1; z is not normalised."""

    def __init__(self, style_dim: int, layers: int = 3) -> None:
        super().__init__(nn.Linear(style_dim, style_dim) for _ in range(layers))
        self.style_dim = style_dim

    def forward(self, z: Tensor) -> Tensor:
        """Styles, never in half precision."""
        with torch.autocast(z.device.type, enabled=False):
            for linear in self:
                z = F.leaky_relu(linear(z), 0.2)
        return z

    @torch.no_grad()
    def reset(self, rng: torch.Generator) -> None:
        """Starting values for training: He's, biases uniform up to 1 / sqrt(C)."""
        for linear in self:
            assert isinstance(linear, nn.Linear)
            deviation = math.sqrt(2 / (1 + 0.2**2) / linear.in_features)
            linear.weight.copy_(torch.randn(linear.weight.shape, generator=rng) * deviation)
            linear.bias.copy_((torch.rand(linear.bias.shape, generator=rng) * 2 - 1) / math.sqrt(linear.in_features))


class Statistics(NamedTuple):
    """What the space of styles looks like."""

    mean: Tensor  # (C,)
    deviation: Tensor  # (C,)


@torch.no_grad()
def statistics(style: StyleNetwork, *, samples: int = 10_000, seed: int = 123) -> Statistics:
    """Mean and standard deviation of styles along each dimension, over as many random vectors as the original takes.

    They are drawn on the CPU from `seed`, so that every device and every run finds the same.
    """
    rng = torch.Generator().manual_seed(seed)
    weight = next(style.parameters())
    w = style(torch.randn(samples, style.style_dim, generator=rng).to(weight)).double()
    return Statistics(w.mean(dim=0).to(weight), w.std(dim=0, correction=0).to(weight))
