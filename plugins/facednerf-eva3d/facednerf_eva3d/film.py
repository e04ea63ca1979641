"""FiLM-SIREN: networks of sines whose frequencies and phases a style sets (Chan et al. 2021, pi-GAN; EVA3D, section 3.1)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

POINTS_AT_ONCE = 2**14
"""How many points a part's network evaluates together; more are taken in portions, and a gradient computes them again."""

ROWS = 4
"""Fewer rows are filled up: a CPU multiplies so few in another order, and a subject would differ from itself in company."""


class Films(NamedTuple):
    """What a style makes of the layers of one part, the view layer last."""

    gamma: Tensor  # (D + 1, N, 1, W), frequencies
    beta: Tensor  # (D + 1, N, 1, W), phases

    def of(self, subject: int) -> Films:
        """The films of one of N subjects, each (D + 1, 1, 1, W)."""
        return Films(self.gamma[:, subject : subject + 1], self.beta[:, subject : subject + 1])


class FilmLayer(nn.Module):
    """sin(gamma (W x + b) + beta); gamma = 15 g(style) + 30 and beta = 0.25 h(style), with g and h linear."""

    def __init__(self, inputs: int, width: int, style_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width, inputs))
        self.bias = nn.Parameter(torch.zeros(width))
        self.gamma = nn.Linear(style_dim, width)
        self.beta = nn.Linear(style_dim, width)

    def film(self, style: Tensor) -> tuple[Tensor, Tensor]:
        """Frequencies and phases, each (N, W), of styles (N, C); never in half precision, which 30 would amplify."""
        count = len(style)
        with torch.autocast(style.device.type, enabled=False):
            style = F.pad(style.to(self.bias.dtype), (0, 0, 0, max(0, ROWS - count)))
            return 15.0 * self.gamma(style)[:count] + 30.0, 0.25 * self.beta(style)[:count]

    def forward(self, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        """Activations (N, P, W) of x (N, P, inputs); the phase is never in half precision, though the product may be.

        Its order of operations is the original's to the last bit: frequencies of 30 make much of the smallest rounding.
        """
        return torch.sin(gamma * F.linear(x, self.weight, self.bias).to(gamma.dtype) + beta)

    def reset(self, spread: float, rng: torch.Generator) -> None:
        """Starting values: weights uniform up to `spread`, biases up to 1 / sqrt(inputs), a quarter of He for the films."""
        _uniform(self.weight, spread, rng)
        _uniform(self.bias, 1 / math.sqrt(self.weight.shape[1]), rng)
        for linear in (self.gamma, self.beta):
            gain = math.sqrt(2 / (1 + 0.2**2))  # of a leaky ReLU of slope 0.2
            _normal(linear.weight, 0.25 * gain / math.sqrt(linear.in_features), rng)
            _uniform(linear.bias, 1 / math.sqrt(linear.in_features), rng)


class FilmSiren(nn.Module):
    """A part's network: position and direction to raw colour and signed distance, under the stored names."""

    def __init__(self, depth: int, width: int, style_dim: int) -> None:
        super().__init__()
        self.pts_linears = nn.ModuleList(FilmLayer(3 if index == 0 else width, width, style_dim) for index in range(depth))
        self.views_linears = FilmLayer(width + 3, width, style_dim)
        self.rgb_linear = nn.Linear(width, 3)
        self.sigma_linear = nn.Linear(width, 1)

    @property
    def layers(self) -> list[FilmLayer]:
        """The layers that a style drives, in order; the view layer is the last."""
        return [layer for layer in (*self.pts_linears, self.views_linears) if isinstance(layer, FilmLayer)]

    def films(self, style: Tensor) -> Films:
        """Frequencies and phases of styles: (N, C), one for all layers, or (N, D + 1, C), one for each."""
        layers = self.layers
        styles = style.unsqueeze(1).expand(-1, len(layers), -1) if style.ndim == 2 else style
        pairs = [layer.film(styles[:, index]) for index, layer in enumerate(layers)]
        gamma, beta = (torch.stack(column).unsqueeze(2) for column in zip(*pairs, strict=True))
        return Films(gamma, beta)

    def forward(self, x: Tensor, films: Films) -> Tensor:
        """Raw red, green, blue (a sigmoid is still to come) and signed distance, (N, P, 4).

        Args:
            x: (N, P, 6): positions in the part's box, which is [-0.5, 0.5] along each axis, then directions of view.
            films: of the same N.
        """
        if x.shape[1] <= POINTS_AT_ONCE:
            return self._at_once(x, *films)
        portions = x.split(POINTS_AT_ONCE, dim=1)
        if not torch.is_grad_enabled():
            return torch.cat([self._at_once(portion, *films) for portion in portions], dim=1)
        again = [checkpoint(self._at_once, portion, *films, use_reentrant=False) for portion in portions]
        return torch.cat(again, dim=1)

    def _at_once(self, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        position, direction = x[..., :3], x[..., 3:]
        hidden = position
        for index, layer in enumerate(self.pts_linears):
            with torch.autocast(x.device.type, enabled=index > 0 and torch.is_autocast_enabled(x.device.type)):
                hidden = layer(hidden, gamma[index], beta[index])
        shown = self.views_linears(torch.cat([hidden, direction], dim=-1), gamma[-1], beta[-1])
        with torch.autocast(x.device.type, enabled=False):
            return torch.cat([self.rgb_linear(shown), self.sigma_linear(hidden)], dim=-1)

    def reset(self, rng: torch.Generator) -> None:
        """Starting values for training, drawn on the CPU (sines of frequency 25: Sitzmann et al. 2020, section 3.2)."""
        for index, layer in enumerate(self.layers):
            inputs = layer.weight.shape[1]
            layer.reset(1 / 3 if index == 0 else math.sqrt(6 / inputs) / 25, rng)
        for linear in (self.rgb_linear, self.sigma_linear):
            _uniform(linear.weight, math.sqrt(6 / linear.in_features) / 25, rng)
            _uniform(linear.bias, 1 / math.sqrt(linear.in_features), rng)


@torch.no_grad()
def _uniform(parameter: Tensor, spread: float, rng: torch.Generator) -> None:
    parameter.copy_((torch.rand(parameter.shape, generator=rng) * 2 - 1) * spread)


@torch.no_grad()
def _normal(parameter: Tensor, deviation: float, rng: torch.Generator) -> None:
    parameter.copy_(torch.randn(parameter.shape, generator=rng) * deviation)
