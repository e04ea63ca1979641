"""The small network that turns plane features into density and colour."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from facednerf_eg3d.layers import FullyConnected


class Decoder(nn.Module):
    """Features (..., C) to raw density (...) and colour features (..., D); the view direction plays no part.

    One hidden layer with a softplus. The density carries no activation: the marcher applies softplus(x - 1).
    """

    def __init__(self, features: int = 32, colours: int = 32, hidden: int = 64, *, lr_multiplier: float = 1.0) -> None:
        super().__init__()
        self.net = nn.Sequential(
            FullyConnected(features, hidden, lr_multiplier=lr_multiplier),
            nn.Softplus(),
            FullyConnected(hidden, 1 + colours, lr_multiplier=lr_multiplier),
        )

    def weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weight and bias of the hidden layer, then of the last, as they act."""
        first, last = self.net[0], self.net[2]
        assert isinstance(first, FullyConnected)
        assert isinstance(last, FullyConnected)
        return *first.scaled(), *last.scaled()

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Raw density and colours in (-0.001, 1.001), Mip-NeRF's widened sigmoid (Barron et al. 2021)."""
        w0, b0, w1, b1 = (part.to(features.dtype) for part in self.weights())
        hidden = nn.functional.softplus(nn.functional.linear(features, w0, b0))
        sigma = nn.functional.linear(hidden, w1[:1], b1[:1]).squeeze(-1)
        colours = torch.sigmoid(nn.functional.linear(hidden, w1[1:], b1[1:])) * 1.002 - 0.001
        return sigma, colours
