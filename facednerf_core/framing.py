"""How a photo is framed: where the five landmarks of a generator's mean face lie in its world.

A weights card says it as data (`WeightsCard.crop`): eight numbers, in world units of the generator, of a face that is its
own mirror image. `eye_x` is half the distance between the eyes, `mouth_x` half the width of the mouth, `*_y` is up and
`*_z` towards the camera. They are measured on the generator's own renderings (`measured`), so that a photo's landmarks land
where the generator draws its own, whatever the angle: the five points are seen by the photo's camera, and the photo is
moved, turned and scaled until its landmarks fit (least squares; Umeyama 1991).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

from facednerf_core.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from facednerf_core.views import Orbit


@dataclass(frozen=True)
class Framing:
    """Where the mean face's eyes, nose tip and mouth corners lie in the generator's world."""

    eye_x: float
    eye_y: float
    eye_z: float
    nose_y: float
    nose_z: float
    mouth_x: float
    mouth_y: float
    mouth_z: float

    @classmethod
    def of(cls, crop: Mapping[str, float]) -> Framing | None:
        """What a weights card says; None where it says nothing (a generator of things without a face).

        Raises:
            InputError: some of the eight numbers are missing, or there are others.
        """
        if not crop:
            return None
        names = {item.name for item in fields(cls)}
        if set(crop) != names:
            odd = ", ".join(sorted(names ^ set(crop)))
            raise InputError(f"the crop of a weights card needs {', '.join(sorted(names))}; missing or unknown: {odd}.")
        return cls(**{name: float(value) for name, value in crop.items()})

    def as_dict(self) -> dict[str, float]:
        """For a weights card."""
        return asdict(self)

    def points(self) -> np.ndarray:
        """World positions (5, 3) of left eye, right eye, nose tip, left and right mouth corner, as the image shows them."""
        import numpy as np

        return np.array(
            [
                [-self.eye_x, self.eye_y, self.eye_z],
                [self.eye_x, self.eye_y, self.eye_z],
                [0.0, self.nose_y, self.nose_z],
                [-self.mouth_x, self.mouth_y, self.mouth_z],
                [self.mouth_x, self.mouth_y, self.mouth_z],
            ]
        )

    def seen(self, camera: Tensor) -> np.ndarray:
        """Where a camera (..., 25) sees the five points: (..., 5, 2), x and y in [0, 1] of its image."""
        import numpy as np

        rows = _matrices(camera)  # (..., 3, 4)
        homogeneous = np.concatenate([self.points(), np.ones((5, 1))], axis=1)
        projected = homogeneous @ np.swapaxes(rows, -1, -2)  # (..., 5, 3)
        return projected[..., :2] / projected[..., 2:]

    def pose(self, landmarks: np.ndarray, orbit: Orbit) -> tuple[float, float]:
        """Yaw and pitch, radians, at which the five points fit landmarks (5, 2) of a photo best; a search over the orbit."""
        import numpy as np
        import torch

        reach = (1.3 * orbit.yaw, 1.3 * orbit.pitch)
        centre = (0.0, 0.0)
        for _ in range(3):  # each time around the best so far, five times finer
            yaws = np.linspace(centre[0] - reach[0], centre[0] + reach[0], 13)
            pitches = np.linspace(centre[1] - reach[1], centre[1] + reach[1], 13)
            pairs = [(float(yaw), float(pitch)) for yaw in yaws for pitch in pitches]
            seen = self.seen(torch.stack([orbit.camera(*pair) for pair in pairs]))  # (P, 5, 2)
            misfit = [_misfit(landmarks, target) for target in seen]
            centre = pairs[int(np.argmin(misfit))]
            reach = (reach[0] / 5, reach[1] / 5)
        return centre


def measured(cameras: Tensor, landmarks: np.ndarray) -> Framing:
    """The framing, from landmarks (V, 5, 2) in [0, 1] that were found in renderings of the mean face by cameras (V, 25).

    Each point is where its rays come closest (linear triangulation); the face is then made its own mirror image.

    Raises:
        ValueError: the cameras stand too close together (less than about 0.1 radian) to tell depth.
    """
    import numpy as np

    rows = _matrices(cameras)  # (V, 3, 4)
    stands = -np.linalg.solve(rows[:, :, :3], rows[:, :, 3:])[..., 0]  # (V, 3)
    spread = max((float(np.linalg.norm(a - b)) for a in stands for b in stands), default=0.0)
    if spread < 0.1 * float(np.linalg.norm(stands[0])):
        raise ValueError("depth needs cameras at least 0.1 radian apart")
    found = []
    for point in range(5):
        xy = landmarks[:, point]
        equations = np.concatenate([xy[:, :1] * rows[:, 2] - rows[:, 0], xy[:, 1:] * rows[:, 2] - rows[:, 1]])
        found.append(np.linalg.lstsq(equations[:, :3], -equations[:, 3], rcond=None)[0])
    return of_points(np.stack(found))


def of_points(points: np.ndarray) -> Framing:
    """The framing of five known world positions (5, 3), in the order of `Framing.points`, made their own mirror image."""
    left_eye, right_eye, nose, left_mouth, right_mouth = points
    eye, mouth = (left_eye + right_eye) / 2, (left_mouth + right_mouth) / 2
    numbers = {
        "eye_x": (right_eye[0] - left_eye[0]) / 2,
        "eye_y": eye[1],
        "eye_z": eye[2],
        "nose_y": nose[1],
        "nose_z": nose[2],
        "mouth_x": (right_mouth[0] - left_mouth[0]) / 2,
        "mouth_y": mouth[1],
        "mouth_z": mouth[2],
    }
    return Framing(**{name: round(float(value), 5) for name, value in numbers.items()})


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The 3 x 3 matrix that moves, turns and scales points (K, 2) onto others with the least squared error.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns", 1991, without mirroring.
    """
    import numpy as np

    from_mean, to_mean = source.mean(0), target.mean(0)
    a = (source - from_mean) @ np.array([1, 1j])
    b = (target - to_mean) @ np.array([1, 1j])
    factor = np.vdot(a, b) / max(np.vdot(a, a).real, 1e-12)  # complex: scale and turn
    turn = np.array([[factor.real, -factor.imag], [factor.imag, factor.real]])
    matrix = np.eye(3)
    matrix[:2, :2] = turn
    matrix[:2, 2] = to_mean - turn @ from_mean
    return matrix


