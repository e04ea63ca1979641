"""The starter's mask of a person: what is expected around a face, what both networks say, how it is gathered."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import skimage.data
import torch
from facednerf_starter.detector import person
from facednerf_starter.detector.crops import UPRIGHT, Crop, cut, upright
from facednerf_starter.detector.finder import FaceFinder, mirror_order
from facednerf_starter.detector.network import CROP_SIZE
from facednerf_starter.detector.silhouette import AGAINST, FOR, TRUST, expected
from facednerf_starter.plugin import FOLDER
from facednerf_starter.world.landmarks import LANDMARKS

from facednerf_core import matting
from facednerf_core.framing import moved

SIZE = person.FRAME
FILES = [FOLDER / name for name in ("detector.safetensors", "detector.json", "segmenter.safetensors")]
OTHERS = (
    (0.5, 0.80),
    (0.42, 0.41),
    (0.58, 0.41),
    (0.33, 0.50),
    (0.67, 0.50),
    (0.5, 0.29),
    (0.5, 0.45),
    (0.5, 0.66),
    (0.5, 0.71),
)
OTHERS += ((0.38, 0.65), (0.62, 0.65), (0.40, 0.55), (0.60, 0.55))


@pytest.fixture(scope="module")
def marks() -> np.ndarray:
    """The landmarks of a frontal face, about as the world's, in the frame of the masks."""
    points = np.array(UPRIGHT + OTHERS)
    assert len(points) == len(LANDMARKS)
    return ((points - 0.5) * person.FRAME_SCALE + 0.5) * SIZE


def test_a_head_neck_and_shoulders_are_expected(marks: np.ndarray) -> None:
    odds, trust = expected(marks, SIZE)
    at = dict(zip(LANDMARKS, marks.round().astype(int), strict=True))
    unit = at["right_eye"][0] - at["left_eye"][0]
    x, y = at["chin"]
    assert (odds[marks[:, 1].astype(int), marks[:, 0].astype(int)][:5] == 0).all()  # the face is left to the network
    assert odds[at["nose_tip"][1], at["left_ear"][0] - unit] == pytest.approx(-AGAINST)  # beside the head: hair, perhaps
    assert odds[y, x - 2 * unit] == pytest.approx(-AGAINST, abs=0.3)  # above the shoulder
    assert odds[y + unit, x] == pytest.approx(FOR)
    assert odds[y + 2 * unit, x - 2 * unit] == pytest.approx(FOR)
    assert trust[: y - unit].min() == 1
    assert trust[y + unit :].max() == TRUST


def test_what_is_expected_of_the_mirror_image_is_its_mirror_image(marks: np.ndarray) -> None:
    aside = marks + np.linspace(-3, 3, len(marks))[:, None] * (1, 0.3)
    flipped = (aside * (-1, 1) + (SIZE, 0))[mirror_order(LANDMARKS)]
    own, other = expected(aside, SIZE), expected(flipped, SIZE)
    assert np.abs(own[0] - other[0][:, ::-1]).mean() < 0.02
    assert np.abs(own[1] - other[1][:, ::-1]).max() < 1e-9


def test_readings_are_gathered_where_they_belong(marks: np.ndarray) -> None:
    photo = np.zeros((SIZE, SIZE, 3), np.float32)
    photo[40:200, 60:180] = 1
    crops = [cut(photo, upright(marks[:5], scale, turn)) for scale, turn in person.WIDE]
    frame = upright(marks[:5], person.FRAME_SCALE, 0.0, SIZE)
    mask = person.gathered(np.stack([crop.image[..., 0] for crop in crops]), crops, frame)
    truth = cut(photo, np.diag([CROP_SIZE / SIZE, CROP_SIZE / SIZE, 1.0]) @ frame).image[..., 0]
    assert np.abs(mask.reshape(CROP_SIZE, 2, CROP_SIZE, 2).mean((1, 3)) - truth).mean() < 0.03


def place_of(marks: np.ndarray) -> np.ndarray:
    return upright(marks[:5], person.FRAME_SCALE, 0.0, SIZE)


