"""Rays, depths, marching and planes against golden values of the single operations."""

from __future__ import annotations

import json
import math

import pytest
import torch
from facednerf_eg3d.marching import interval_weights, mean_depth, sample_weights
from facednerf_eg3d.network import TriPlaneGenerator
from facednerf_eg3d.rays import box_span, camera_rays
from facednerf_eg3d.sampling import coarse_depths, fine_depths, middle_draws, random_draws
from facednerf_eg3d.triplanes import EG3D_AXES, mean_features, plane_axes, plane_features

from facednerf_core.errors import InputError
from facednerf_core.views import look_at
from tests.plugins.eg3d_goldens import GOLDEN, OPS, TINY, assert_golden, draws


def test_marching() -> None:
    depths, sigma = OPS["march.in.depths"].squeeze(-1), OPS["march.in.densities"].squeeze(-1)
    weights = interval_weights(depths, sigma)
    assert_golden("march.weights", weights)
    share = sample_weights(weights)
    feature = (share[..., None] * OPS["march.in.colors"]).sum(-2)
    assert_golden("march.rgb", 2 * feature - 1)
    assert_golden("march.white_back.rgb", 2 * (feature + 1 - weights.sum(-1, keepdim=True)) - 1)
    depth = mean_depth(depths, weights)
    assert torch.isinf(depth[1, 1])  # this ray meets nothing
    assert_golden("march.depth", depth.clamp(depths.min(), depths.max()))


def test_an_empty_ray_gives_finite_gradients() -> None:
    sigma = torch.full((1, 5), -1000.0, requires_grad=True)
    depths = torch.linspace(1, 2, 5)[None]
    depth = mean_depth(depths, interval_weights(depths, sigma)).clamp(max=2.0)
    depth.sum().backward()
    assert torch.isfinite(sigma.grad).all()


def test_importance_sampling() -> None:
    fine = fine_depths(OPS["march.in.depths"][..., 0], OPS["march.weights"][..., 0], OPS["imp.in.u"].view(2, 5, 6))
    assert_golden("imp.depths_fine", fine)


def test_coarse_depths_of_the_tiny_case() -> None:
    assert_golden("depths_coarse", coarse_depths(2.25, 3.3, draws().coarse))


def test_the_box() -> None:
    near, far = box_span(OPS["box.in.o"], OPS["box.in.d"], 1.2)
    assert_golden("box.tmin", near)
    assert_golden("box.tmax", far)


def test_planes_are_read_along_the_published_axes() -> None:
    table = json.loads((GOLDEN / "state_dict_keys.json").read_text())["configs"]["ffhq512_128"]["plane_axes"]
    axes = plane_axes(table)
    assert axes == EG3D_AXES
    points = OPS["proj.in.points"]
    assert_golden("proj.uv", torch.stack([points[..., list(pair)] for pair in axes], dim=1))
    features = plane_features(OPS["tri.in.planes"], points, axes, 1.6)
    assert_golden("tri.features", features.transpose(2, 3))
    torch.testing.assert_close(
        mean_features(OPS["tri.in.planes"], points, axes, 1.6), OPS["tri.features"].mean(1), atol=1e-5, rtol=0
    )


def test_other_axes_are_understood_or_refused() -> None:
    eye, swapped = [[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 0, 1], [0, 1, 0]]
    assert plane_axes([eye, swapped, [[0, 1, 0], [0, 0, 1], [1, 0, 0]]]) == ((0, 1), (0, 2), (1, 2))
    with pytest.raises(InputError, match="no permutation"):
        plane_axes([eye, swapped, [[1, 0.5, 0], [0, 1, 0], [0, 0, 1]]])


def test_rays_of_a_skewed_camera() -> None:
    origins, directions = camera_rays(TINY["in.c"], 16)
    assert_golden("ray_origins", origins)
    assert_golden("ray_directions", directions)


@pytest.mark.parametrize("index", range(7))
def test_the_core_builds_the_official_cameras(index: int) -> None:
    """The official horizontal and vertical numbers, put into the position they mean."""
    case = json.loads((GOLDEN / "golden_camera.json").read_text())["lookat_pose"][index]
    phi = math.acos(1 - 2 * case["vertical"] / math.pi)
    turn = math.pi - case["horizontal"]
    origin = tuple(
        case["radius"] * part for part in (math.sin(phi) * math.cos(turn), math.cos(phi), math.sin(phi) * math.sin(turn))
    )
    camera = look_at(origin, tuple(case["pivot"]), 4.2647)
    torch.testing.assert_close(camera[:16].view(4, 4), torch.tensor(case["cam2world"]), atol=1e-6, rtol=0)


def test_draws_are_shared_by_subjects_and_differ_by_view() -> None:
    like = torch.zeros(())
    rngs = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    found = random_draws(rngs, 9, 5, 4, like)
    assert found.coarse.shape == (1, 2, 9, 5)
    assert found.fine.shape == (1, 2, 9, 4)
    assert not torch.equal(found.coarse[0, 0], found.coarse[0, 1])
    again = random_draws([torch.Generator().manual_seed(2)], 9, 5, 4, like)
    assert torch.equal(again.fine[0, 0], found.fine[0, 1])
    assert torch.equal(middle_draws(2, 4, like).fine.flatten(), torch.tensor([0.125, 0.375, 0.625, 0.875]))


def test_an_unknown_clamp_mode_is_refused() -> None:
    with pytest.raises(InputError, match="softplus"):
        TriPlaneGenerator(rendering_kwargs={"clamp_mode": "relu"})
