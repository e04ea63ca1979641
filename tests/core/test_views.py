"""Cameras: where they stand, what moves them, and which a look asks for."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from facednerf_core.compute import rng
from facednerf_core.views import Anywhere, Fixed, Nearby, Orbit, View, angles, nudged, orbited, stack, within

PAIRS = [(0.0, 0.0), (0.3, 0.0), (-0.5, 0.1), (0.0, -0.25), (0.6, 0.3)]


def pose(camera: Tensor) -> Tensor:
    return camera[..., :16].unflatten(-1, (4, 4))


def home(yaw: float = 0.2, pitch: float = 0.1, subjects: int = 2) -> View:
    return Orbit().view((yaw, pitch), subjects=subjects)


def test_the_frontal_camera_is_the_published_one(repo: Path) -> None:
    golden = json.loads((repo / "tests/golden/eg3d/golden_camera.json").read_text())["lookat_pose"][1]
    assert (golden["pivot"], golden["radius"]) == ([0, 0, 0.2], 2.7)
    torch.testing.assert_close(pose(Orbit().camera()), torch.tensor(golden["cam2world"]), atol=1e-6, rtol=0)
    torch.testing.assert_close(Orbit().camera()[16:], torch.tensor([4.2647, 0, 0.5, 0, 4.2647, 0.5, 0, 0, 1]))


@pytest.mark.parametrize("number", range(3))
def test_cameras_of_the_orbit_are_published_look_at_poses(number: int, repo: Path) -> None:
    golden = json.loads((repo / "tests/golden/eg3d/golden_camera.json").read_text())["lookat_pose"][1:5][number]
    assert golden["pivot"] == [0, 0, 0.2]
    expected = torch.tensor(golden["cam2world"])
    yaw, pitch = angles(torch.cat([expected.flatten(), torch.zeros(9)]))
    torch.testing.assert_close(pose(Orbit().camera(float(yaw), float(pitch))), expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize(("yaw", "pitch"), PAIRS)
def test_a_camera_stands_at_its_angles_and_looks_at_the_pivot(yaw: float, pitch: float) -> None:
    orbit = Orbit()
    camera = orbit.camera(yaw, pitch)
    measured = torch.stack(angles(camera))
    torch.testing.assert_close(measured, torch.tensor([yaw, pitch]), atol=1e-6, rtol=0)
    place = pose(camera)
    assert float(place[:3, 3].norm()) == pytest.approx(2.7, abs=1e-5)
    torch.testing.assert_close(place[:3, :3].T @ place[:3, :3], torch.eye(3), atol=1e-6, rtol=0)
    assert float(torch.linalg.det(place[:3, :3])) == pytest.approx(1, abs=1e-5)
    towards = torch.tensor(orbit.pivot) - place[:3, 3]
    torch.testing.assert_close(place[:3, 2], towards / towards.norm(), atol=1e-6, rtol=0)
    assert float(place[1, 0]) == pytest.approx(0, abs=1e-6), "upright"
    assert float(place[1, 1]) < 0, "y points down in the camera"


def test_pixels_are_square_in_pictures_that_are_not() -> None:
    square, tall = Orbit().camera(0.3, 0.1), Orbit(aspect=2.0).camera(0.3, 0.1)
    assert torch.equal(tall[:16], square[:16])
    height, width = 128, 64
    assert float(tall[16]) * width == pytest.approx(float(tall[20]) * height)
    assert float(tall[16]) == float(square[16]), "counted in widths"
    assert torch.equal(Orbit(aspect=2.0).view((0.3, 0.1)).camera[0, 0], tall)


@pytest.mark.parametrize(("yaw", "pitch"), PAIRS)
def test_a_camera_that_is_carried_keeps_framing_and_distance(yaw: float, pitch: float) -> None:
    camera = home(0.2, 0.1, subjects=1).camera[0, 0]
    orbit = Orbit()
    moved = orbited(camera, orbit, torch.tensor(yaw), torch.tensor(pitch))
    torch.testing.assert_close(torch.stack(angles(moved)), torch.tensor([0.2 + yaw, 0.1 + pitch]), atol=1e-5, rtol=0)
    assert torch.equal(moved[16:], camera[16:]), "the lens is the same"
    pivot = torch.tensor([*orbit.pivot, 1.0])
    torch.testing.assert_close(
        torch.linalg.inv(pose(moved))[:2] @ pivot, torch.linalg.inv(pose(camera))[:2] @ pivot, atol=1e-5, rtol=0
    )
    assert float(pose(moved)[:3, 3].norm()) == pytest.approx(float(pose(camera)[:3, 3].norm()), abs=1e-5)
    back = orbited(moved, orbit, torch.tensor(-yaw), torch.tensor(-pitch))
    torch.testing.assert_close(back, camera, atol=1e-5, rtol=0)


@pytest.mark.parametrize("pivot", [(0.0, 0.0, 0.0), (0.0, 0.0, 0.2), (0.0, -0.1, 0.3)])
def test_an_orbits_camera_is_carried_to_its_camera_at_the_other_angles(pivot: tuple[float, float, float]) -> None:
    orbit = Orbit(pivot=pivot)
    moved = orbited(orbit.camera(0.1, 0.2), orbit, torch.tensor([0.3, -2.0]), torch.tensor([-0.1, 0.05]))
    expected = torch.stack([orbit.camera(0.4, 0.1), orbit.camera(-1.9, 0.25)])
    torch.testing.assert_close(moved, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("yaw", "sides"), [(0.6, False), (1.2, False), (3.0, False), (3.14, True), (math.pi, True), (4.0, True)]
)
def test_an_orbit_says_whether_it_goes_all_round(yaw: float, sides: bool) -> None:
    assert Orbit(yaw=yaw).all_round == sides


@pytest.mark.parametrize(("yaw", "pitch"), [*PAIRS, (2.5, 0.2), (-1.6, -0.1)])
def test_a_camera_that_is_carried_keeps_what_is_its_own(yaw: float, pitch: float) -> None:
    orbit = Orbit()
    rolled = torch.tensor([0.0, 0.0, 0.2, 0.0, 0.0, 0.1, 0.05])  # farther ahead and zoomed too: angles stay
    own = rolled.expand(2, 1, 7)
    moved = nudged(orbit.view((yaw, pitch), subjects=2).camera, own)
    front = orbited(moved, orbit, torch.tensor(-yaw), torch.tensor(-pitch))
    torch.testing.assert_close(front, nudged(orbit.camera().expand(2, 1, 25), own), atol=2e-2, rtol=0)


def test_cameras_are_carried_behind_the_subject() -> None:
    orbit = Orbit()
    behind = orbited(orbit.camera(0.4, 0.1), orbit, torch.tensor(math.pi - 0.4), torch.tensor(0.0))
    yaw, pitch = angles(behind)
    assert abs(float(yaw)) == pytest.approx(math.pi, abs=1e-5)
    assert float(pitch) == pytest.approx(0.1, abs=1e-5)
    assert float(pose(behind)[1, 1]) < 0, "y still points down in the camera"


def test_no_increment_is_no_change_and_the_gradient_reaches_all_of_it() -> None:
    camera = home().camera
    increment = torch.zeros(2, 1, 7, requires_grad=True)
    same = nudged(camera, increment)
    torch.testing.assert_close(same, camera, atol=1e-7, rtol=0)
    (same * torch.linspace(1, 2, 25)).sum().backward()
    assert increment.grad is not None
    assert increment.grad.isfinite().all()
    assert (increment.grad.abs() > 1e-4).all()


@pytest.mark.parametrize("axis", range(7))
def test_an_increment_is_rigid_in_the_cameras_own_frame(axis: int) -> None:
    camera, small = home(subjects=1).camera[0, 0], 0.01
    increment = torch.zeros(7)
    increment[axis] = small
    moved = nudged(camera, increment)
    change = torch.linalg.inv(pose(camera)) @ pose(moved)
    if axis < 3:
        turned = torch.linalg.matrix_norm(change[:3, :3] - torch.eye(3)) / math.sqrt(2)
        assert float(turned) == pytest.approx(2 * math.sin(small / 2), rel=1e-3)
        assert float(change[axis, axis]) == pytest.approx(1, abs=1e-6), "about that axis"
        assert torch.allclose(change[:3, 3], torch.zeros(3), atol=1e-6)
    elif axis < 6:
        expected = torch.zeros(3)
        expected[axis - 3] = small
        torch.testing.assert_close(change[:3, 3], expected, atol=1e-6, rtol=0)
        torch.testing.assert_close(change[:3, :3], torch.eye(3), atol=1e-6, rtol=0)
    else:
        factor = torch.ones(9)
        factor[[0, 4]] = math.exp(small)
        torch.testing.assert_close(moved[16:], camera[16:] * factor)
    assert axis == 6 or torch.equal(moved[16:], camera[16:])


def test_the_fixed_look_is_the_photos_camera_with_its_gradient() -> None:
    view = home()
    assert Fixed().view(view, Orbit(), rng(0)) is view


def test_nearby_looks_stay_in_their_range_and_fill_it() -> None:
    view = home()
    view.camera.requires_grad_()
    look = Nearby(0.2, 0.13, count=500)
    seen = look.view(view, Orbit(), rng(0, "look"))
    assert seen.camera.shape == (2, 500, 25)
    assert not seen.camera.requires_grad
    yaw, pitch = angles(seen.camera)
    for values, middle, reach in ((yaw, 0.2, 0.2), (pitch, 0.1, 0.13)):
        assert float((values - middle).abs().max()) <= reach + 1e-5
        assert float((values - middle).abs().max()) > 0.95 * reach
        assert float((values - middle).mean().abs()) < 0.1 * reach


def test_anywhere_covers_the_trusted_orbit_whatever_the_photo() -> None:
    orbit = Orbit()
    yaw, pitch = angles(Anywhere(500).view(home(0.5, 0.2), orbit, rng(0)).camera)
    assert 0.95 * orbit.yaw < float(yaw.abs().max()) <= orbit.yaw + 1e-5
    assert 0.95 * orbit.pitch < float(pitch.abs().max()) <= orbit.pitch + 1e-5
    assert float(yaw.mean().abs()) < 0.06


@pytest.mark.parametrize("look", [Nearby(count=3), Anywhere(3)])
def test_a_look_is_a_pure_function_of_its_generator(look: Nearby | Anywhere) -> None:
    one, other = look.view(home(), Orbit(), rng(4, "a")), look.view(home(), Orbit(), rng(4, "a"))
    assert torch.equal(one.camera, other.camera)
    assert not torch.equal(one.camera, look.view(home(), Orbit(), rng(4, "b")).camera)


def test_looks_keep_the_pose_of_an_articulated_subject() -> None:
    view = View(home().camera, torch.arange(6.0).reshape(2, 1, 3))
    for look in (Nearby(count=2), Anywhere(2)):
        found = look.view(view, Orbit(), rng(0)).pose
        assert found is not None
        assert torch.equal(found, torch.arange(6.0).reshape(2, 1, 3).expand(2, 2, 3))


def test_a_look_is_held_to_what_a_term_sees() -> None:
    assert within(Nearby(0.5, 0.2, 2), 0.3) == Nearby(0.3, 0.2, 2)
    assert within(Nearby(0.2), 0.3) == Nearby(0.2)
    assert within(Fixed(), 0.1) == Fixed()
    assert within(Anywhere(2), 0.7) == Anywhere(2, 0.7)
    assert within(Anywhere(2), math.inf) == Anywhere(2)


def test_anywhere_goes_all_round_unless_it_is_held() -> None:
    orbit = Orbit(yaw=math.pi)
    yaw, _ = angles(Anywhere(500).view(home(2.0), orbit, rng(0)).camera)
    assert float((yaw.abs() > 2.5).float().mean()) > 0.15
    yaw, _ = angles(within(Anywhere(500), 0.7).view(home(2.0), orbit, rng(0)).camera)
    assert 0.65 < float(yaw.abs().max()) <= 0.7 + 1e-5


def test_views_are_stacked_and_cut_along_v() -> None:
    one, other = home(0.1), home(0.3)
    both = stack([one, other])
    assert both.count == 2
    assert torch.equal(both[:1].camera, one.camera)
    assert torch.equal(both[1:].camera, other.camera)
    assert both.pose is None
