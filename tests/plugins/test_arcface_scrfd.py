"""insightface's detector: photos in, faces out, and what is said where the package or its models are not there."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from facednerf_arcface import plugin
from facednerf_arcface.options import ScrfdOptions
from facednerf_arcface.scrfd import ScrfdFinder, model_file

from facednerf_core.cards import Card
from facednerf_core.errors import InputError, MissingWeights, Unsupported
from facednerf_core.interfaces import Detector
from facednerf_core.plugins import Shelves
from facednerf_core.testing import DetectorContract

FIVE = np.array([[0.35, 0.4], [0.65, 0.4], [0.5, 0.55], [0.38, 0.7], [0.62, 0.7]])


class Finder:
    """In place of insightface's class: it finds bright red squares, in BGR pixels, and only in squares of one size."""

    def __init__(self, size: int = 640, landmarks: bool = True) -> None:
        self.size, self.landmarks, self.asked = size, landmarks, []

    def detect(self, img: np.ndarray, input_size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray | None]:
        assert img.flags["C_CONTIGUOUS"]
        self.asked.append(input_size)
        red = (img[..., 2] > 200) & (img[..., 0] < 50) & (img[..., 1] < 50)
        boxes, points = [], []
        columns = np.flatnonzero(red.any(0))
        for run in np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1) if len(columns) else []:
            rows = np.flatnonzero(red[:, run].any(1))
            left, top, right, bottom = run[0], rows[0], run[-1], rows[-1]
            boxes.append([left, top, right, bottom, 0.9])
            points.append(FIVE * [right - left, bottom - top] + [left, top])
        if input_size != (self.size, self.size):
            boxes, points = [], []
        found = np.array(points, np.float32).reshape(-1, 5, 2)
        return np.array(boxes, np.float32).reshape(-1, 5), found if self.landmarks else None


def photo(*squares: tuple[int, int, int]) -> np.ndarray:
    """A grey RGB photo with red squares at (left, top, side)."""
    pixels = np.full((200, 300, 3), 120, np.uint8)
    for left, top, side in squares:
        pixels[top : top + side, left : left + side] = (255, 0, 0)
    return pixels


def test_faces_are_given_in_the_photos_own_pixels_largest_first() -> None:
    small, large = ScrfdFinder(Finder()).find(photo((20, 30, 41), (100, 50, 81)))[::-1]
    assert large.box == (100.5, 50.5, 180.5, 130.5)
    assert small.box == (20.5, 30.5, 60.5, 70.5)
    assert large.landmarks is not None
    # insightface counts from the middle of the first pixel, a Face from its corner
    assert np.allclose(large.landmarks, FIVE * 80 + [100.5, 50.5])
    assert large.score == pytest.approx(0.9)
    assert large.pose is None
    assert large.mask is None


def test_it_looks_again_in_another_size_only_where_it_finds_nothing() -> None:
    model = Finder(size=256)
    assert len(ScrfdFinder(model).find(photo((20, 30, 41)))) == 1
    assert model.asked == [(640, 640), (256, 256)]
    model = Finder()
    ScrfdFinder(model).find(photo((20, 30, 41)))
    assert model.asked == [(640, 640)]
    assert not ScrfdFinder(model, ScrfdOptions(sizes=(320,))).find(photo((20, 30, 41)))


def test_a_model_without_landmarks_gives_boxes() -> None:
    (face,) = ScrfdFinder(Finder(landmarks=False)).find(photo((20, 30, 41)))
    assert face.landmarks is None


class TestScrfdFinder(DetectorContract):
    def make(self) -> Detector:
        return ScrfdFinder(Finder())

    def photo(self) -> tuple[np.ndarray, tuple[float, float, float, float]]:
        return photo((100, 50, 81)), (100, 50, 181, 131)


def pack(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).touch()
    return folder


def test_the_detection_model_of_a_pack_is_found(tmp_path: Path) -> None:
    names = ("1k3d68.onnx", "2d106det.onnx", "det_10g.onnx", "genderage.onnx", "w600k_r50.onnx")
    assert model_file(pack(tmp_path / "buffalo_l", *names)).name == "det_10g.onnx"
    assert model_file(pack(tmp_path / "antelope", "scrfd_10g_bnkps.onnx")).name == "scrfd_10g_bnkps.onnx"
    with pytest.raises(MissingWeights, match=r"there is det_1\.onnx, det_2\.onnx\. Get a pack"):
        model_file(pack(tmp_path / "two", "det_1.onnx", "det_2.onnx"))
    with pytest.raises(MissingWeights, match=r"one detection model .*there is w600k_r50\.onnx"):
        model_file(pack(tmp_path / "other", "w600k_r50.onnx"))
    with pytest.raises(MissingWeights, match="there is no ONNX file"):
        model_file(pack(tmp_path / "empty"))
    with pytest.raises(MissingWeights, match=r"no such folder.*non-commercial.*option 'models'"):
        model_file(tmp_path / "gone")


@pytest.fixture
def card() -> Card[Detector]:
    return Shelves(arcface=plugin).detectors["insightface"]


def test_without_the_package_the_card_says_how_to_get_it(card: Card[Detector], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "insightface", None)
    folder = pack(tmp_path / "buffalo_l", "det_10g.onnx")
    with pytest.raises(Unsupported, match=r"facednerf-arcface\[insightface\].*another detector"):
        card.build(torch.device("cpu"), None, models=str(folder))


def test_without_the_pack_nothing_is_imported_or_downloaded(card: Card[Detector], monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "insightface", None)
    with pytest.raises(MissingWeights, match="buffalo_l, and there is no such folder"):
        card.build(torch.device("cpu"), None, **card.checked({}))
    assert not card.needs_weights


def test_with_both_it_is_built_from_the_file_alone(card: Card[Detector], tmp_path: Path, monkeypatch) -> None:
    folder, seen = pack(tmp_path / "buffalo_l", "det_10g.onnx"), {}

    class Scrfd(Finder):
        def __init__(self, model_file: str, session: object) -> None:
            super().__init__()
            seen.update(file=model_file, session=session)

        def prepare(self, ctx_id: int, **settings: object) -> None:
            seen.update(settings, ctx_id=ctx_id)

    modules = {name: ModuleType(name) for name in ("onnxruntime", "insightface", "insightface.model_zoo")}
    modules["insightface.model_zoo.scrfd"] = ModuleType("insightface.model_zoo.scrfd")
    modules["insightface.model_zoo.scrfd"].SCRFD = Scrfd
    modules["onnxruntime"].InferenceSession = lambda path, providers: (path, providers)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    options = card.checked({"models": str(folder), "threshold": 0.6})
    detector = card.build(torch.device("cpu"), None, **options)
    file = str(folder / "det_10g.onnx")
    assert seen == {
        "file": file,
        "session": (file, ["CPUExecutionProvider"]),
        "ctx_id": -1,
        "det_thresh": 0.6,
    }
    assert len(detector.find(photo((20, 30, 41)))) == 1


@pytest.mark.parametrize(
    ("option", "message"),
    [({"threshold": 1.5}, "threshold"), ({"sizes": ()}, "sizes"), ({"sizes": (100,)}, "multiples of 32")],
)
def test_options_are_checked(option: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ScrfdOptions(**option)
