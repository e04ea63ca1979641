"""Tri-grids, the table that a CPU reads them from, the decoder and what is taken away before the marching."""

from __future__ import annotations

import math

import pytest
import torch
from facednerf_panohead import gridfield, gridtable
from facednerf_panohead.clouds import HeadRayOptions, cropped, trimmed, without_clouds
from facednerf_panohead.decoder import Decoder, activation
from facednerf_panohead.gridtable import Layout, tabulated
from facednerf_panohead.trigrid import PANOHEAD_AXES, as_grids, grid_axes, grid_features, mean_features
from torch import Tensor

from facednerf_core.errors import InputError
from tests.plugins.panohead_goldens import TINY, assert_golden, tiny

OTHER_AXES = ((2, 1, 0), (0, 2, 1), (1, 0, 2))


def case(depth: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    torch.manual_seed(3)
    grids = torch.randn(2, 3, 4, depth, 8, 8, dtype=dtype, requires_grad=True)
    points = (torch.rand(2, 60, 3, dtype=dtype) * 1.9 - 0.95).requires_grad_()  # the grids reach to 0.7
    return grids, points


def test_slices_vary_fastest() -> None:
    image = torch.arange(3 * 4 * 5.0).view(1, 60, 1, 1)
    grids = as_grids(image, 5)
    assert grids.shape == (1, 3, 4, 5, 1, 1)
    assert grids[0, 2, 3, 1].item() == 2 * 20 + 3 * 5 + 1


def test_each_grid_is_read_along_its_axes() -> None:
    """A grid that holds a ramp along its width, height or depth tells the coordinate that was read there."""
    side = 8
    ramp = (torch.arange(side) + 0.5) / side - 0.5
    wide, high = ramp.view(1, 1, side), ramp.view(1, side, 1)
    deep = ramp.view(side, 1, 1)
    cube = torch.stack([value.expand(side, side, side) for value in (wide, high, deep)])
    points = torch.rand(1, 20, 3, generator=torch.Generator().manual_seed(0)) * 0.8 - 0.4
    found = grid_features(cube[None, None].expand(1, 3, -1, -1, -1, -1), points, PANOHEAD_AXES, 1.0)
    for grid, triple in enumerate(("xyz", "xzy", "yzx")):
        for direction, axis in enumerate(triple):
            torch.testing.assert_close(found[0, grid, direction], points[0, :, "xyz".index(axis)])


def test_one_slice_is_not_a_plane() -> None:
    points = torch.tensor([[[0.0, 0.0, 0.3]]])
    found = grid_features(torch.ones(1, 3, 1, 1, 8, 8), points, PANOHEAD_AXES, 1.0)
    torch.testing.assert_close(found.flatten(), torch.tensor([1 - 0.6 / 2, 1.0, 1.0]))


def test_axes_of_a_checkpoint_are_understood_or_refused() -> None:
    eye, swapped = [[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 0, 1], [0, 1, 0]]
    assert grid_axes([eye, swapped, [[0, 1, 0], [0, 0, 1], [1, 0, 0]]]) == PANOHEAD_AXES
    assert grid_axes([eye, swapped, [[0, 0, 1], [1, 0, 0], [0, 1, 0]]])[2] == (2, 0, 1)
    with pytest.raises(InputError, match="no permutation"):
        grid_axes([eye, swapped, [[1, 0.5, 0], [0, 1, 0], [0, 0, 1]]])


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
@pytest.mark.parametrize(("axes", "portion"), [(PANOHEAD_AXES, 7), (OTHER_AXES, 8192)])
def test_the_table_gives_values_and_gradients_of_the_plain_way(
    depth: int, axes: gridtable.GridAxes, portion: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gridtable, "PORTION", portion)
    grids, points = case(depth)
    quick = gridtable.read(points, tabulated(grids), Layout(axes, 1.4, depth, 8))
    plain = mean_features(grids, points, axes, 1.4)
    torch.testing.assert_close(quick, plain)
    upstream = torch.randn_like(plain)
    for found, expected in zip(
        torch.autograd.grad(quick, (grids, points), upstream),
        torch.autograd.grad(plain, (grids, points), upstream),
        strict=True,
    ):
        torch.testing.assert_close(found, expected)
    with torch.no_grad():
        assert torch.equal(gridtable.read(points, tabulated(grids), Layout(axes, 1.4, depth, 8)), quick)


def test_points_alone_can_have_a_gradient() -> None:
    grids, points = case(3)
    still = grids.detach()
    quick = gridtable.read(points, tabulated(still), Layout(PANOHEAD_AXES, 1.4, 3, 8))
    plain = mean_features(still, points, PANOHEAD_AXES, 1.4)
    (found,), (expected,) = (torch.autograd.grad(value.square().sum(), points) for value in (quick, plain))
    torch.testing.assert_close(found, expected)


def test_the_way_of_other_devices_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole with gradient, in portions without."""
    network = tiny()
    grids, points = network.grids(TINY["in.ws"]), TINY["in.points"]
    whole = gridfield.sampled(points, grids, network.decoder, network.axes, 1.0)
    monkeypatch.setattr(gridfield, "AT_ONCE", 90)
    sizes: list[int] = []
    hook = network.decoder.register_forward_pre_hook(lambda _module, given: sizes.append(given[0].shape[1]))
    with torch.no_grad():
        parts = gridfield.sampled(points, grids, network.decoder, network.axes, 1.0)
    hook.remove()
    assert sizes == [90, 90, 20]
    for name, one, other in zip(("sigma", "rgb"), whole, parts, strict=True):
        assert_golden(f"sample_mixed.{name}", one)
        torch.testing.assert_close(one, other)


def test_activations_are_their_formulas() -> None:
    decoder = Decoder(4, 3, 5)
    features = torch.randn(2, 7, 4)
    sigma, plain = decoder(features)
    assert sigma.shape == (2, 7)
    for name, expected in {
        "sigmoid": plain.sigmoid() * 1.002 - 0.001,
        "lrelu": torch.where(plain > 0, plain, 0.2 * plain) * math.sqrt(2),
    }.items():
        decoder.activation = activation(name)
        same, found = decoder(features)
        assert torch.equal(same, sigma)
        torch.testing.assert_close(found, expected)


def test_the_crop_keeps_its_limit_and_every_height() -> None:
    inside, outside = [[0.5, 0.9, 0.5], [-0.5, -3.0, 0.0]], [[0.51, 0.0, 0.0], [0.0, 0.0, -0.51]]
    points = torch.tensor([[*inside, *outside]])
    options = HeadRayOptions(box_warp=1.5, triplane_crop=0.25)
    found = cropped(torch.ones(1, 4), points, options)
    assert found[0, :2].tolist() == [1.0, 1.0]
    assert (found[0, 2:] < -900).all()
    assert torch.equal(cropped(torch.ones(1, 4), points, HeadRayOptions(triplane_crop=None)), torch.ones(1, 4))


def test_clouds_are_culled_or_binarized_by_their_opacity() -> None:
    opacity = torch.tensor([[0.1, 0.29, 0.31, 0.9]])
    sigma = torch.log(torch.expm1(-torch.log1p(-opacity))) + 1  # 1 - exp(-softplus(sigma - 1)) is that opacity
    culled = without_clouds(sigma, HeadRayOptions(cull_clouds=0.3))
    assert (culled[0, :2] < -900).all()
    assert torch.equal(culled[0, 2:], sigma[0, 2:])
    assert without_clouds(sigma, HeadRayOptions(cull_clouds=0.95, binarize_clouds=0.3)).tolist() == [
        [-1000.0, -1000.0, 1000.0, 1000.0]
    ]


def test_what_is_cropped_stays_empty_when_binarized() -> None:
    def solid(points: Tensor) -> tuple[Tensor, Tensor]:
        return torch.full(points.shape[:2], 9.0, dtype=points.dtype), points

    points = torch.tensor([[[0.0, 0.0, 0.0], [0.45, 0.0, 0.0]]], dtype=torch.float64)
    sigma, colours = trimmed(solid, HeadRayOptions(binarize_clouds=0.3))(points)
    assert sigma.tolist() == [[1000.0, -1000.0]]
    assert sigma.dtype == torch.float64
    assert torch.equal(colours, points)
