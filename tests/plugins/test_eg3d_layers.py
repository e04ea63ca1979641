"""EG3D's layers against golden values of the single operations."""

from __future__ import annotations

import pytest
import torch
from facednerf_eg3d.layers import (
    FullyConnected,
    ModulatedConvolution,
    ToImage,
    activated,
    fir_filter,
    interpolate_image,
    modulated_convolution,
    upsample_image,
)

from tests.plugins.eg3d_goldens import OPS, assert_golden


def test_the_filter_and_image_upsampling() -> None:
    assert_golden("filter", fir_filter())
    assert_golden("upsample2d", upsample_image(OPS["in.x"], fir_filter()))
    assert_golden("upsample2d", interpolate_image(OPS["in.x"]))
    assert_golden("asym.upsample2d", upsample_image(OPS["in.x"], OPS["asym.filter"]))


@pytest.mark.parametrize(("name", "lr", "active"), [("fc_lrelu_lr0.01", 0.01, True), ("fc_linear_lr0.5", 0.5, False)])
def test_fully_connected(name: str, lr: float, active: bool) -> None:
    layer = FullyConnected(6, 5, activated=active, lr_multiplier=lr)
    layer.load_state_dict({"weight": OPS[f"{name}.weight"], "bias": OPS[f"{name}.bias"]})
    assert_golden(f"{name}.out", layer(OPS[f"{name}.in"]))
    weight, bias = layer.scaled()
    if not active:
        assert_golden(f"{name}.out", torch.nn.functional.linear(OPS[f"{name}.in"], weight, bias))


@pytest.mark.parametrize(
    ("name", "noise", "up"), [("conv.up1", "conv.in.noise1", False), ("conv.up2", "conv.in.noise2", True)]
)
def test_modulated_convolution(name: str, noise: str, up: bool) -> None:
    y, demodulation = modulated_convolution(
        OPS["conv.in.x"], OPS["conv.in.w3"], OPS["conv.in.styles"], low_pass=fir_filter() if up else None
    )
    assert_golden(f"{name}.demod.noise.fused1", y * demodulation[:, :, None, None] + OPS[noise])


def test_the_low_pass_is_a_convolution_in_the_mathematical_sense() -> None:
    """Which the generator's own filter, being symmetric, does not tell."""
    y, demodulation = modulated_convolution(
        OPS["conv.in.x"], OPS["conv.in.w3"], OPS["conv.in.styles"], low_pass=OPS["asym.filter"]
    )
    assert_golden("conv.up2.asymfilter.demod", y * demodulation[:, :, None, None])


def test_the_image_layer() -> None:
    layer = ToImage(4, 7, w_dim=4)
    state = layer.state_dict()
    state["weight"] = OPS["conv.in.w1"]
    state["affine.weight"] = torch.eye(4) * 4  # a style of twice the latent, divided by sqrt(4) again
    state["affine.bias"] = torch.zeros(4)
    layer.load_state_dict(state)
    assert_golden("conv.1x1.nodemod.fused1", layer(OPS["conv.in.x"], OPS["conv.in.styles"]))


def test_bias_activation_gain_and_clamp_come_in_this_order() -> None:
    x, bias = OPS["conv.in.x"], OPS["act.in.b"]
    assert_golden("act.lrelu", activated(x * 2**0.5, bias))
    assert_golden("act.lrelu.gain0.5.clamp0.8", activated(x * 0.5, bias, gain=0.5, clamp=0.8))


def test_frozen_weights_get_no_gradient_and_trainable_ones_do() -> None:
    layer = ModulatedConvolution(3, 5, w_dim=4, resolution=8, up=True)
    x, w, noise = torch.randn(2, 3, 4, 4), torch.randn(2, 4, requires_grad=True), torch.randn(8, 8)
    layer.requires_grad_(False)
    layer(x, w, noise).square().sum().backward()
    assert w.grad is not None
    assert layer.weight.grad is None
    layer.requires_grad_(True)
    layer(x, w, noise).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in layer.parameters())
