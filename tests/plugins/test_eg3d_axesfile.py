"""W's axes: read from a file, with what goes with them, and the principal ones of what they leave."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from facednerf_eg3d import axesfile
from facednerf_eg3d.generator import Eg3d
from facednerf_eg3d.mapping import MappingNetwork, principal_axes
from safetensors.torch import save_file
from torch import Tensor

from facednerf_core.compute import rng
from facednerf_core.errors import InputError
from facednerf_core.views import Orbit
from tests.plugins.eg3d_goldens import tiny

VARIANCES = torch.tensor([0.1, 0.4, 0.8, 1.2, 1.7, 7.0])  # the last is beyond twice the mean


def orthonormal(count: int, width: int, seed: int = 0) -> Tensor:
    return torch.linalg.qr(torch.randn(width, count, generator=rng(seed), dtype=torch.double)).Q.T.float()


PRINCIPAL = orthonormal(6, 6)
COVARIANCE = PRINCIPAL.T @ torch.diag(VARIANCES) @ PRINCIPAL
LONGEST = (2 * VARIANCES.mean()).sqrt()


class Normal(MappingNetwork):
    """W is normal, of a covariance that is known."""

    def __init__(self) -> None:
        super().__init__(z_dim=6, c_dim=25, w_dim=6, num_ws=1)

    def row(self, z: Tensor, c: Tensor) -> Tensor:
        return 0.5 + (z * VARIANCES.sqrt()) @ PRINCIPAL


def axes(known: Tensor | None = None) -> Tensor:
    return principal_axes(Normal(), torch.zeros(25), known, samples=100_000)


def test_axes_come_back_from_half_precision_exactly_orthonormal(tmp_path: Path) -> None:
    known = orthonormal(40, 64)
    halved = known.half()
    save_file({"axes": halved}, tmp_path / "axes.safetensors")
    again = axesfile.read(tmp_path / "axes.safetensors", 64)
    assert again.dtype == torch.float32
    assert (halved.float() @ halved.float().T - torch.eye(40)).abs().max() > 1e-5
    torch.testing.assert_close(again @ again.T, torch.eye(40), atol=1e-6, rtol=0)
    torch.testing.assert_close(again, known, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("tensors", "complaint"),
    [
        ({"directions": torch.eye(4)}, r"should hold 'axes'.* it holds directions \(4, 4\)"),
        ({"axes": torch.eye(3, 5)}, r"at most 4 rows of 4 numbers; it holds axes \(3, 5\)"),
        ({"axes": torch.ones(4)}, r"it holds axes \(4,\)"),
        ({"axes": torch.eye(5, 4)}, r"it holds axes \(5, 4\)"),
        ({"axes": 1.1 * torch.eye(3, 4)}, "are not orthonormal"),
        ({"axes": torch.eye(2, 4) + 0.1 * torch.eye(2, 4).flip(0)}, "are not orthonormal"),
        ({"axes": torch.eye(4)[[0, 0]]}, "are not orthonormal"),
    ],
)
def test_other_tensors_are_no_axes(tensors: dict[str, Tensor], complaint: str, tmp_path: Path) -> None:
    save_file(tensors, tmp_path / "axes.safetensors")
    with pytest.raises(InputError, match=complaint):
        axesfile.read(tmp_path / "axes.safetensors", 4)


def test_axes_are_the_principal_ones_where_none_are_known() -> None:
    rows = axes()
    lengths = rows.norm(dim=1)
    torch.testing.assert_close(lengths, VARIANCES.sqrt().clamp_max(LONGEST), rtol=0.025, atol=0)
    directions = rows / lengths[:, None]
    torch.testing.assert_close((directions @ PRINCIPAL.T).abs(), torch.eye(6), atol=0.03, rtol=0)
    torch.testing.assert_close(directions @ directions.T, torch.eye(6), atol=1e-5, rtol=0)


def test_known_axes_come_first_without_what_goes_with_them_loosely() -> None:
    known = torch.stack([PRINCIPAL[2] + PRINCIPAL[4], PRINCIPAL[2] - PRINCIPAL[4]]) / 2**0.5  # their correlation is -0.36
    assert (torch.cosine_similarity(known, known @ COVARIANCE) < 0.95).all()
    rows = axes(known)
    assert rows.shape == (6, 6)
    assert (torch.cosine_similarity(rows[:2], known) > 0.999).all()
    torch.testing.assert_close(rows[:2].norm(dim=1), VARIANCES[[2, 4]].mean().sqrt().expand(2), rtol=0.025, atol=0)


def test_axes_that_always_go_together_are_nearly_one_and_the_principal_ones_of_the_rest_follow() -> None:
    known = torch.stack([PRINCIPAL[0] + PRINCIPAL[5], PRINCIPAL[0] - PRINCIPAL[5]]) / 2**0.5  # their correlation is -0.97
    rows = axes(known)
    assert (torch.cosine_similarity(rows[:2], known @ COVARIANCE) > 0.999).all()
    assert torch.cosine_similarity(rows[0], rows[1], dim=0) < -0.99
    lengths = rows.norm(dim=1)
    torch.testing.assert_close(lengths[:2], LONGEST.expand(2), rtol=0.025, atol=0)
    torch.testing.assert_close(lengths[2:], VARIANCES[1:5].sqrt(), rtol=0.025, atol=0)
    torch.testing.assert_close((rows[2:] / lengths[2:, None] @ PRINCIPAL[1:5].T).abs(), torch.eye(4), atol=0.05, rtol=0)


def test_a_generator_has_the_axes_that_it_is_told_and_keeps_them_when_tuned() -> None:
    network, known = tiny(), orthonormal(3, 64)
    told, plain = Eg3d(network, replace(Orbit(), yaw=0.4), axes=known), Eg3d(network, Orbit())
    assert torch.equal(told.axes(), principal_axes(network.backbone.mapping, Orbit().camera(), known))
    assert torch.equal(told.tuned(dict(told.tunable())).axes(), told.axes())
    assert torch.equal(plain.axes(), principal_axes(network.backbone.mapping, Orbit().camera()))
    assert not torch.allclose(plain.axes()[:3], told.axes()[:3])
