"""The small network that turns grid features into density and colour features."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from facednerf_eg3d.layers import FullyConnected
from torch import Tensor, nn

from facednerf_core.errors import InputError

Activation = Literal["none", "sigmoid", "lrelu"]
"""Of the colour features; the released model has none, so that they are unbounded."""


def activation(name: str) -> Activation:
    """The activation of this name.

    Raises:
        InputError: there is none.
    """
    for known in get_args(Activation):
        if name == known:
            return known
    raise InputError(f"decoder_activation is {name!r}; there are: {', '.join(get_args(Activation))}.")


class Decoder(nn.Module):
    """Features (..., C) to raw density (...) and colour features (..., D); the view direction plays no part.

    One hidden layer with a softplus. The density carries no activation: the marcher applies softplus(x - 1).
    """

    def __init__(
        self, features: int, colours: int, hidden: int = 64, *, lr_multiplier: float = 1.0, activation: Activation = "none"
    ) -> None:
        super().__init__()
        self.activation: Activation = activation
        self.net = nn.Sequential(
            FullyConnected(features, hidden, lr_multiplier=lr_multiplier),
            nn.Softplus(),
            FullyConnected(hidden, 1 + colours, lr_multiplier=lr_multiplier),
        )

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Raw density and colour features, in the features' dtype, whatever the weights'."""
        weights = []
        for layer in (self.net[0], self.net[2]):
            assert isinstance(layer, FullyConnected)
            weights += [part.to(features.dtype) for part in layer.scaled()]
        hidden = F.softplus(F.linear(features, *weights[:2]))
        sigma, colours = F.linear(hidden, *weights[2:]).split([1, weights[2].shape[0] - 1], dim=-1)
        if self.activation == "sigmoid":
            colours = torch.sigmoid(colours) * 1.002 - 0.001  # Mip-NeRF's widened sigmoid (Barron et al. 2021)
        elif self.activation == "lrelu":
            colours = F.leaky_relu(colours, 0.2) * math.sqrt(2.0)
        return sigma.squeeze(-1), colours
