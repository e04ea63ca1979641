"""The CPU's way of decoding points against the plain way, forwards and backwards."""

from __future__ import annotations

import pytest
import torch
from facednerf_eg3d import planefield
from facednerf_eg3d.decoder import Decoder
from facednerf_eg3d.planefield import Layout, PlaneField, decode, merged, tabulated
from facednerf_eg3d.triplanes import EG3D_AXES, PlaneAxes, mean_features
from torch import Tensor

OTHER_AXES = ((0, 1), (0, 2), (1, 2))
REPEATED_AXES = ((0, 1), (2, 0), (0, 1))


def case(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Decoder]:
    torch.manual_seed(3)
    planes = torch.randn(2, 3, 4, 8, 8, dtype=dtype, requires_grad=True)
    points = (torch.rand(2, 60, 3, dtype=dtype) * 1.6 - 0.8).requires_grad_()  # the planes reach to 0.7
    decoder = Decoder(4, 5, 6, lr_multiplier=0.7).to(dtype)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return planes, points, decoder


def field(points: Tensor, planes: Tensor, decoder: Decoder, axes: PlaneAxes = EG3D_AXES) -> tuple[Tensor, Tensor]:
    fewer, kept = merged(planes, axes)
    assert len(kept) == len({frozenset(pair) for pair in axes})
    return decode(points, tabulated(fewer), decoder.weights(), Layout(kept, 1.4, 8))


@pytest.mark.parametrize("axes", [EG3D_AXES, OTHER_AXES, REPEATED_AXES])
@pytest.mark.parametrize("portion", [7, 8192])
def test_values_and_every_gradient_equal_the_plain_way(
    axes: PlaneAxes, portion: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planefield, "PORTION", portion)
    planes, points, decoder = case()
    quick = field(points, planes, decoder, axes)
    plain = decoder(mean_features(planes, points, axes, 1.4))
    leaves = [planes, points, *decoder.parameters()]
    upstream = [torch.randn_like(value) for value in plain]
    for found, expected in zip(quick, plain, strict=True):
        torch.testing.assert_close(found, expected)
    for found, expected in zip(
        torch.autograd.grad(quick, leaves, upstream), torch.autograd.grad(plain, leaves, upstream), strict=True
    ):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("count", [160, 157])
def test_single_precision_whatever_the_number_of_points(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen at a time take another library than the rest."""
    monkeypatch.setattr(planefield, "PORTION", 64)
    planes, _, decoder = case(torch.float32)
    points = (torch.rand(2, count, 3) * 1.6 - 0.8).requires_grad_()
    leaves = [planes, points, *decoder.parameters()]
    found, plain = field(points, planes, decoder), decoder(mean_features(planes, points, EG3D_AXES, 1.4))
    upstream = [torch.randn_like(value) for value in plain]
    one, other = (torch.autograd.grad(both, leaves, upstream) for both in (found, plain))
    for value, expected in zip([*found, *one], [*plain, *other], strict=True):
        assert (value - expected).abs().max() < 2e-6 * expected.abs().max()


def test_without_gradient_it_is_the_same() -> None:
    planes, points, decoder = case(torch.float32)
    with_gradient = field(points, planes, decoder, EG3D_AXES)
    with torch.no_grad():
        without = field(points, planes, decoder, EG3D_AXES)
    assert all(torch.equal(a, b) for a, b in zip(with_gradient, without, strict=True))


def test_one_output_alone_has_a_gradient() -> None:
    planes, points, decoder = case()
    sigma, _ = field(points, planes, decoder, EG3D_AXES)
    (gradient,) = torch.autograd.grad(sigma.sum(), planes)
    plain, _ = decoder(mean_features(planes, points, EG3D_AXES, 1.4))
    torch.testing.assert_close(gradient, torch.autograd.grad(plain.sum(), planes)[0])


def test_frozen_weights_get_none() -> None:
    planes, points, decoder = case()
    decoder.requires_grad_(False)
    sigma, colours = field(points, planes, decoder, EG3D_AXES)
    (sigma.sum() + colours.sum()).backward()
    assert all(parameter.grad is None for parameter in decoder.parameters())
    assert planes.grad.abs().sum() > 0


@pytest.mark.parametrize("size", [1.0, 60.0, 500.0])
def test_large_hidden_activations_stay_exact(size: float) -> None:
    planes, points, decoder = case(torch.float32)
    with torch.no_grad():
        decoder.net[0].weight.mul_(size)
        found = field(points, planes, decoder, EG3D_AXES)
        expected = decoder(mean_features(planes, points, EG3D_AXES, 1.4))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("axes", [EG3D_AXES, OTHER_AXES])
@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_the_density_alone_is_the_fields_and_carries_no_gradient(
    axes: PlaneAxes, dtype: torch.dtype, near: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planefield, "PORTION", 32)
    planes, points, decoder = case(dtype)
    quick = PlaneField(planes, axes, decoder.weights(), 1.4)
    sigma, colours = quick(points)
    density = quick.density(points)
    assert not density.requires_grad
    torch.testing.assert_close(density, sigma.detach(), atol=near, rtol=near)
    for found, expected in zip((sigma, colours), decoder(mean_features(planes, points, axes, 1.4)), strict=True):
        torch.testing.assert_close(found, expected, atol=10 * near, rtol=10 * near)
    (gradient,) = torch.autograd.grad(sigma.sum(), planes)
    assert gradient.abs().sum() > 0
