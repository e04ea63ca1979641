"""Spherical harmonics against golden numbers and first principles, and how a camera sees a light of the world."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from facednerf_core import light
from facednerf_core.errors import InputError, UnknownName
from facednerf_core.views import Orbit, look_at

GOLDEN = Path(__file__).parents[1] / "golden" / "dpr"
SH = json.loads((GOLDEN / "golden_sh.json").read_text())
CLOSE = {"atol": 1e-12, "rtol": 0.0}


def golden(name: str) -> Tensor:
    return torch.tensor(SH[name], dtype=torch.float64)


def directions(count: int = 200) -> Tensor:
    drawn = torch.randn(count, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return drawn / drawn.norm(dim=1, keepdim=True)


def turns(count: int = 4) -> Tensor:
    """Random rotations (B, 3, 3)."""
    drawn = torch.randn(count, 3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    turn, _ = torch.linalg.qr(drawn)
    return turn * torch.linalg.det(turn)[:, None, None]


def test_basis_equals_the_golden_one_with_and_without_attenuation_and_phase() -> None:
    found = light.basis(golden("normals"))
    torch.testing.assert_close(found, golden("dpr_basis_no_attenuation"), **CLOSE)
    attenuation = torch.tensor(light.LAMBERT, dtype=torch.float64)
    torch.testing.assert_close(found * attenuation, golden("dpr_basis_with_attenuation"), **CLOSE)
    torch.testing.assert_close(light.phased(found), golden("facednerf_basis"), **CLOSE)


def test_basis_is_orthonormal_over_the_sphere() -> None:
    nodes, weights = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(8))
    azimuth = torch.arange(16, dtype=torch.float64) * (2 * math.pi / 16)
    sine = (1 - nodes.square()).sqrt()[:, None]
    sphere = torch.stack([sine * azimuth.cos(), sine * azimuth.sin(), nodes[:, None].expand(-1, 16)], dim=-1).flatten(0, 1)
    area = (weights[:, None].expand(-1, 16) * (2 * math.pi / 16)).flatten()
    found = light.basis(sphere)
    torch.testing.assert_close(found.T @ (found * area[:, None]), torch.eye(9, dtype=torch.float64), **CLOSE)


def test_shading_is_what_a_matte_surface_receives() -> None:
    numbers, normals = torch.linspace(-1, 1, 9, dtype=torch.float64), golden("normals")
    torch.testing.assert_close(light.shading(normals, numbers), golden("dpr_basis_with_attenuation") @ numbers, **CLOSE)
    ambient = light.shading(normals, light.named("ambient").double())
    assert torch.allclose(ambient, ambient[0])


@pytest.mark.parametrize(
    ("picture", "lit_by"),
    [("sphere_light01_x0.7", "light01_sh_x0.7"), ("sphere_default_light_x2.5", "sh_default_light_target_x2.5_view0")],
)
def test_sphere_is_the_golden_picture_to_the_last_grey_level(picture: str, lit_by: str) -> None:
    pictures = load_file(GOLDEN / "golden_sphere.safetensors")
    numbers = pictures[lit_by] if lit_by in pictures else golden(lit_by)
    assert np.array_equal(light.sphere(numbers), pictures[picture].numpy())


def test_sphere_of_a_light_from_everywhere_is_a_white_disc() -> None:
    ball = light.sphere(torch.tensor([0.5, *[0.0] * 8]), 65)
    assert ball.shape == (65, 65)
    assert ball.dtype == np.uint8
    assert set(np.unique(ball)) == {0, 255}
    assert ball[32, 32] == 255
    assert ball[0, 0] == 0
    left = light.sphere(light.named("left"), 65).astype(int)
    assert left[32, 10] > left[32, 54] + 50
    top = light.sphere(light.named("top"), 65).astype(int)
    assert top[10, 32] > top[54, 32] + 50


def test_rotation_turns_a_light_exactly() -> None:
    turn, towards = turns(), directions()
    matrix = light.rotation(turn)
    turned = light.basis(towards @ turn.mT)  # (B, D, 9)
    torch.testing.assert_close(turned, light.basis(towards) @ matrix.mT, **CLOSE)
    torch.testing.assert_close(matrix @ matrix.mT, torch.eye(9, dtype=torch.float64).expand(4, -1, -1), **CLOSE)
    torch.testing.assert_close(light.rotation(turn[0] @ turn[1]), matrix[0] @ matrix[1], **CLOSE)
    torch.testing.assert_close(light.rotation(turn.mT), matrix.mT, **CLOSE)


def test_rotation_is_differentiable_and_keeps_its_precision_under_autocast() -> None:
    turn = turns(1)[0].requires_grad_()
    assert torch.autograd.gradcheck(light.rotation, (turn,))
    single, numbers, camera = turns(1).float(), torch.randn(9), Orbit().camera(0.3, 0.1)
    plain = light.rotation(single), light.in_camera(numbers, camera)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = light.rotation(single), light.in_camera(numbers, camera)
    assert all(torch.equal(one, other) for one, other in zip(plain, cast, strict=True))


def test_the_wrong_phase_is_half_a_turn_about_the_vertical() -> None:
    numbers = torch.linspace(-1, 1, 9, dtype=torch.float64)
    half = torch.diag(torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(light.phased(numbers), light.rotation(half) @ numbers, **CLOSE)
    assert torch.equal(light.phased(light.phased(numbers)), numbers)
    assert list(light.PHASE) == SH["cs_sign"]


def test_the_frontal_camera_sees_a_light_as_it_is_in_the_world() -> None:
    numbers = torch.linspace(-1, 1, 9)
    assert torch.allclose(light.in_camera(numbers, Orbit().camera()), numbers, atol=1e-6)


@pytest.mark.parametrize(
    ("origin", "seen_from"),
    [
        ((3.0, 0.0, 0.0), (-1.0, 0.0, 0.0)),  # the camera stands at the picture's right: the front is on its left
        ((-3.0, 0.0, 0.0), (1.0, 0.0, 0.0)),
        ((0.0, 0.0, -3.0), (0.0, 1.0, 0.0)),  # behind the subject: what lights the face comes towards the viewer
        ((0.0, 3.0, 1e-9), (0.0, 0.0, -1.0)),  # above it, upright as seen from the front: the front is at the bottom
    ],
)
def test_a_camera_sees_the_frontal_light_from_where_it_stands(
    origin: tuple[float, float, float], seen_from: tuple[float, float, float]
) -> None:
    front = light.on_world_axes(torch.tensor([0.0, 0.0, 1.0])).tolist()
    assert front == [0, -1, 0]
    moments = (0.4, 0.3, 0.2)
    found = light.in_camera(light.zonal(front, moments).float(), look_at(origin, (0.0, 0.0, 0.0), 4.0))
    assert torch.allclose(found, light.zonal(seen_from, moments).float(), atol=1e-6)


def test_lights_and_cameras_broadcast_and_go_both_ways() -> None:
    cameras = Orbit().view((0.3, 0.1), (-0.5, 0.2), (1.2, -0.4), subjects=2).camera.double()
    one, many = torch.linspace(-1, 1, 9, dtype=torch.float64), torch.randn(2, 1, 9, dtype=torch.float64)
    assert light.in_camera(one, cameras).shape == (2, 3, 9)
    seen = light.in_camera(many, cameras)
    assert torch.allclose(seen[1, 2], light.in_camera(many[1, 0], cameras[1, 2]))
    assert torch.allclose(light.in_world(seen, cameras), many.expand(-1, 3, -1), atol=1e-6)
    roll = torch.eye(4, dtype=torch.float64)
    roll[:2, :2] = torch.tensor([[0.0, -1.0], [1.0, 0.0]])  # the camera turned clockwise: the picture turns the other way
    pose = Orbit().camera().double()[:16].unflatten(0, (4, 4)) @ roll
    rolled = torch.cat([pose.flatten(), cameras[0, 0, 16:]])
    found = light.in_camera(light.named("top").double(), rolled)
    assert torch.allclose(found, light.named("left").double(), atol=1e-6)


@pytest.mark.parametrize(
    ("yaw", "expected"),
    [(case["azimuth_offset"], case["closed_form_x2.5"]) for case in SH["default_light_cases"] if not case["polar_offset"]],
)
def test_yaw_turns_a_light_as_the_published_code_does(yaw: float, expected: list[float]) -> None:
    fixed = golden("sh_default_light_target_x2.5_view0")
    camera = (
        Orbit(pivot=(0.0, 0.0, 0.0)).camera(yaw).double()
    )  # a camera that looks beside the origin turns more than its yaw
    found = light.phased(light.in_camera(light.phased(fixed), camera))
    assert (found - torch.tensor(expected, dtype=torch.float64)).abs().max() < 1e-6  # the camera is float32


def test_a_zonal_light_is_the_golden_closed_form() -> None:
    towards = (2 * math.cos(2.5), 2 * math.sin(2.5), 0.0)  # of any length
    found = light.zonal(towards, SH["legendre_moments_I0_I1_I2"])
    torch.testing.assert_close(light.phased(found), golden("sh_default_light_analytic_view0"), **CLOSE)
    for nowhere in ((0.0, 0.0, 0.0), (math.nan, 0.0, 1.0), (math.inf, 0.0, 0.0)):
        with pytest.raises(InputError, match="comes from nowhere"):
            light.zonal(nowhere, (1.0, 1.0, 1.0))


@pytest.mark.parametrize("name", light.DIRECTIONS)
def test_named_lights_come_from_where_they_say_and_are_nowhere_negative(name: str) -> None:
    numbers = light.named(name)
    assert numbers.shape == (9,)
    assert numbers.dtype == torch.float32
    towards = directions(2000)
    bright = light.shading(towards, numbers.double())
    assert bright.min() > 0.1
    world = light.DIRECTIONS[name]
    if world is None:
        assert bright.max() - bright.min() < 1e-6
        return
    brightest = towards[bright.argmax()]
    middle = light.on_world_axes(torch.tensor(world, dtype=torch.float64))
    assert float(brightest @ middle / middle.norm()) > 0.99
    for band, strength in enumerate(light.STRENGTHS):
        part = [value for value, of in zip(numbers.tolist(), light.BANDS, strict=True) if of == band]
        assert math.hypot(*part) == pytest.approx(strength, rel=1e-5)


def test_named_lights_are_about_as_strong_as_the_examples() -> None:
    raw = torch.tensor(list(SH["example_lights_raw"].values())) * 0.7
    for band, strength in enumerate(light.STRENGTHS):
        chosen = [index for index, of in enumerate(light.BANDS) if of == band]
        assert raw[:, chosen].norm(dim=1).mean() == pytest.approx(strength, rel=0.02)


def test_left_and_right_are_mirror_images() -> None:
    mirror = light.rotation(torch.diag(torch.tensor([-1.0, 1.0, 1.0])))
    for one, other in (("left", "right"), ("top-left", "top-right"), ("bottom-left", "bottom-right"), ("top", "top")):
        assert torch.allclose(mirror @ light.named(one), light.named(other), atol=1e-6)


def test_what_a_user_types_becomes_a_light() -> None:
    assert torch.equal(light.parse(" Top-Left "), light.named("top-left"))
    numbers = torch.tensor([0.7, -0.3, 0.4, 0.3, -0.2, -0.2, 0.0, 2.5e-1, 0.1])
    assert torch.equal(light.parse("0.7,-0.3,0.4, 0.3 -0.2 -0.2  0 2.5e-1 .1"), numbers)
    with pytest.raises(UnknownName, match=r"Did you mean 'left'\?"):
        light.parse("lefty")
    for wrong in ("1 2 3", "1 2 3 4 5 6 7 8 9 10", "1 2 3 4 5 6 7 8 nan", "1 2 3 4 5 6 7 8 inf", ""):
        with pytest.raises(InputError, match="nine finite SH coefficients"):
            light.parse(wrong)


def test_a_light_of_other_than_nine_numbers_is_refused() -> None:
    with pytest.raises(InputError, match=r"not \(2, 4\)"):
        light.in_camera(torch.zeros(2, 4), Orbit().camera())


def test_importing_light_imports_no_torch() -> None:
    code = "import sys, facednerf_core.light; print('torch' in sys.modules or 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
