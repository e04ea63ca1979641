"""From a photo to its faces: boxes by scikit-image's cascade, then readings of each, closer and closer, and its mask."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from facednerf_core import statedicts
from facednerf_core.framing import moved
from facednerf_core.interfaces import Detector, Face
from facednerf_starter.detector import person
from facednerf_starter.detector.crops import Crop, cut, square, upright
from facednerf_starter.detector.network import CROP_SIZE, FaceReader
from facednerf_starter.detector.segmenter import PersonSegmenter

SEARCHED = 420  # pixels of the photo's longer side in which the cascade looks
ENLARGED = 2.0  # how far a smaller photo is enlarged for it: in 128 pixels it misses one face in sixteen
LEANS = (0.0, -0.35, 0.35, -0.7, 0.7)  # radians by which the photo is turned, one after the other, until a face is found
LOOSE = 2.5  # side of the first crop, in sides of the cascade's box
CLOSER = 0.8  # scale of the reading by which the second ones are placed
READINGS = ((1.0, 0.0), (0.8, 0.0), (0.62, 0.0), (0.8, 0.2), (0.8, -0.2))  # scale and turn of the second readings
MISSED = 0.3  # crop widths by which a cascade's box may miss the landmarks read from it before it counts as no face
AGREED = 0.055  # largest median disagreement of the readings, in distances from eyes to mouth: faces seen stay below 0.03,
# what the cascade mistook for faces lies above 0.08


class FaceFinder(Detector):
    """The starter's detector. What reads the face never saw a real photo, only disguised renderings of synthetic heads; what
    tells the person from the background learnt from photos."""

    def __init__(
        self, network: FaceReader, segmenter: PersonSegmenter, device: torch.device, mirrored: Sequence[int]
    ) -> None:
        self.network, self.segmenter = network.to(device).eval(), segmenter.to(device).eval()
        self.device, self.mirrored = device, list(mirrored)

    @classmethod
    def from_files(cls, weights: Path, config: Path, segmenter: Path, device: torch.device) -> FaceFinder:
        """The finder out of its safetensors file and the JSON beside it, and the segmenter's safetensors file."""
        said = json.loads(config.read_text(encoding="utf-8"))
        network = FaceReader(said["landmarks"], said["widths"])
        network.load_state_dict(statedicts.read(weights), strict=False)
        network.requires_grad_(False)
        apart = PersonSegmenter()
        apart.load_state_dict(statedicts.read(segmenter))
        apart.requires_grad_(False)
        return cls(network, apart, device, mirror_order(said["names"]))

    def find(self, photo: np.ndarray) -> list[Face]:
        """The faces of an RGB photo (H, W, 3) uint8, largest first, with all that the network reads."""
        pixels = photo.astype(np.float32) / 255
        for lean in LEANS:
            read = [self._read(pixels, centre, side, lean) for centre, side in boxes(photo, lean)]
            faces = distinct([face for face in read if face is not None])
            if faces:
                return [self._masked(face, pixels) for face in faces]
        return []

    def _read(self, pixels: np.ndarray, centre: tuple[float, float], side: float, lean: float) -> Face | None:
        """One face: a loose reading around the box, a closer one, then upright ones in the world's own framing, averaged."""
        loose = cut(pixels, square(centre, LOOSE * side, lean))
        marks, _, _ = self._readings([loose])
        five = marks[0, :5]
        middle = five.mean(0) / CROP_SIZE
        if np.abs(middle - 0.5).max() > MISSED:
            return None
        rough = moved(np.linalg.inv(loose.place), five)
        closer = cut(pixels, upright(rough, CLOSER, 0.0))
        rough = moved(np.linalg.inv(closer.place), self._readings([closer])[0][0, :5])
        crops = [cut(pixels, upright(rough, scale, turn)) for scale, turn in READINGS]
        marks, poses, _ = self._readings(crops)
        own = [moved(np.linalg.inv(crop.place), points) for crop, points in zip(crops, marks, strict=True)]
        landmarks = np.median(np.stack(own), axis=0)
        if disagreement(np.stack(own)) > AGREED or beyond(landmarks[:5], pixels.shape[:2]) > 1:
            return None
        yaw, pitch = np.median(poses[:, :2], axis=0)
        eyes, mouth = landmarks[:2].mean(0), landmarks[3:5].mean(0)
        roll = math.atan2(eyes[0] - mouth[0], mouth[1] - eyes[1])
        reach = 1.25 * float(np.linalg.norm(eyes - mouth)) + 1e-6
        x, y = (eyes + mouth) / 2
        return Face(
            (float(x - reach), float(y - reach), float(x + reach), float(y + reach)),
            landmarks,
            (float(yaw), float(pitch), roll),
        )

    def _masked(self, face: Face, pixels: np.ndarray) -> Face:
        """The face with the mask of its person."""
        assert face.landmarks is not None
        return replace(face, mask=person.mask(pixels, face.landmarks, self._masks, self._segmented))

    def _masks(self, crops: Sequence[Crop]) -> np.ndarray:
        """The masks (C, 128, 128) that the reader reads."""
        return self._readings(crops)[2]

    @torch.no_grad()
    def _segmented(self, crops: Sequence[Crop]) -> np.ndarray:
        """The segmenter's chance (C, 256, 256) of a person: the mean of crop and mirror image."""
        batch = self._batch(crops)
        said, other = self.segmenter(torch.cat([batch, batch.flip(-1)])).sigmoid().cpu()[:, 0].chunk(2)
        masks: np.ndarray = ((said + other.flip(-1)) / 2).numpy()
        return masks

    def _batch(self, crops: Sequence[Crop]) -> Tensor:
        """The crops' pictures (C, 3, size, size) in [0, 1]."""
        stacked = np.stack([crop.image for crop in crops]).transpose(0, 3, 1, 2)
        return torch.from_numpy(np.ascontiguousarray(stacked)).float().to(self.device)

    @torch.no_grad()
    def _readings(self, crops: Sequence[Crop]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Landmarks (C, K, 2) in pixels of the crops, poses (C, 3), masks (C, 128, 128): means of crop and mirror image."""
        batch = self._batch(crops) * 2 - 1
        reading = self.network(torch.cat([batch, batch.flip(-1)]))
        count = len(crops)

        def halves(value: Tensor) -> tuple[Tensor, Tensor]:
            return value[:count].cpu(), value[count:].cpu()

        marks, other_marks = halves(reading.landmarks)
        other_marks = other_marks[:, self.mirrored] * torch.tensor([-1.0, 1.0]) + torch.tensor([1.0, 0.0])
        pose, other_pose = halves(reading.pose)
        mask, other_mask = halves(reading.mask)
        pose = (pose + other_pose * torch.tensor([-1.0, 1.0, -1.0])) / 2
        probability = ((mask + other_mask.flip(-1)) / 2).sigmoid()[:, 0]
        return ((marks + other_marks) / 2 * CROP_SIZE).double().numpy(), pose.double().numpy(), probability.numpy()


def boxes(photo: np.ndarray, lean: float = 0.0) -> list[tuple[tuple[float, float], float]]:
    """Centre and side, in pixels of the photo, of what the cascade takes for faces that lean clockwise by so many radians.

    A cascade knows upright faces, so the photo is turned back before it looks. It errs often: who calls it, checks.
    """
    from PIL import Image
    from skimage.data import lbp_frontal_face_cascade_filename
    from skimage.feature import Cascade

    cascade = Cascade(lbp_frontal_face_cascade_filename())
    scale = min(ENLARGED, SEARCHED / max(photo.shape[:2]))
    size = (max(1, round(photo.shape[1] * scale)), max(1, round(photo.shape[0] * scale)))
    small = Image.fromarray(photo).resize(size, Image.Resampling.LANCZOS)
    turned = np.asarray(small.rotate(math.degrees(lean), Image.Resampling.BILINEAR, fillcolor=(128, 128, 128)))
    found = cascade.detect_multi_scale(
        img=turned,
        scale_factor=1.15,
        step_ratio=1,
        min_size=(24, 24),
        max_size=(max(size), max(size)),
        min_neighbor_number=3,
    )
    middle = np.array([size[0] / 2, size[1] / 2])
    back = np.array([[math.cos(lean), -math.sin(lean)], [math.sin(lean), math.cos(lean)]])
    result = []
    for box in found:
        centre = np.array([box["c"] + box["width"] / 2, box["r"] + box["height"] / 2])
        x, y = (back @ (centre - middle) + middle) / scale
        result.append(((float(x), float(y)), float(box["width"]) / scale))
    return result


def disagreement(readings: np.ndarray) -> float:
    """How far several readings (C, K, 2) of one face's five landmarks lie apart: the median distance from their median
    position, in distances from eyes to mouth."""
    middle = np.median(readings[:, :5], axis=0)
    reach = float(np.linalg.norm(middle[:2].mean(0) - middle[3:5].mean(0)))
    apart = float(np.median(np.linalg.norm(readings[:, :5] - middle, axis=-1)))
    return apart / max(reach, 1e-6)


def beyond(points: np.ndarray, size: tuple[int, int]) -> int:
    """How many of the points (K, 2) lie outside of a photo of a height and width: its edge cuts such a face in two."""
    return int(((points < 0) | (points > (size[1], size[0]))).any(-1).sum())


def distinct(faces: Sequence[Face]) -> list[Face]:
    """The faces, largest first, without those whose centre lies within a larger one."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: -face.area):
        left, top, right, bottom = face.box
        x, y = (left + right) / 2, (top + bottom) / 2
        if not any(other.box[0] < x < other.box[2] and other.box[1] < y < other.box[3] for other in kept):
            kept.append(face)
    return kept


def mirror_order(names: Sequence[str]) -> list[int]:
    """For each landmark the number of its counterpart in the mirror image."""

    def counterpart(name: str) -> str:
        if name.startswith("left_"):
            return "right_" + name.removeprefix("left_")
        return "left_" + name.removeprefix("right_") if name.startswith("right_") else name

    return [list(names).index(counterpart(name)) for name in names]