def seeing(marks: np.ndarray, said: Callable[[np.ndarray], np.ndarray]) -> person.Read:
    """A network that says of every pixel of a crop what `said` does of its place (N, 2), in widths of the frame."""

    def read(crops: Sequence[Crop]) -> np.ndarray:
        out = []
        for crop in crops:
            size = crop.image.shape[0]
            y, x = np.mgrid[:size, :size] + 0.5
            back = place_of(marks) @ np.linalg.inv(crop.place)
            out.append(said(moved(back, np.stack([x.ravel(), y.ravel()], 1)) / SIZE).reshape(size, size))
        return np.stack(out).astype(np.float32)

    return read


def head(places: np.ndarray, beyond: float) -> np.ndarray:
    """A network's mask that is 1 on a head and `beyond` elsewhere."""
    far = np.hypot(*(places - 0.5).T / person.FRAME_SCALE * [[1], [0.8]])
    return np.where(far < 0.28, 1.0, beyond)


def at(marks: np.ndarray, *steps: tuple[float, float]) -> list[tuple[int, ...]]:
    """Pixels (row, column), by steps from the chin in distances between the eyes."""
    chin, unit = marks[LANDMARKS.index("chin")], marks[1, 0] - marks[0, 0]
    return [tuple((chin + np.array(step) * unit).round().astype(int)[::-1]) for step in steps]


def test_dark_shoulders_that_the_networks_overlook_are_the_persons(marks: np.ndarray) -> None:
    photo = np.zeros((SIZE, SIZE, 3), np.float32)
    mask = person.mask(photo, marks, seeing(marks, lambda it: head(it, 0.15)), seeing(marks, lambda it: head(it, 0.4)))
    left, right, beside = at(marks, (-1.5, 1.2), (1.5, 1.2), (-2.5, -1.5))
    assert mask[left] > 0.5
    assert mask[right] > 0.5
    assert mask[beside] < 0.2


def test_hair_that_only_the_segmenter_sees_is_the_persons(marks: np.ndarray) -> None:
    photo = np.zeros((SIZE, SIZE, 3), np.float32)

    def haired(places: np.ndarray) -> np.ndarray:
        return np.where(np.abs(places[:, 0] - 0.5) < 0.2, 0.99, 0.01)

    mask = person.mask(photo, marks, seeing(marks, lambda it: head(it, 0.02)), seeing(marks, haired))
    hair, beyond = at(marks, (1.9, -1.5), (3.0, -1.5))
    assert mask[hair] > 0.8
    assert mask[beyond] < 0.1


def test_where_the_segmenter_is_lost_the_reader_decides(marks: np.ndarray) -> None:
    photo = np.zeros((SIZE, SIZE, 3), np.float32)
    lost = seeing(marks, lambda it: np.full(len(it), 0.5))
    mask = person.mask(photo, marks, seeing(marks, lambda it: head(it, 0.02)), lost)
    nose = tuple(marks[2].round().astype(int)[::-1])
    (beside,) = at(marks, (2.5, -1.5))
    assert mask[nose] > 0.8
    assert mask[beside] < 0.2


def test_pieces_apart_from_the_face_are_not_the_persons() -> None:
    chance = np.zeros((64, 64), np.float32)
    chance[16:48, 16:40] = 0.9
    chance[10:20, 50:60] = 0.8
    chance[60, 60] = 0.2
    whole = person.together(chance, np.array([28.0, 30.0]))
    assert (whole[16:48, 16:40] == chance[16:48, 16:40]).all()
    assert whole[10:20, 50:60].max() == 0
    assert whole[60, 60] == chance[60, 60]
    assert (person.together(chance, np.array([2.0, 2.0])) == chance).all()  # the face itself is not seen: nothing is taken


def test_the_astronauts_mask_is_the_same_at_less_light() -> None:
    finder = FaceFinder.from_files(*FILES, torch.device("cpu"))
    photo = skimage.data.astronaut()[:288, 64:384]
    masks = []
    for light in (1.0, 0.7):
        pixels = (photo * light).astype(np.uint8)
        (face,) = finder.find(pixels)
        masks.append(matting.sharpened(pixels[:230] / 255, face.mask[:230]))
    assert np.minimum(*masks).sum() / np.maximum(*masks).sum() > 0.95
    assert masks[0][100, 97] > 0.9  # hair that the reader alone takes for the wall
