"""Half precision on a CPU: how far it is from float32, and that all of it is finite.

Distances are of the largest value. Measured when this was written: autocast 9e-3 (bfloat16) and 1.1e-3 (float16) of the
image, 6e-2 and 1.7e-2 of its gradient; a network in half precision 9e-3 and 1.1e-3. At full size (`golden_full`), image:
1.3e-2 and 1.8e-3.
"""

from __future__ import annotations

import pytest
import torch
from facednerf_panohead.network import TriGridGenerator
from torch import Tensor

from tests.plugins.panohead_goldens import CAMERA, TINY, draws, tiny

WITHIN = {torch.bfloat16: (2e-2, 0.2), torch.float16: (4e-3, 0.04)}  # of the image and all before it, of the gradient


def made(network: TriGridGenerator, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    ws = TINY["in.ws"].to(dtype, copy=True).requires_grad_()
    image, composed = network(ws, CAMERA, draws=draws(), rules="official")
    (image[:, 0] * TINY["in.R_image"]).sum().backward()
    return {"image": image.detach(), **{k: v.detach() for k, v in composed._asdict().items()}, "gradient": ws.grad}


@pytest.fixture(scope="module")
def exact() -> dict[str, Tensor]:
    return made(tiny())


def assert_near(found: dict[str, Tensor], exact: dict[str, Tensor], dtype: torch.dtype) -> None:
    for name, value in found.items():
        assert value.isfinite().all(), name
        distance = (value.float() - exact[name]).abs().max() / exact[name].abs().max()
        assert distance < WITHIN[dtype][name == "gradient"], f"{name}: {distance:.1e}"


@pytest.mark.parametrize("dtype", WITHIN)
def test_autocast(exact: dict[str, Tensor], dtype: torch.dtype) -> None:
    network = tiny()
    with torch.autocast("cpu", dtype):
        found = made(network)
        assert torch.equal(network.mapping(TINY["in.z"], TINY["in.c"], 0.7), tiny().mapping(TINY["in.z"], TINY["in.c"], 0.7))
    assert (found["image"] - exact["image"]).abs().max() > 1e-4, "autocast reaches the synthesis"
    for name in ("depth", "alpha", "feature", "raw"):
        assert found[name].dtype == torch.float32, name
    assert_near(found, exact, dtype)


@pytest.mark.parametrize("dtype", WITHIN)
def test_a_network_in_half_precision(exact: dict[str, Tensor], dtype: torch.dtype) -> None:
    network = tiny().to(dtype)
    assert network.mapping(TINY["in.z"], TINY["in.c"], 0.7).dtype == dtype
    assert_near(made(network, dtype), exact, dtype)


@pytest.mark.parametrize("dtype", WITHIN)
def test_a_rendering_larger_than_the_super_resolution(dtype: torch.dtype) -> None:
    """Antialiased resizing, which knows no float16, happens before."""
    half, whole = tiny().to(dtype), tiny()
    with torch.no_grad():
        expected, _ = whole(TINY["in.ws"], CAMERA, resolution=20)
        found, _ = half(TINY["in.ws"].to(dtype), CAMERA, resolution=20)
        with torch.autocast("cpu", dtype):
            mixed, _ = whole(TINY["in.ws"], CAMERA, resolution=20)
    for image in (found, mixed):
        assert (image.float() - expected).abs().max() < WITHIN[dtype][0] * expected.abs().max()
