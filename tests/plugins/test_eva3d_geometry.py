"""Rays, samples, and which part knows what: options of the renderer against plain formulas."""

from __future__ import annotations

import pytest
import torch
from facednerf_eva3d.body import EXTENT
from facednerf_eva3d.boxes import posed_boxes, spans
from facednerf_eva3d.geometry import EMPTY, locate, sample_depths, template_distance
from facednerf_eva3d.parts import PARTS
from facednerf_eva3d.rays import camera_label, pixel_rays
from facednerf_eva3d.stance import Stance
from facednerf_eva3d.worlds import upright

from facednerf_core.errors import InputError
from tests.plugins.test_eva3d_goldens import (
    CAMERA,
    GOLDEN,
    POSE,
    SIZE,
    STYLE,
    golden_body,
    golden_network,
    golden_stance,
)


def test_rays_of_a_label_with_skew_and_a_moved_centre():
    turn = torch.linalg.matrix_exp(torch.tensor([[0, -0.3, 0.1], [0.3, 0, -0.2], [-0.1, 0.2, 0]]))
    pose = torch.eye(4)
    pose[:3, :3], pose[:3, 3] = turn, torch.tensor([0.5, -1.0, 2.0])
    intrinsics = torch.tensor([[90.0, 3.0, 11.0], [0.0, 70.0, 17.0], [0.0, 0.0, 1.0]])
    origin, directions = pixel_rays(camera_label(pose, intrinsics, (20, 12)), (20, 12))
    assert torch.equal(origin, pose[:3, 3])
    seen = (directions @ turn) @ intrinsics.T
    pixels = (seen[:, :2] / seen[:, 2:]).view(20, 12, 2)
    torch.testing.assert_close(pixels[3, 7], torch.tensor([7.5, 3.5]), atol=1e-4, rtol=0)
    torch.testing.assert_close(pixels[19, 0], torch.tensor([0.5, 19.5]), atol=3e-4, rtol=0)
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(240))


def test_depths_begin_their_intervals_and_noise_moves_them_within():
    first, last = torch.tensor([10.0, 8.0]), torch.tensor([11.0, 12.0])
    depths = sample_depths(first, last, 4)
    torch.testing.assert_close(depths, torch.tensor([[10, 10.25, 10.5, 10.75], [8, 9, 10, 11.0]]))
    noise = torch.tensor([[0.0, 0.5, 1.0, 0.5], [0.25, 0, 0, 1.0]])
    torch.testing.assert_close(
        sample_depths(first, last, 4, noise), torch.tensor([[10, 10.375, 10.75, 10.875], [8.25, 9, 10, 12.0]])
    )


def test_noise_is_taken_for_every_pixel_or_for_every_ray_that_meets_the_body():
    network, stance = golden_network(), golden_stance()
    noise = torch.rand(SIZE[0] * SIZE[1], 12, generator=torch.Generator().manual_seed(0))
    every = network.see(golden_body(), stance, CAMERA, noise=noise)
    some = network.see(golden_body(), stance, CAMERA, noise=noise[every.rays])
    assert torch.equal(every.depths, some.depths)
    moved = every.depths[:, :-1] - GOLDEN["z_vals"][:, :-1]
    torch.testing.assert_close(moved, noise[every.rays][:, :-1] * GOLDEN["z_vals"].diff(dim=1), atol=5e-5, rtol=0)
    with pytest.raises(InputError, match=r"\(512, 12\), for every pixel, or \(229, 12\)"):
        network.see(golden_body(), stance, CAMERA, noise=noise[:5])


def test_the_quick_refusal_of_points_refuses_none_that_belongs():
    body, stance = golden_body(), golden_stance()
    rng = torch.Generator().manual_seed(3)
    points = stance.translation + (torch.rand(20_000, 3, generator=rng) - 0.5) * torch.tensor([2.2, 2.4, 1.0])
    quick = locate(body, stance, PARTS, points, points)
    for part, known in zip(PARTS, quick.parts, strict=True):
        found = stance.canonical(points - stance.translation, part).points
        low, high = torch.tensor([part.low, part.high])
        inside = ((found >= low) & (found <= high)).all(dim=1).nonzero()[:, 0]
        assert torch.equal(known.sample, inside)
        assert len(inside) > 20
        position = (found[inside] - low) / (high - low) - 0.5
        torch.testing.assert_close(known.inputs[:, :3], position, atol=1e-5, rtol=0)


