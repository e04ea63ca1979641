import math

import numpy as np
import pytest
import torch
from PIL import Image

from facednerf_core.errors import InputError
from facednerf_core.framing import Framing, measured, moved, of_points, resampled, similarity
from facednerf_core.views import Orbit

FACE = Framing(eye_x=0.055, eye_y=0.04, eye_z=0.2, nose_y=0.0, nose_z=0.26, mouth_x=0.045, mouth_y=-0.07, mouth_z=0.21)


def test_a_card_says_it_whole_or_not_at_all():
    assert Framing.of({}) is None
    assert Framing.of(FACE.as_dict()) == FACE
    with pytest.raises(InputError, match="nose_z"):
        Framing.of({key: value for key, value in FACE.as_dict().items() if key != "nose_z"})


def test_seen_from_the_front_and_from_the_side():
    orbit = Orbit()
    front = FACE.seen(orbit.camera())
    assert front[0, 0] == pytest.approx(1 - front[1, 0])
    assert front[0, 0] < 0.5
    assert front[2, 0] == pytest.approx(0.5)
    assert front[0, 1] < front[2, 1] < front[3, 1]
    right = FACE.seen(orbit.camera(yaw=0.5))  # the camera moves to +x: the nose, which is nearer, moves left
    assert right[2, 0] < (right[0, 0] + right[1, 0]) / 2


def test_measured_on_views_of_known_points():
    cameras = torch.stack([Orbit().camera(yaw, pitch) for yaw, pitch in [(0, 0), (0.4, 0.1), (-0.4, 0.0), (0.0, 0.2)]])
    noise = np.random.default_rng(0).normal(0, 5e-4, (4, 5, 2))
    found = measured(cameras, FACE.seen(cameras) + noise)
    for name, value in FACE.as_dict().items():
        assert getattr(found, name) == pytest.approx(value, abs=0.004), name


def test_known_points_are_made_symmetric():
    assert of_points(FACE.points()) == FACE
    assert of_points(FACE.points() + np.array([0.01, 0, 0])) == FACE


def test_measuring_needs_distance_between_cameras():
    cameras = torch.stack([Orbit().camera(), Orbit().camera(0.01)])
    with pytest.raises(ValueError, match="apart"):
        measured(cameras, FACE.seen(cameras))


def test_pose_out_of_landmarks_alone():
    orbit = Orbit()
    turn = np.array([[0.9, -0.3, 50], [0.3, 0.9, -20], [0, 0, 1]]) * [[300], [300], [1]]
    for yaw, pitch in [(0.0, 0.0), (0.35, -0.1), (-0.5, 0.2)]:
        landmarks = moved(turn, FACE.seen(orbit.camera(yaw, pitch)))
        assert FACE.pose(landmarks, orbit) == pytest.approx((yaw, pitch), abs=0.03)


def test_pose_out_of_landmarks_on_an_orbit_all_round():
    """The search goes over all of it, and still finds the face."""
    orbit = Orbit(yaw=np.pi, pitch=1.4)
    for yaw, pitch in [(0.0, 0.0), (0.35, -0.1), (-0.5, 0.2), (1.0, 0.1)]:
        landmarks = FACE.seen(orbit.camera(yaw, pitch))
        assert FACE.pose(landmarks, orbit) == pytest.approx((yaw, pitch), abs=0.03)


def test_similarity_recovers_turn_scale_and_shift():
    points = np.random.default_rng(1).normal(size=(5, 2))
    angle, scale = 0.3, 2.5
    matrix = np.eye(3)
    matrix[:2] = [
        [scale * math.cos(angle), -scale * math.sin(angle), 4],
        [scale * math.sin(angle), scale * math.cos(angle), -7],
    ]
    assert np.allclose(similarity(points, moved(matrix, points)), matrix)
    mirrored = similarity(points, points * [-1, 1])
    assert np.linalg.det(mirrored[:2, :2]) > 0


def test_resampling_half_a_size_is_the_mean_of_four():
    values = np.random.default_rng(2).random((32, 32, 3)).astype(np.float32)
    smooth = np.asarray(
        Image.fromarray((values[..., 0] * 255).astype(np.uint8)).resize((64, 64), Image.Resampling.BICUBIC)
    ) / np.float32(255)
    half = resampled(smooth, np.diag([0.5, 0.5, 1.0]), (32, 32))
    assert np.abs(half - smooth.reshape(32, 2, 32, 2).mean((1, 3)))[2:-2, 2:-2].max() < 0.05


@pytest.mark.parametrize("factor", [1 / 3, 1 / 10, 1 / 31])
def test_resampling_down_does_not_alias(factor):
    stripes = np.tile((np.arange(620) % 2).astype(np.float32), (620, 1))  # alternating black and white columns
    size = int(620 * factor)
    inner = resampled(stripes, np.diag([factor, factor, 1.0]), (size, size))[3:-3, 3:-3]
    assert np.abs(inner - 0.5).max() < 0.05


def test_resampling_puts_pixels_where_the_matrix_says():
    values = np.zeros((40, 60), np.float32)
    values[10:14, 20:24] = 1  # centre at x 22, y 12
    angle = 0.4
    place = np.array([[math.cos(angle), -math.sin(angle), 15], [math.sin(angle), math.cos(angle), 3], [0, 0, 1]])
    out = resampled(values, place, (64, 64))
    y, x = np.mgrid[:64, :64] + 0.5
    centre = ((out * x).sum() / out.sum(), (out * y).sum() / out.sum())
    assert centre == pytest.approx(tuple(moved(place, np.array([[22.0, 12.0]]))[0]), abs=0.1)


def test_beyond_the_edge_images_are_mirrored_and_masks_empty():
    image = np.linspace(0, 1, 40, dtype=np.float32)[None, :, None].repeat(40, 0).repeat(3, 2)
    shift = np.array([[1, 0, 20], [0, 1, 0], [0, 0, 1.0]])
    out = resampled(image, shift, (40, 40))
    assert np.abs(out[5:-5, 19] - out[5:-5, 20]).max() < 0.03
    assert out[20, 10, 0] == pytest.approx(image[20, 9, 0], abs=0.03)
    seen = resampled(np.ones((40, 40), np.float32), shift, (40, 40))
    assert seen[:, :19].max() < 0.1
    assert seen[:, 21:].min() > 0.9


def test_a_crop_outside_of_the_photo():
    with pytest.raises(InputError, match="outside"):
        resampled(np.ones((40, 40), np.float32), np.array([[1, 0, 900], [0, 1, 0], [0, 0, 1.0]]), (40, 40))
