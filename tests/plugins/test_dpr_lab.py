"""Lab there and back: the usual formulas inside the gamut, finite gradients everywhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from facednerf_dpr.lab import lab_to_rgb, lightness, rgb_to_lab
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.color import lab2rgb, rgb2lab
from torch import Tensor

CUBE = torch.cartesian_prod(*[torch.linspace(0, 1, 18, dtype=torch.float64)] * 3).T.reshape(3, 18, -1)


def slope(function: object, image: Tensor) -> Tensor:
    leaf = image.clone().requires_grad_()
    function(leaf).sum().backward()  # type: ignore[operator]
    assert leaf.grad is not None
    return leaf.grad


def test_lab_is_the_usual_one_inside_the_gamut() -> None:
    expected = torch.from_numpy(rgb2lab(CUBE.permute(1, 2, 0).numpy())).permute(2, 0, 1)
    assert (rgb_to_lab(CUBE) - expected).abs().max() < 1e-9
    assert (rgb_to_lab(CUBE.float()) - rgb_to_lab(CUBE)).abs().max() < 1e-3
    back = torch.from_numpy(lab2rgb(expected.permute(1, 2, 0).numpy())).permute(2, 0, 1)
    assert (lab_to_rgb(expected) - back).abs().max() < 1e-9


def test_lightness_by_hand() -> None:
    def of(red: float, green: float, blue: float) -> float:
        return float(lightness(torch.tensor([red, green, blue], dtype=torch.float64).view(3, 1, 1)))

    assert of(0, 0, 0) == pytest.approx(0, abs=1e-7)
    assert of(1, 1, 1) == pytest.approx(1)
    assert of(1, 0, 0) == pytest.approx((116 * 0.212671 ** (1 / 3) - 16) / 100)
    middle = ((0.5 + 0.055) / 1.055) ** 2.4
    assert of(0.5, 0.5, 0.5) == pytest.approx((116 * middle ** (1 / 3) - 16) / 100)
    assert of(0.02, 0.02, 0.02) == pytest.approx(1.16 * 7.787 * 0.02 / 12.92)
    assert of(-0.1, -0.1, -0.1) == pytest.approx(-1.16 * 7.787 * 0.1 / 12.92)  # below black the line goes on


def test_lightness_is_the_first_channel() -> None:
    image = torch.rand(2, 3, 5, 7) * 1.6 - 0.3
    assert torch.allclose(100 * lightness(image)[:, 0], rgb_to_lab(image)[:, 0], atol=1e-5)
    assert lightness(image[None]).shape == (1, 2, 1, 5, 7)


def test_there_and_back_is_the_identity_outside_the_gamut_too() -> None:
    image = torch.rand(3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 0.5
    assert (lab_to_rgb(rgb_to_lab(CUBE)) - CUBE).abs().max() < 1e-9
    assert (lab_to_rgb(rgb_to_lab(image)) - image).abs().max() < 1e-9
    assert (lab_to_rgb(rgb_to_lab(image.float())) - image).abs().max() < 5e-5


def test_gradient_is_the_stated_one_where_the_published_one_is_not_a_number() -> None:
    channel = torch.tensor([-0.1, -0.02, 0.03, 0.5], dtype=torch.float64)

    def linear(c: Tensor) -> Tensor:  # as published, with the harmless base
        from facednerf_dpr.lab import _linear

        return torch.stack(_linear(c.expand(3, 1, -1)))[0]

    assert torch.allclose(slope(linear, channel), torch.tensor([0.0774, 0.0774, 0.0774, 0.9256]).double(), atol=5e-5)


def test_gradients_are_those_of_finite_differences() -> None:
    draws = torch.Generator().manual_seed(3)
    image = (torch.rand(3, 4, 4, dtype=torch.float64, generator=draws) * 1.6 - 0.3).requires_grad_()
    assert torch.autograd.gradcheck(rgb_to_lab, (image,))
    assert torch.autograd.gradcheck(lightness, (image,))
    assert torch.autograd.gradcheck(lab_to_rgb, (rgb_to_lab(image.detach()).requires_grad_(),))


def test_what_lies_outside_keeps_a_gradient() -> None:
    image = torch.tensor([[-0.3, 1.4], [-0.01, 1.0]]).expand(3, 2, 2)
    assert (slope(lightness, image) > 0).all()


NUMBERS = st.floats(allow_nan=False, width=32)


@settings(max_examples=200, deadline=None)
@given(st.tuples(NUMBERS, NUMBERS, NUMBERS), st.sampled_from([torch.float32, torch.float64]))
def test_values_and_gradients_are_finite_for_any_number(numbers: tuple[float, float, float], dtype: torch.dtype) -> None:
    image = torch.tensor(numbers, dtype=dtype).view(3, 1, 1)
    for function in (rgb_to_lab, lightness, lab_to_rgb):
        assert function(image).isfinite().all()
        assert slope(function, image).isfinite().all()


@pytest.mark.parametrize("value", [0.04045, 0.0031308, 0.008856, 0.2068966, 0.0, -0.055, -0.16, -1e-30, 1e-30])
def test_gradients_are_finite_at_the_branches(value: float) -> None:
    for step in (-1, 0, 1):
        near = float(np.nextafter(np.float32(value), np.float32(step)))
        image = torch.tensor([near, value, -value]).view(3, 1, 1)
        for function in (rgb_to_lab, lightness, lab_to_rgb):
            assert slope(function, image).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype: torch.dtype) -> None:
    image = torch.rand(3, 8, 8)
    assert torch.equal(rgb_to_lab(image.to(dtype)), rgb_to_lab(image.to(dtype).float()))
    with torch.autocast("cpu", dtype=dtype):
        cast = rgb_to_lab(image), lab_to_rgb(rgb_to_lab(image))
    assert torch.equal(cast[0], rgb_to_lab(image))
    assert torch.equal(cast[1], lab_to_rgb(rgb_to_lab(image)))
