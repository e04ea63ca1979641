"""Depth of rays that meet next to nothing."""

from __future__ import annotations

import pytest
import torch
from facednerf_eg3d.marching import interval_weights, mean_depth


@pytest.mark.parametrize("sigma", [-87.0, -95.0, -102.0, -140.0])
def test_rays_that_meet_next_to_nothing_have_a_finite_gradient(sigma: float) -> None:
    depths = torch.linspace(2.25, 3.3, 12)[None]
    raw = torch.full((1, 12), sigma, requires_grad=True)
    depth = mean_depth(depths, interval_weights(depths, raw)).clamp_max(3.3)
    (depth * 0.0).sum().backward()
    assert raw.grad is not None
    assert torch.isfinite(raw.grad).all()


def test_faint_rays_keep_their_depth() -> None:
    depths = torch.tensor([[1.0, 2.0, 3.0]])
    weights = torch.tensor([[1e-25, 3e-25]])
    assert mean_depth(depths, weights).item() == pytest.approx(0.25 * 1.5 + 0.75 * 2.5)