def test_shares_of_overlapping_parts_are_windows_that_add_up_to_one():
    body, stance = golden_body(), golden_stance()
    rng = torch.Generator().manual_seed(4)
    points = stance.translation + (torch.rand(20_000, 3, generator=rng) - 0.5) * torch.tensor([2.2, 2.4, 1.0])
    found = locate(body, stance, PARTS, points, points)
    total, windows, distance = torch.zeros(3, 20_000)
    for part, known in zip(PARTS, found.parts, strict=True):
        window = torch.exp(-4 * (2 * known.inputs[:, :3]).pow(8).sum(dim=1))
        low, high = torch.tensor([part.low, part.high])
        canonical = (known.inputs[:, :3] + 0.5) * (high - low) + low
        total[known.sample] += known.share
        windows[known.sample] += window
        distance[known.sample] += window * template_distance(body.template_sdf, canonical)
    met = windows > 0
    counts = sum(torch.zeros(20_000).index_add(0, known.sample, torch.ones(len(known.sample))) for known in found.parts)
    assert (counts > 1).sum() > 100, "there are overlaps"
    torch.testing.assert_close(total[met], torch.ones(int(met.sum())))
    torch.testing.assert_close(found.base[met], distance[met] / windows[met], atol=1e-5, rtol=0)
    assert (found.base[~met] == EMPTY).all()


def test_the_template_is_read_along_its_own_axes_and_held_beyond_them():
    axis = torch.linspace(-EXTENT, EXTENT, 14)
    x, y, z = torch.meshgrid(axis[:14], axis[:14], axis, indexing="ij")
    volume = 1 * x + 10 * y + 100 * z
    rng = torch.Generator().manual_seed(0)
    points = (torch.rand(50, 3, generator=rng) - 0.5) * 4
    held = points.clamp(-EXTENT, EXTENT)
    torch.testing.assert_close(template_distance(volume, points), held @ torch.tensor([1.0, 10.0, 100.0]), atol=1e-3, rtol=0)
    assert template_distance(volume, points[:0]).shape == (0,)


def test_directions_are_turned_with_the_skin():
    body, stance = golden_body(), golden_stance()
    points = stance.vertices + stance.translation
    directions = torch.nn.functional.normalize(points, dim=1)
    part = PARTS[13]
    found = locate(body, stance, PARTS, points, directions, fixed_direction=False).parts[13]
    carriers = stance.searched(part)
    chosen = carriers[[int((stance.vertices[carriers] - stance.vertices[s]).square().sum(1).argmin()) for s in found.sample]]
    expected = torch.linalg.solve(stance.skin[chosen, :3, :3], directions[found.sample])
    torch.testing.assert_close(found.inputs[:, 3:], expected, atol=1e-5, rtol=0)
    fixed = locate(body, stance, PARTS, points, directions).parts[13]
    assert torch.equal(fixed.inputs[:, 3:], torch.tensor([0, 0, -1.0]).expand_as(expected))


def test_what_is_behind_the_camera_is_drawn_by_the_original_alone():
    network = golden_network()
    away = CAMERA.clone()
    away[[0, 10]] = -1.0  # turned around its vertical axis
    arguments = (STYLE, away[None, None], POSE[None], golden_body())
    assert network(*arguments, near=None).mask.max() > 0.5
    mended = network(*arguments, near=0.0)
    assert mended.mask.max() == 0
    assert (mended.image == 1).all()
    assert (mended.depth == 0).all()


def test_a_camera_within_a_box_looks_forward():
    network, stance = golden_network(), golden_stance()
    inside = CAMERA.clone()
    box, carried = posed_boxes(stance.joints, golden_body().parents, PARTS), stance.transforms[PARTS[0].attached]
    inside[[3, 7, 11]] = carried[:3, :3] @ (box.low + box.high)[0] / 2 + carried[:3, 3] + stance.translation
    assert network.see(golden_body(), stance, inside).depths.min() < -0.1
    assert network.see(golden_body(), stance, inside, near=0.0).depths.min() == 0


