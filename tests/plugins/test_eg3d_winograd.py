"""Winograd's convolution against the definition."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from facednerf_eg3d.winograd import convolve, kernels


@pytest.mark.parametrize("height", [4, 12])
@pytest.mark.parametrize("subjects", [1, 2])
def test_values(height: int, subjects: int) -> None:
    torch.manual_seed(5)
    x = torch.randn(subjects, 3, height + 2, 7, dtype=torch.float64)
    weight, bias = torch.randn(5, 3, 3, 3, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    kept = x.clone()
    torch.testing.assert_close(convolve(x, kernels(weight), bias), F.conv2d(x, weight, bias, padding=(0, 1)))
    torch.testing.assert_close(convolve(x, kernels(weight)), F.conv2d(x, weight, padding=(0, 1)))
    assert torch.equal(x, kept)


def test_rounding() -> None:
    torch.manual_seed(6)
    x, weight = torch.randn(1, 128, 18, 32), torch.randn(128, 128, 3, 3)
    exact = F.conv2d(x.double(), weight.double(), padding=(0, 1))
    assert (convolve(x, kernels(weight)) - exact).abs().max() < 1e-5 * exact.abs().max()
