"""The layer in one step against the same layer in ordinary operations: values, every gradient, strips, 16 bits."""

from __future__ import annotations

import pytest
import torch
from facednerf_eg3d import modulation
from facednerf_eg3d.layers import ModulatedConvolution, activated, demodulation, fir_filter, modulated_convolution
from facednerf_eg3d.modulation import Finish, arranged, layer, layer_and_image, mixed
from torch import Tensor


def leaves(subjects: int, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    torch.manual_seed(4)
    shapes = {
        "x": (subjects, 3, 9, 7), "weight": (5, 3, 3, 3), "style": (subjects, 3), "bias": (5,), "mixing": (subjects, 2, 5)
    }  # fmt: skip
    return {name: torch.randn(shape, dtype=dtype, requires_grad=True) for name, shape in shapes.items()}


def plain(given: dict[str, Tensor], noise: Tensor | None, clamp: float | None, low_pass: Tensor | None) -> Tensor:
    y, factor = modulated_convolution(given["x"], given["weight"], given["style"], low_pass=low_pass)
    y = y * (factor * 2**0.5)[:, :, None, None]
    return activated(y if noise is None else y + noise, given["bias"], gain=2**0.5, clamp=clamp)


def quick(given: dict[str, Tensor], noise: Tensor | None, clamp: float | None) -> Finish:
    return Finish(demodulation(given["weight"], given["style"]) * 2**0.5, given["bias"] * 2**0.5, noise, clamp)


def compared(found: Tensor, expected: Tensor, of: list[Tensor]) -> None:
    torch.testing.assert_close(found, expected)
    upstream = torch.randn_like(expected)
    pairs = zip(torch.autograd.grad(found, of, upstream), torch.autograd.grad(expected, of, upstream), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other)


@pytest.fixture(params=["definition", "winograd"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How strips of even height are convolved."""
    if request.param == "winograd":
        monkeypatch.setattr(modulation, "WIDE", 1)
        monkeypatch.setattr(modulation, "LARGE", 1)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("strip", [1, 2**21])
@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("clamp", [None, 1.5])
@pytest.mark.parametrize(("subjects", "shape"), [(1, None), (1, "map"), (2, "map"), (2, "maps")])
def test_values_and_every_gradient(
    strip: int, up: bool, clamp: float | None, subjects: int, shape: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modulation, "STRIP", strip)
    given = leaves(subjects)
    size = (18, 14) if up else (9, 7)
    low_pass = torch.rand(4, 4, dtype=torch.float64) if up else None
    noise = None
    if shape is not None:
        noise = torch.randn(size if shape == "map" else (2, 1, *size), dtype=torch.float64, requires_grad=True)
    of = [given["x"], given["weight"], given["style"], given["bias"], *([] if noise is None else [noise])]
    found = layer(given["x"], given["weight"], given["style"], quick(given, noise, clamp), low_pass)
    expected = plain(given, noise, clamp, low_pass)
    if clamp is not None:
        assert 0.05 < (expected.abs() == clamp).double().mean() < 0.9
    compared(found, expected, of)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("strip", [1, 2**21])
@pytest.mark.parametrize("subjects", [1, 2])
def test_a_layer_with_its_image(strip: int, subjects: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modulation, "STRIP", strip)
    given = leaves(subjects)
    made, image = layer_and_image(given["x"], given["weight"], given["style"], quick(given, None, 1.5), given["mixing"])
    expected = plain(given, None, 1.5, None)
    drawn = torch.einsum("nohw,nco->nchw", expected, given["mixing"])
    torch.testing.assert_close(image, drawn)
    torch.testing.assert_close(mixed(expected, given["mixing"]), drawn)
    of = list(given.values())
    compared(image, drawn, of)
    made, image = layer_and_image(given["x"], given["weight"], given["style"], quick(given, None, 1.5), given["mixing"])
    drawn = torch.einsum("nohw,nco->nchw", plain(given, None, 1.5, None), given["mixing"])
    compared(made.square().sum() + image.sin().sum(), plain(given, None, 1.5, None).square().sum() + drawn.sin().sum(), of)


def test_what_needs_no_gradient_gets_none() -> None:
    made = ModulatedConvolution(3, 5, w_dim=4, resolution=8).requires_grad_(False)
    w = torch.randn(1, 4, requires_grad=True)
    made(torch.randn(1, 3, 8, 8), w, torch.randn(8, 8)).sum().backward()
    assert w.grad is not None
    assert all(parameter.grad is None for parameter in made.parameters())


def test_it_can_be_differentiated_again_from_the_same_graph() -> None:
    """Nothing that is kept for the derivative is overwritten by it."""
    given = leaves(1)
    made = layer(given["x"], given["weight"], given["style"], quick(given, None, 1.0), None)
    first = torch.autograd.grad(made.sum(), given["x"], retain_graph=True)
    assert torch.equal(first[0], torch.autograd.grad(made.sum(), given["x"])[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("subjects", [1, 2])
def test_autocast_reaches_the_convolution_only(dtype: torch.dtype, up: bool, subjects: int) -> None:
    """Also where styles are large, and gradients smaller than float16 can hold."""
    given = leaves(subjects, torch.float32)
    given["style"] = (given["style"].detach() * 3000.0).requires_grad_()
    low_pass = fir_filter() if up else None
    finish = quick(given, None, None)
    exact = layer(given["x"], given["weight"], given["style"], finish, low_pass)
    with torch.autocast("cpu", dtype):
        rounded = layer(given["x"], given["weight"], given["style"], finish, low_pass)
    assert rounded.dtype == torch.float32
    tolerance = 0.02 if dtype == torch.bfloat16 else 0.003
    torch.testing.assert_close(rounded, exact, atol=tolerance * float(exact.detach().abs().max()), rtol=0)
    of = [given["x"], given["weight"], given["bias"]]
    upstream = torch.randn_like(exact) * 1e-9
    pairs = zip(
        torch.autograd.grad(rounded, of, upstream, retain_graph=True), torch.autograd.grad(exact, of, upstream), strict=True
    )
    for one, other in pairs:
        assert (one - other).norm() < 10 * tolerance * other.norm()


def test_a_single_picture_is_laid_out_for_its_convolutions() -> None:
    """Whatever the stride of its first dimension, from which the library tells the order."""
    picture = torch.randn(120).as_strided((1, 4, 6, 5), (4, 1, 20, 4))
    assert picture.is_contiguous(memory_format=torch.channels_last)
    laid = arranged(picture)
    assert laid.stride() == (120, 1, 20, 4)
    assert torch.equal(laid, picture)