def test_hits_are_those_of_dense_sampling():
    body, stance = golden_body(), golden_stance()
    boxes = posed_boxes(stance.joints, body.parents, PARTS)
    origin, directions = pixel_rays(CAMERA, (16, 8))
    found = spans(origin, directions, stance, boxes, PARTS)
    t = torch.linspace(9, 12, 3001)
    points = (origin + directions[:, None] * t[:, None]).double()
    for index, part in enumerate(PARTS):
        carried = stance.transforms[part.attached].double()
        local = (points - stance.translation.double() - carried[:3, 3]) @ carried[:3, :3]
        inside = ((local >= boxes.low[index]) & (local <= boxes.high[index])).all(dim=2)
        thick = found.hit[index] & (found.leave[index] - found.enter[index] > 2e-3)
        assert inside.any(dim=1)[thick].all()
        assert not (inside.any(dim=1) & ~found.hit[index]).any()
        entered = t[inside.float().argmax(dim=1)]
        torch.testing.assert_close(entered[thick], found.enter[index][thick], atol=2e-3, rtol=0)


def test_the_gradient_of_the_camera_is_the_pictures_own():
    """Against finite differences in float64, with the choice of samples and of vertices held."""
    network, body = golden_network().double(), golden_body().to(torch.float64)
    stance = Stance.of(body, POSE[0].double())
    drive = [films.of(0) for films in network.films(STYLE.double())]
    camera = CAMERA.double().requires_grad_()
    sight = network.see(body, stance, camera, size=(16, 8))
    rng = torch.Generator().manual_seed(0)
    cotangent = torch.rand(3, 16, 8, generator=rng, dtype=torch.float64) - 0.5
    (gradient,) = torch.autograd.grad((network.draw(drive, sight).image[0, 0] * cotangent).sum(), camera)
    assert gradient.isfinite().all()
    known = [part.sample for part in sight.geometry.parts]
    for index in (3, 7, 1, 6, 16, 21):
        step, values = 1e-7, []
        for sign in (1, -1):
            moved = CAMERA.double()
            moved[index] += sign * step
            base = network.see(body, stance, moved, size=(16, 8))
            assert all(torch.equal(part.sample, old) for part, old in zip(base.geometry.parts, known, strict=True))
            origin, directions = pixel_rays(moved, (16, 8))
            points = origin + directions[sight.rays][:, None] * sight.depths.detach()[:, :, None]
            along = directions[sight.rays][:, None].expand_as(points)
            hit = spans(origin, directions, stance, posed_boxes(stance.joints, body.parents, PARTS), PARTS).hit
            asked = [on[sight.rays][:, None].expand(-1, 12).flatten() for on in hit]
            geometry = locate(body, stance, PARTS, points.flatten(0, 1), along.flatten(0, 1), asked)
            held = type(sight)(sight.size, sight.rays, origin, directions[sight.rays], sight.depths.detach(), geometry)
            values.append((network.draw(drive, held).image[0, 0] * cotangent).sum().item())
        assert gradient[index].item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-4, abs=1e-5)


def test_a_pose_folded_into_the_world_shows_the_same_picture():
    network, body = golden_network().double(), golden_body().to(torch.float64)
    camera, pose = CAMERA.double(), POSE[0].double()
    label, still = upright(body, camera, pose)
    assert (still[:3] == 0).all()
    assert (still[-3:] == 0).all()
    assert torch.equal(still[3:82], pose[3:82])
    style = STYLE.double()
    before = network(style, camera[None, None], pose[None, None], body)
    after = network(style, label[None, None], still[None, None], body)
    torch.testing.assert_close(after.image, before.image, atol=1e-6, rtol=0)
    torch.testing.assert_close(after.depth, before.depth, atol=1e-5, rtol=0)
    up = label[:16].view(4, 4)[:3, 1]
    assert up[1] < -0.9, "the camera's down is the world's down"
    assert label[11] > 9, "and it stands in front"
