"""Volume rendering by quadrature: densities along a ray become weights, weights become colour, depth and opacity."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

FAINT = 1e-20
"""Opacity below which a ray's depth has no gradient: dividing by it would overflow, and an overflow times zero is not a
number."""


def interval_weights(depths: Tensor, sigma: Tensor) -> Tensor:
    """How much each of the n - 1 intervals contributes, (..., n - 1) (Max 1995, Eq. 18, at interval midpoints).

    Densities are averaged over an interval's ends before the shift and the softplus. As in the original, 1e-10 is added to
    what an interval lets through, and its opacity is 1 - exp(-x) as float32 has it: 0 where next to nothing is met, so that
    such a ray has no depth.

    Args:
        depths: sorted, (..., n).
        sigma: raw densities (..., n).
    """
    density = F.softplus(0.5 * (sigma[..., 1:] + sigma[..., :-1]) - 1.0)
    alpha = 1.0 - torch.exp(-density * (depths[..., 1:] - depths[..., :-1]))
    through = F.pad(1.0 - alpha[..., :-1] + 1e-10, (1, 0), value=1.0)
    products: Tensor = _Products.apply(through)
    return alpha * products


class _Products(torch.autograd.Function):
    """Running products along the last dimension, of numbers above zero.

    The derivative of `torch.cumprod` looks for zeros first, and so waits for the device in every step.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = torch.cumprod(x, dim=-1)
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        x, y = ctx.saved_tensors
        return (gradient * y).flip(-1).cumsum(dim=-1).flip(-1) / x


def sample_weights(weights: Tensor) -> Tensor:
    """The weights of the n samples (..., n): each interval's colour is the mean of its two ends."""
    half = 0.5 * weights
    return F.pad(half, (0, 1)) + F.pad(half, (1, 0))


def mean_depth(depths: Tensor, weights: Tensor) -> Tensor:
    """The expected depth (...), infinite where a ray meets nothing.

    Args:
        depths: (..., n).
        weights: of the intervals, (..., n - 1).
    """
    middles = 0.5 * (depths[..., 1:] + depths[..., :-1])
    total = weights.sum(dim=-1)
    moment = (weights * middles).sum(dim=-1)
    faint = total < FAINT
    with torch.no_grad():
        unmoved = torch.where(total == 0, torch.inf, moment / total)
    return torch.where(faint, unmoved, moment / torch.where(faint, 1.0, total))
