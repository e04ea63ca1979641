"""The starter's face finder, on a real photo that it never saw (scikit-image's astronaut) and on photos without a face."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data
import torch
from facednerf_starter.detector.finder import FaceFinder, beyond, disagreement, mirror_order
from facednerf_starter.plugin import FOLDER
from facednerf_starter.world.landmarks import LANDMARKS
from PIL import Image

EYES_NOSE_MOUTH = np.array([[203.0, 101.0], [246.5, 103.5], [223.0, 125.0], [204.5, 140.0], [244.5, 140.0]])  # by eye


@pytest.fixture(scope="module")
def finder() -> FaceFinder:
    names = ("detector.safetensors", "detector.json", "segmenter.safetensors")
    return FaceFinder.from_files(*(FOLDER / name for name in names), torch.device("cpu"))


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return skimage.data.astronaut()


def test_it_finds_the_astronaut_alone(finder: FaceFinder, photo: np.ndarray) -> None:
    (face,) = finder.find(photo)
    assert face.landmarks is not None
    assert np.abs(face.landmarks[:5] - EYES_NOSE_MOUTH).max() < 6  # pixels of 512
    assert face.pose is not None
    assert abs(face.pose[0]) < 0.25
    assert face.mask is not None
    assert face.mask[130, 224] > 0.9  # the nose
    assert face.mask[40, 380] < 0.1  # the wall behind


def mirrored(photo: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    points = EYES_NOSE_MOUTH[[1, 0, 2, 4, 3]] * (-1, 1) + (512, 0)
    return photo[:, ::-1].copy(), points


def halved(photo: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(Image.fromarray(photo).resize((256, 256), Image.Resampling.LANCZOS)), EYES_NOSE_MOUTH / 2


def darkened(photo: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (photo * 0.7).astype(np.uint8), EYES_NOSE_MOUTH


def leaning(photo: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    angle = np.deg2rad(-30)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return np.asarray(Image.fromarray(photo).rotate(-30)), (EYES_NOSE_MOUTH - 256) @ turn.T + 256


@pytest.mark.parametrize("changed", [mirrored, halved, darkened, leaning])
def test_its_landmarks_follow_the_photo(finder: FaceFinder, photo: np.ndarray, changed) -> None:
    pixels, points = changed(photo)
    (face,) = finder.find(pixels)
    assert face.landmarks is not None
    assert np.abs(face.landmarks[:5] - points).max() < 7


def test_roll_turns_with_the_photo(finder: FaceFinder, photo: np.ndarray) -> None:
    upright, leant = finder.find(photo)[0].pose, finder.find(leaning(photo)[0])[0].pose
    assert upright is not None
    assert leant is not None
    assert leant[2] - upright[2] == pytest.approx(np.deg2rad(30), abs=0.06)  # Pillow turned it clockwise


@pytest.mark.parametrize("name", ["chelsea", "coffee"])
def test_a_cat_and_a_cup_are_no_faces(finder: FaceFinder, name: str) -> None:
    assert finder.find(getattr(skimage.data, name)()) == []


@pytest.mark.parametrize("size", [64, 96])
def test_a_face_of_few_pixels_is_found(finder: FaceFinder, photo: np.ndarray, size: int) -> None:
    small = np.asarray(Image.fromarray(photo).resize((size, size), Image.Resampling.LANCZOS))
    (face,) = finder.find(small)
    (large,) = finder.find(photo)
    assert face.landmarks is not None
    assert large.landmarks is not None
    off = face.landmarks[:5] * photo.shape[0] / size - large.landmarks[:5]
    assert np.linalg.norm(off, axis=1).max() < 0.3 * np.linalg.norm(large.landmarks[0] - large.landmarks[1])


def test_two_people_are_two_faces_largest_first(finder: FaceFinder, photo: np.ndarray) -> None:
    small = np.asarray(Image.fromarray(photo[:, ::-1]).resize((340, 340), Image.Resampling.LANCZOS))
    both = np.concatenate([np.pad(small, ((100, 72), (0, 0), (0, 0))), photo], axis=1)
    first, second = finder.find(both)
    assert first.area > 1.5 * second.area
    assert first.box[0] > 340 > second.box[2]


def test_readings_that_agree_have_no_disagreement() -> None:
    points = np.random.default_rng(0).normal(size=(1, 5, 2)).repeat(3, axis=0) * 20
    assert disagreement(points) == 0
    points[0] += 30
    points[1] -= 30
    assert disagreement(points) > 0.1


def test_the_mirror_order_is_its_own_inverse() -> None:
    order = mirror_order(LANDMARKS)
    assert [order[order[i]] for i in range(len(order))] == list(range(len(order)))
    assert order[0] == 1


def test_a_face_is_read_alike_wherever_its_box_lies(finder: FaceFinder, photo: np.ndarray) -> None:
    pixels, side = photo.astype(np.float32) / 255, 95.0
    boxes = [(0, 0, 1), (0.2, 0, 1), (-0.2, 0.1, 1.2), (0, -0.2, 0.8), (0, 0.2, 1.3), (0.15, 0.15, 0.8)]
    read = [finder._read(pixels, (224 + x * side, 118 + y * side), side * scale, 0.0) for x, y, scale in boxes]
    yaws = np.rad2deg([face.pose[0] for face in read])
    heights = [np.linalg.norm(face.landmarks[:2].mean(0) - face.landmarks[3:5].mean(0)) for face in read]
    assert np.ptp(yaws) < 0.6
    assert np.ptp(heights) < 0.6  # pixels of 38


def test_a_face_that_the_edge_cuts_in_two_is_none(finder: FaceFinder, photo: np.ndarray) -> None:
    assert beyond(EYES_NOSE_MOUTH, (512, 512)) == 0
    assert beyond(EYES_NOSE_MOUTH - (223.5, 0), (512, 512)) == 3
    assert beyond(EYES_NOSE_MOUTH, (512, 244)) == 2
    for half in (photo[:, 224:], photo[:, :224]):
        assert finder.find(half) == []
