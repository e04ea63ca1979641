"""Faces in a photo by insightface's SCRFD (Guo et al. 2022): box and five landmarks, from the user's own model pack.

The package insightface and its models are not ours and not required: the code is MIT, the models are for non-commercial
research only. They are looked for when the detector is built, and never downloaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from facednerf_arcface.options import ScrfdOptions
from facednerf_core.errors import MissingWeights, Unsupported
from facednerf_core.interfaces import Detector, Face

if TYPE_CHECKING:
    import numpy as np

PATTERNS = ("det_*.onnx", "scrfd_*.onnx")  # names of detection models in insightface's packs
PIXEL = 0.5  # insightface counts from the middle of the first pixel, a Face from its corner
PACK = "https://github.com/deepinsight/insightface/releases (model zoo)"


class Scrfd(Protocol):
    """What is used of insightface's class of that name."""

    def detect(self, img: np.ndarray, input_size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray | None]:
        """Boxes with scores (F, 5) and landmarks (F, 5, 2) of the faces in a BGR picture."""


class ScrfdFinder(Detector):
    """insightface's detector. It gives no pose and no mask: angles are then told by the landmarks."""

    def __init__(self, model: Scrfd, options: ScrfdOptions | None = None) -> None:
        self.model, self.options = model, options or ScrfdOptions()

    def find(self, photo: np.ndarray) -> Sequence[Face]:
        """The faces of an RGB photo (H, W, 3) uint8, largest first, with ArcFace's five landmarks.

        It looks in a square of the first size, then of the next where no face is found: a face that fills the photo is
        easier found small.
        """
        import numpy as np

        bgr = np.ascontiguousarray(photo[..., ::-1])
        for size in self.options.sizes:
            boxes, landmarks = self.model.detect(bgr, (size, size))
            faces = [self._face(box, None if landmarks is None else landmarks[index]) for index, box in enumerate(boxes)]
            if faces:
                return sorted(faces, key=lambda face: -face.area)
        return []

    @staticmethod
    def _face(box: np.ndarray, landmarks: np.ndarray | None) -> Face:
        import numpy as np

        left, top, right, bottom, score = (float(number) for number in box)
        return Face(
            (left + PIXEL, top + PIXEL, right + PIXEL, bottom + PIXEL),
            None if landmarks is None else np.asarray(landmarks, np.float64) + PIXEL,
            score=score,
        )


def load(options: ScrfdOptions) -> ScrfdFinder:
    """The detector of an installed model pack, on the CPU.

    Raises:
        MissingWeights: the pack's folder is missing, or holds no detection model or several.
        Unsupported: the package insightface is not installed or cannot be imported.
    """
    file = model_file(Path(options.models).expanduser())
    try:
        import onnxruntime
        from insightface.model_zoo.scrfd import SCRFD
    except ImportError as error:
        raise Unsupported(
            f"the detector insightface needs the package insightface, which cannot be imported ({error}). Install it with: "
            'pip install "facednerf-arcface[insightface]"; or choose another detector.'
        ) from error
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    model: Any = SCRFD(model_file=str(file), session=session)
    model.prepare(-1, det_thresh=options.threshold)
    return ScrfdFinder(model, options)


def model_file(folder: Path) -> Path:
    """The detection model of a pack.

    Raises:
        MissingWeights: the folder is missing, or holds no detection model or several.
    """
    how = (
        f"Get a pack such as buffalo_l from {PACK}; its models are for non-commercial research only. Unpack it there, or "
        "say where it is with the option 'models' of insightface."
    )
    if not folder.is_dir():
        raise MissingWeights(
            f"the detector insightface looks for its model pack in {folder}, and there is no such folder. {how}"
        )
    found = sorted({file for pattern in PATTERNS for file in folder.glob(pattern)})
    if len(found) != 1:
        held = ", ".join(file.name for file in found or sorted(folder.glob("*.onnx"))) or "no ONNX file"
        raise MissingWeights(f"{folder} should hold one detection model ({' or '.join(PATTERNS)}); there is {held}. {how}")
    return found[0]
