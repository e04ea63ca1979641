"""Rays, depths, marching and planes against golden values of the single operations."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from facednerf_eg3d.marching import interval_weights, mean_depth, sample_weights
from facednerf_eg3d.network import TriPlaneGenerator
from facednerf_eg3d.rays import box_span, camera_rays
from facednerf_eg3d.sampling import Draws, coarse_depths, fine_depths, middle_draws, random_draws
from facednerf_eg3d.triplanes import EG3D_AXES, mean_features, plane_axes, plane_features
from facednerf_eg3d.volume import Field, RayOptions, Traced, trace

from facednerf_core.errors import InputError
from facednerf_core.views import Orbit
from tests.plugins.eg3d_goldens import GOLDEN, OPS, TINY, assert_golden, draws

SIDE = 16
"""Rays per side of a picture of `solid`."""


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


def test_directions_have_unit_length_though_the_rotation_is_not_quite_one() -> None:
    camera = TINY["in.c"].clone()
    camera[:, :3] *= 1.3
    _, directions = camera_rays(camera, 4)
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones(2, 16))


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


def test_what_rendering_arguments_must_say() -> None:
    with pytest.raises(InputError, match="rendering_kwargs has no ray_end, box_warp"):
        RayOptions.read({"ray_start": 1.0, "depth_resolution": 4, "depth_resolution_importance": 4})


def test_noise_on_the_density_is_given_and_counts_in_both_passes() -> None:
    """Against a field that already has it, which only the sorted samples of no second pass allow to write down."""
    torch.manual_seed(0)
    origins, directions = camera_rays(TINY["in.c"][None], 4)
    options = RayOptions(coarse=6, fine=0, density_noise=0.7)
    plain = middle_draws(6, 0, origins)
    noise = torch.randn(1, 2, 16, 6)

    def field(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return 3.0 - 4.0 * points.norm(dim=-1), points.sigmoid()

    def noisy(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        sigma, colours = field(points)
        return sigma + 0.7 * noise.flatten(1), colours

    given = replace(plain, density=noise)
    torch.testing.assert_close(
        trace(field, origins, directions, options, given), trace(noisy, origins, directions, options, plain)
    )
    both = replace(options, fine=5)
    draws_ = replace(middle_draws(6, 5, origins), density=torch.randn(1, 2, 16, 11))
    quiet = trace(field, origins, directions, both, middle_draws(6, 5, origins))
    assert torch.equal(quiet.feature, trace(field, origins, directions, replace(both, density_noise=0.0), draws_).feature)
    for part in (slice(0, 6), slice(6, 11)):
        kept = torch.zeros(1, 2, 16, 11)
        kept[..., part] = draws_.density[..., part]
        moved = trace(field, origins, directions, both, replace(draws_, density=kept))
        assert (moved.alpha - quiet.alpha).abs().max() > 1e-3


def test_depth_is_clamped_to_all_samples_even_if_they_do_not_increase() -> None:
    """With near limits and few samples, even steps in 1 / depth overshoot infinity."""
    origins, directions = camera_rays(TINY["in.c"][None], 2)
    options = RayOptions(coarse=4, fine=0, near=0.1, far=2.6, disparity=True)
    draws_ = Draws(torch.full((1, 2, 4, 4), 0.9), torch.zeros(1, 2, 4, 0))
    depths = coarse_depths(0.1, 2.6, draws_.coarse, disparity=True)
    assert depths.min() < 0
    seen = trace(lambda p: (p.new_full(p.shape[:2], -300.0), p), origins, directions, options, draws_)
    torch.testing.assert_close(seen.depth, depths.amax().expand(1, 2, 4))


def test_transmittance_is_the_original_product() -> None:
    depths = torch.linspace(0.5, 3.0, 40, dtype=torch.float64)[None]
    sigma = torch.randn(1, 40, generator=torch.Generator().manual_seed(2)).double() * 8
    density = torch.nn.functional.softplus((sigma[:, 1:] + sigma[:, :-1]) / 2 - 1)
    alpha = 1 - torch.exp(-density * (depths[:, 1:] - depths[:, :-1]))
    kept, expected = 1.0, []
    for share in alpha[0].tolist():
        expected.append(share * kept)
        kept *= 1 - share + 1e-10
    torch.testing.assert_close(
        interval_weights(depths, sigma)[0], torch.tensor(expected, dtype=torch.float64), atol=1e-15, rtol=0
    )


def test_a_ray_through_next_to_nothing_has_no_depth_in_float32() -> None:
    """1 - exp(-x) is 0 there, as in the original, whose depth is then the largest sample; in float64 it is not."""
    depths = torch.linspace(2.25, 3.3, 48)[None]
    sigma = torch.full((1, 48), -17.0)
    assert torch.isinf(mean_depth(depths, interval_weights(depths, sigma)))
    assert torch.isfinite(mean_depth(depths.double(), interval_weights(depths.double(), sigma.double())))


def solid(
    radius: torch.Tensor, rod: float = 0.03, *, height: float = 0.2, asked: list[tuple[bool, int]] | None = None
) -> Field:
    """Hard balls of radius (N,), each below an endless rod that runs away from the camera; there is none of a thickness
    below 0. `asked` gathers for how many points of a subject it is asked, and whether with gradient."""

    def field(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if asked is not None:
            asked.append((torch.is_grad_enabled(), points.shape[1]))
        x, y, z = points.unbind(-1)
        ball = radius[:, None] - points.norm(dim=-1)
        bar = rod - torch.stack([y - height, z - x], dim=-1).norm(dim=-1)
        sigma = (1000.0 * torch.maximum(ball, bar)).clamp(-30.0, 100.0)
        return sigma, (4.0 * points + radius[:, None, None]).sigmoid()

    return field


def look(field: Field, faint: float, *, subjects: int = 1, rays: int = SIDE**2, coarse: int = 24, fine: int = 24) -> Traced:
    """Two views; the first rays are the upper rows of each."""
    camera = Orbit().view((0.0, 0.0), (0.3, 0.1), subjects=subjects).camera
    origins, directions = (value[:, :, :rays] for value in camera_rays(camera, SIDE))
    options = RayOptions(coarse=coarse, fine=fine, faint=faint)
    return trace(field, origins, directions, options, middle_draws(coarse, fine, origins))


def assert_alike(found: Traced, expected: Traced) -> None:
    """Depth counts where there is something."""
    there = expected.alpha > 1e-2
    assert there.any()
    torch.testing.assert_close(found.feature, expected.feature, atol=1e-3, rtol=0)
    torch.testing.assert_close(found.alpha, expected.alpha, atol=1e-3, rtol=0)
    torch.testing.assert_close(found.depth[there], expected.depth[there], atol=1e-3, rtol=0)


def slope(traced: Traced, radius: torch.Tensor) -> torch.Tensor:
    (found,) = torch.autograd.grad((traced.feature.sum(-1) + traced.alpha * traced.depth).sum(), radius)
    return found


def test_without_faint_samples_the_picture_and_its_gradient_are_nearly_the_same() -> None:
    radius = torch.tensor([0.15], requires_grad=True)
    whole, seen = (look(solid(radius), faint) for faint in (0.0, 1e-4))
    assert_alike(seen, whole)
    expected = slope(whole, radius)
    assert expected.abs() > 100
    torch.testing.assert_close(slope(seen, radius), expected, rtol=0.03, atol=0)


def test_few_samples_are_asked_for_a_gradient() -> None:
    """And where nothing is, there is no second pass."""
    asked: list[tuple[bool, int]] = []
    look(solid(torch.tensor([0.15]), asked=asked), 1e-4)
    samples = 2 * SIDE**2 * 48
    assert 0 < sum(count for graded, count in asked if graded) < 0.15 * samples
    assert sum(count for graded, count in asked if not graded) < 0.85 * samples
    asked.clear()
    look(solid(torch.tensor([0.15]), asked=asked), 0.0)
    assert asked == [(True, samples // 2)] * 2


def test_a_density_that_is_given_is_asked_instead_of_the_field() -> None:
    """Of the very same field, so that the picture stays; the field then is asked once, with gradient."""
    asked: list[tuple[bool, int]] = []
    weighed: list[tuple[bool, int]] = []
    radius = torch.tensor([0.15])
    origins, directions = camera_rays(Orbit().view((0.0, 0.0)).camera, SIDE)
    options, middle = RayOptions(coarse=24, fine=24, faint=1e-4), middle_draws(24, 24, origins)
    alone = solid(radius, asked=weighed)
    quick = trace(solid(radius, asked=asked), origins, directions, options, middle, density=lambda points: alone(points)[0])
    assert [graded for graded, _ in asked] == [True]
    assert [graded for graded, _ in weighed] == [False, False]
    torch.testing.assert_close(quick, trace(solid(radius), origins, directions, options, middle))


def test_subjects_of_which_unlike_numbers_of_samples_are_seen_equal_each_alone() -> None:
    radius = torch.tensor([0.15, -1.0, 0.06], requires_grad=True)
    both = look(solid(radius, -1.0), 1e-4, subjects=3)
    slopes = slope(both, radius)
    numbers = []
    for index in range(3):
        asked: list[tuple[bool, int]] = []
        own = radius[index : index + 1].detach().requires_grad_()
        one = look(solid(own, -1.0, asked=asked), 1e-4)
        numbers.append(asked[-1])
        for found, expected in zip(both, one, strict=True):
            torch.testing.assert_close(found[index : index + 1], expected)
        torch.testing.assert_close(slopes[index : index + 1], slope(one, own), rtol=1e-4, atol=1e-6)
    assert len(set(numbers)) == 3


@pytest.mark.parametrize("radii", [[-1.0], [-1.0, -1.0]])
def test_where_nothing_is_all_is_finite_and_no_field_is_asked_for_no_points(radii: list[float]) -> None:
    asked: list[tuple[bool, int]] = []
    radius = torch.tensor(radii, requires_grad=True)
    seen = look(solid(radius, -1.0, asked=asked), 1e-4, subjects=len(radii))
    assert all(count > 0 for _, count in asked)
    assert (seen.alpha < 1e-6).all()
    torch.testing.assert_close(seen.feature, torch.full_like(seen.feature, -1.0))
    assert all(torch.isfinite(value).all() for value in seen)
    (gradient,) = torch.autograd.grad(seen.feature.sum() + seen.depth.sum() + seen.alpha.sum(), radius)
    assert torch.isfinite(gradient).all()


def rod_alone() -> Field:
    """Thinner, along the rays, than the steps of ten coarse samples."""
    return solid(torch.tensor([-1.0]), 0.05, height=0.12)


def stepped_over(rays: int) -> tuple[torch.Tensor, Traced]:
    """Which rays meet the rod, but not in their first look; and what all samples see."""
    first, whole = (look(rod_alone(), 0.0, coarse=10, fine=fine, rays=rays) for fine in (0, 24))
    return (first.alpha < 1e-4) & (whole.alpha > 0.5), whole


def test_a_rod_that_the_first_look_steps_over_is_met_through_its_neighbours() -> None:
    missed, whole = stepped_over(SIDE**2)
    assert missed.sum() > 10
    assert_alike(look(rod_alone(), 1e-4, coarse=10), whole)


def test_rays_that_make_no_square_are_all_looked_at_twice() -> None:
    rays = 7 * SIDE
    missed, whole = stepped_over(rays)
    assert missed.sum() > 10
    assert_alike(look(rod_alone(), 1e-4, coarse=10, rays=rays), whole)