def moved(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (K, 2) after a 3 x 3 affine matrix."""
    return points @ matrix[:2, :2].T + matrix[:2, 2]


def resampled(values: np.ndarray, place: np.ndarray, size: tuple[int, int], *, mirror: bool | None = None) -> np.ndarray:
    """An image (H, W, C) or mask (H, W), float32 in [0, 1], moved by `place` onto `size`, without aliasing.

    `place` is the 3 x 3 similarity from its pixels to those of the result. Beyond its edge an image is mirrored, a mask is 0
    (unless `mirror` says otherwise).
    """
    import numpy as np
    from PIL import Image

    height, width = size
    mirror = values.ndim == 3 if mirror is None else mirror
    back = np.linalg.inv(place)
    corners = moved(back, np.array([[0, 0], [width, 0], [0, height], [width, height]], np.float64))
    zoom = float(np.sqrt(abs(np.linalg.det(place[:2, :2]))))
    margin = 3 + 3 / zoom
    left, top = np.floor(corners.min(0) - margin).astype(int)
    right, bottom = np.ceil(corners.max(0) + margin).astype(int)
    tall, wide = values.shape[:2]
    inner = values[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    if not inner.size:
        raise InputError("the crop lies outside of the photo. Choose another centre and side with --crop.")
    sides = ((max(-top, 0), max(bottom - tall, 0)), (max(-left, 0), max(right - wide, 0)))
    region = np.pad(inner, sides + ((0, 0),) * (values.ndim - 2), mode="symmetric" if mirror else "constant")
    shrink = 1.0
    if zoom < 0.5:  # first down to twice the density of the result, by averaging filters
        shrink = 2 * zoom
        small = (max(1, round(region.shape[1] * shrink)), max(1, round(region.shape[0] * shrink)))
    else:
        small = (region.shape[1], region.shape[0])
    sample = np.array([[small[0] / region.shape[1], 0, 0], [0, small[1] / region.shape[0], 0], [0, 0, 1]])
    sample = sample @ np.array([[1, 0, -left], [0, 1, -top], [0, 0, 1.0]]) @ back @ np.diag([0.5, 0.5, 1.0])
    planes = region[..., None] if region.ndim == 2 else region
    out = []
    for channel in range(planes.shape[2]):
        plane = Image.fromarray(np.ascontiguousarray(planes[..., channel], np.float32))
        if shrink < 1:
            plane = plane.resize(small, Image.Resampling.LANCZOS)
        fine = plane.transform(
            (2 * width, 2 * height), Image.Transform.AFFINE, tuple(sample[:2].flatten()), Image.Resampling.BICUBIC
        )
        out.append(np.asarray(fine).reshape(height, 2, width, 2).mean((1, 3)))
    result = np.stack(out, -1).clip(0.0, 1.0)
    return result if values.ndim == 3 else result[..., 0]


def soft_beyond(image: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """The image (H, W, 3) with what lies beyond the photo's edge (`seen` 0) more blurred the farther out it is."""
    import numpy as np
    from scipy import ndimage

    outside = ndimage.distance_transform_edt(seen < 0.5)
    if not outside.any():
        return image
    size = max(seen.shape)
    blurred = ndimage.gaussian_filter(image, (0.03 * size, 0.03 * size, 0), mode="nearest")
    share = np.clip(outside / (0.08 * size), 0, 1)[..., None]
    return image + (blurred - image) * share


def _misfit(landmarks: np.ndarray, target: np.ndarray) -> float:
    residual = moved(similarity(landmarks, target), landmarks) - target
    return float((residual**2).sum())


def _matrices(camera: Tensor) -> np.ndarray:
    """Projections (..., 3, 4) from the world to homogeneous image positions, of camera labels (..., 25)."""
    import numpy as np

    label = camera.detach().cpu().double().numpy()
    pose = label[..., :16].reshape(*label.shape[:-1], 4, 4)
    intrinsics = label[..., 16:].reshape(*label.shape[:-1], 3, 3)
    return intrinsics @ np.linalg.inv(pose)[..., :3, :]
