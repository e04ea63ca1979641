"""EG3D in other types of numbers: 16 bits by autocast or throughout, and 64."""

from __future__ import annotations

import pytest
import torch
from facednerf_eg3d.network import TriPlaneGenerator
from torch import Tensor

from tests.plugins.eg3d_goldens import TINY, draws, stored, tiny, tiny_config

CAMERA = TINY["in.c"][:, None]
FURTHEST = {torch.bfloat16: 0.03, torch.float16: 0.004}  # of the largest value; measured: 0.014 and 0.0018
GRADIENT = {
    torch.bfloat16: 0.15,
    torch.float16: 0.1,
}  # in norm; measured: 0.065 and 0.035, from leaky ReLUs that change side


def seen(network: TriPlaneGenerator, autocast: torch.dtype | None = None) -> dict[str, Tensor]:
    """Every output for the golden latents, and the gradient of the image."""
    ws = TINY["in.ws"].clone().requires_grad_()
    with torch.autocast("cpu", autocast, enabled=autocast is not None):
        planes = network.planes(ws)
        volume = network.render(planes, CAMERA, draws=draws(), rules="official")
        image = network.enlarge(volume.feature, ws)
        loss = (image[:, 0] * TINY["in.R_image"]).sum()
        (gradient,) = torch.autograd.grad(loss, ws)  # inside as well: some callers do
    made = {"planes": planes, "feature": volume.feature, "depth": volume.depth, "alpha": volume.alpha, "image": image}
    return {name: value.detach() for name, value in made.items()} | {"gradient": gradient}


@pytest.fixture(scope="module")
def exact() -> dict[str, Tensor]:
    return seen(tiny())


def compared(found: dict[str, Tensor], exact: dict[str, Tensor], dtype: torch.dtype) -> None:
    for name, value in exact.items():
        assert found[name].dtype == torch.float32, name
        assert torch.isfinite(found[name]).all(), name
        if name == "gradient":
            assert (found[name] - value).norm() < GRADIENT[dtype] * value.norm()
        else:
            assert (found[name] - value).abs().max() < FURTHEST[dtype] * value.abs().max(), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype: torch.dtype, exact: dict[str, Tensor]) -> None:
    found = seen(tiny(), dtype)
    assert not torch.equal(found["planes"], exact["planes"])  # it did round
    compared(found, exact, dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_parameters_in_16_bits(dtype: torch.dtype, exact: dict[str, Tensor]) -> None:
    compared(seen(tiny().to(dtype)), exact, dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mapping_in_16_bits(dtype: torch.dtype) -> None:
    z, c = TINY["in.z"], TINY["in.c_cond"]
    exact = tiny().mapping(z, c, 0.7)
    with torch.autocast("cpu", dtype):
        assert torch.equal(tiny().mapping(z, c, 0.7), exact)  # it is small, and stays in float32
    rounded = tiny().to(dtype).mapping(z, c, 0.7)
    assert (rounded - exact).abs().max() < FURTHEST[dtype] * exact.abs().max()


def test_double_precision_throughout(exact: dict[str, Tensor]) -> None:
    """Tensors keep the type that they are given in; float32 agrees with 64 bits as closely as the golden says of itself."""
    network = TriPlaneGenerator.from_state_dict({k: v.double() for k, v in stored("params.").items()}, **tiny_config())
    z, c = (TINY[name].double() for name in ("in.z", "in.c_cond"))
    ws = network.mapping(z, c, 0.7)
    assert ws.dtype == torch.float64
    torch.testing.assert_close(ws.float(), TINY["ws.psi0.7"], atol=2e-5, rtol=0)
    found = seen(network)
    for name, value in exact.items():
        assert name == "gradient" or found[name].dtype == torch.float64
        assert (found[name] - value).abs().max() < 1e-5 * value.abs().max(), name
