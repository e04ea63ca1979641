"""A photo becomes a portrait: the face found, framed as the backbone frames its own, its camera estimated."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from facednerf_core import matting
from facednerf_core.errors import InputError
from facednerf_core.framing import Framing, moved, resampled, similarity, soft_beyond
from facednerf_core.photofile import Photo, read
from facednerf_core.scene import Subject
from facednerf_core.views import View

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from torch import Tensor

    from facednerf_core.interfaces import Detector, Face
    from facednerf_core.views import Orbit

SMALLEST_FACE = 24  # pixels, of its box's or crop's shorter side
DETECTION_SIDES = (1024, 2048)  # the photo's longer side as the detector sees it: large first, then for small faces
DEGREES = 57.29578
WORKING_SIZE = 256  # masks and layers are made at least this large, then averaged down
TYPICAL_FACE = ((0.31, 0.37), (0.69, 0.37), (0.5, 0.55), (0.34, 0.75), (0.66, 0.75))
"""Where the five landmarks lie in a face detector's box, for detectors that give none."""

__all__ = ["Photo", "Portrait", "composited", "found", "portrait", "read", "subject"]

OTHER_WAYS = (
    "Frame the face yourself with --crop CENTRE_X,CENTRE_Y,SIDE (pixels), and say where it looks with --camera YAW,PITCH."
)


@dataclass(frozen=True)
class Portrait:
    """A face in the backbone's crop: the picture, the person and what stands behind, and where the camera stands.

    Pictures are (1, 1, 3, H, W) in [-1, 1], masks (1, 1, 1, H, W) in [0, 1].
    """

    image: Tensor
    seen: Tensor  # 1 inside the photo, 0 where the crop reaches beyond its edge (there the photo is mirrored)
    camera: Tensor  # (25,)
    yaw: float  # radians
    pitch: float  # radians
    transform: np.ndarray  # (3, 3), from pixels of the file to x and y in [0, 1] of the crop
    mask: Tensor | None = None  # the person; 0 beyond the photo's edge
    person: Tensor | None = None  # the person's own colours, also under soft edges
    background: Tensor | None = None  # what stands behind, filled in where the person hides it
    landmarks: Tensor | None = None  # (1, 1, K, 2), x and y in [0, 1] of the crop
    notes: tuple[str, ...] = ()  # what the user should know


def found(photo: Photo, detector: Detector, which: int | None = None) -> tuple[Face, tuple[str, ...]]:
    """The face to work on, in pixels of the photo (its mask may be smaller), and notes.

    `which` counts from 1, the largest; None takes that one.

    Raises:
        InputError: no face is found, there are not that many, or it is too small.
    """
    faces = _faces(photo, detector)
    if not faces:
        raise InputError(f"no face is found in the photo. {OTHER_WAYS}")
    if which is not None and not 1 <= which <= len(faces):
        count = "one face" if len(faces) == 1 else f"{len(faces)} faces"
        raise InputError(f"there is no face {which}: {count} found, numbered from 1, the largest. Choose one with --face.")
    face = faces[(which or 1) - 1]
    left, top, right, bottom = (side / photo.scale for side in face.box)
    if min(right - left, bottom - top) < SMALLEST_FACE:
        raise InputError(
            f"the face is only {right - left:.0f} x {bottom - top:.0f} pixels large; at least {SMALLEST_FACE} are needed. "
            "Take a larger copy of the photo, or one closer by."
        )
    if which is None and len(faces) > 1:
        centre = f"around {(left + right) / 2:.0f}, {(top + bottom) / 2:.0f}"
        return face, (f"{len(faces)} faces found; the largest is taken ({centre}). Choose another with --face 2",)
    return face, ()


def _faces(photo: Photo, detector: Detector) -> Sequence[Face]:
    """The faces, largest first, positions in pixels of `photo`."""
    import numpy as np
    from PIL import Image

    longest, tried = max(photo.size), 0.0
    for side in DETECTION_SIDES:
        scale = min(1.0, side / longest)
        if scale == tried:
            break
        tried = scale
        pixels = photo.pixels
        if scale < 1:
            small = (round(photo.size[1] * scale), round(photo.size[0] * scale))
            pixels = np.array(Image.fromarray(pixels).resize(small, Image.Resampling.LANCZOS, reducing_gap=3.0))
        faces = detector.find(pixels)
        if faces:
            back = (photo.size[1] / pixels.shape[1], photo.size[0] / pixels.shape[0])
            return sorted((_scaled(face, *back) for face in faces), key=lambda face: -face.area)
    return []


def _scaled(face: Face, x: float, y: float) -> Face:
    left, top, right, bottom = face.box
    landmarks = None if face.landmarks is None else face.landmarks * (x, y)
    return replace(face, box=(left * x, top * y, right * x, bottom * y), landmarks=landmarks)


def portrait(
    photo: Photo,
    detector: Detector,
    framing: Framing | None,
    orbit: Orbit,
    size: tuple[int, int],
    *,
    which: int | None = None,
    crop: tuple[float, float, float] | None = None,
    camera: tuple[float, float] | None = None,
) -> Portrait:
    """The photo's face in the backbone's crop of `size` (height, width).

    The crop is turned and scaled so that the landmarks fall where the generator draws its own at the estimated angles
    (`framing`). A detector that gives no landmarks leaves only its box, where they are then assumed in their typical
    places; one that gives no pose leaves the angles to the landmarks, or to frontal; one that gives no mask leaves the
    portrait without. Where the file has transparency, that is the mask (`_person`).

    Args:
        which: the face, counted from 1, largest first; None takes the largest.
        crop: centre x, centre y and height in pixels of the file (turned upright), instead of a found face.
        camera: yaw and pitch in radians, instead of the estimate.

    Raises:
        InputError: no face, not that many, too small, a crop outside of the photo, or a generator that does not say how
            its photos are framed.
    """
    import numpy as np

    notes = list(photo.notes)
    face: Face | None
    if crop is None:
        if framing is None:
            raise InputError(f"these weights do not say how a photo is framed. {OTHER_WAYS}")
        face, said = found(photo, detector, which)
        notes += said
    else:
        _check_crop(crop, photo)
        face = _within(crop, photo, _faces(photo, detector))
    marks = None if face is None or face.landmarks is None else np.asarray(face.landmarks, np.float64)
    yaw, pitch = _angles(face, marks, framing, orbit, camera, notes)
    label = orbit.camera(yaw, pitch)
    height, width = size
    if crop is not None:
        x, y, side = (value * photo.scale for value in crop)
        grow = height / side
        place = np.array([[grow, 0, width / 2 - x * grow], [0, grow, height / 2 - y * grow], [0, 0, 1]])
    else:
        assert face is not None
        assert framing is not None
        points = _typical(face) if marks is None else marks[:5]
        if marks is None:
            notes.append("the detector gives no landmarks; the crop is taken from the face's box")
        place = similarity(points, framing.seen(label) * (width, height))
    zoom = float(np.sqrt(np.linalg.det(place[:2, :2])))
    if zoom > 2:
        notes.append(f"the face is small: {height / zoom:.0f} pixels of the photo fill {height}; the result will be soft")
    made = _layers(photo, face, place, size)
    to_unit = np.diag([1 / width, 1 / height, 1.0])
    unit = to_unit @ place
    marks_in_crop = None if marks is None else _tensor(moved(unit, marks))[None, None]
    scaled = unit @ np.diag([photo.scale, photo.scale, 1.0])
    if "mask" not in made:
        notes.append("there is no mask of the person; the background stays in the picture")
    return Portrait(
        camera=label, yaw=yaw, pitch=pitch, transform=scaled, landmarks=marks_in_crop, notes=tuple(notes), **made
    )


def _check_crop(crop: tuple[float, float, float], photo: Photo) -> None:
    import math

    x, y, side = crop
    height, width = (round(length / photo.scale) for length in photo.size)
    asked = f"the crop {x:g},{y:g},{side:g}"
    if not all(math.isfinite(value) for value in crop) or side < SMALLEST_FACE:
        raise InputError(
            f"{asked} is no crop: give centre x, centre y and a side (the height) of at least {SMALLEST_FACE} pixels."
        )
    if not (0 <= x <= width and 0 <= y <= height) or side > 4 * max(width, height):
        raise InputError(f"{asked} does not lie on the photo of {width} x {height} pixels. Choose a centre and side inside.")


def _within(crop: tuple[float, float, float], photo: Photo, faces: Sequence[Face]) -> Face | None:
    """The largest face whose centre lies in the crop."""
    x, y, side = (value * photo.scale for value in crop)
    for face in faces:
        left, top, right, bottom = face.box
        if abs((left + right) / 2 - x) < side / 2 and abs((top + bottom) / 2 - y) < side / 2:
            return face
    return None


def _angles(
    face: Face | None,
    marks: np.ndarray | None,
    framing: Framing | None,
    orbit: Orbit,
    camera: tuple[float, float] | None,
    notes: list[str],
) -> tuple[float, float]:
    """Yaw and pitch, by the best of what there is."""
    if camera is not None:
        return camera
    if face is not None and face.pose is not None:
        yaw, pitch, _ = face.pose
    elif marks is not None and framing is not None:
        yaw, pitch = framing.pose(marks[:5], orbit)
        notes.append("the detector gives no angles; they are estimated from the landmarks")
    else:
        notes.append("nothing tells where the face looks; it is taken as frontal. Say otherwise with --camera YAW,PITCH")
        return 0.0, 0.0
    if abs(yaw) > orbit.yaw or abs(pitch) > orbit.pitch:
        notes.append(
            f"the face is turned by {abs(yaw) * DEGREES:.0f} and tilted by {abs(pitch) * DEGREES:.0f} degrees; these "
            f"weights are trusted up to {orbit.yaw * DEGREES:.0f} and {orbit.pitch * DEGREES:.0f}"
        )
    return float(yaw), float(pitch)


def _typical(face: Face) -> np.ndarray:
    """Landmarks (5, 2) as they typically lie in a detector's box, turned by its roll."""
    import numpy as np

    left, top, right, bottom = face.box
    points = np.array(TYPICAL_FACE) * (right - left, bottom - top) + (left, top)
    if face.pose is None:
        return points
    centre, roll = np.array([(left + right) / 2, (top + bottom) / 2]), face.pose[2]
    turn = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    return (points - centre) @ turn.T + centre


def _layers(photo: Photo, face: Face | None, place: np.ndarray, size: tuple[int, int]) -> dict[str, Tensor]:
    """The crop's picture, what of it was seen, and where there is a mask: mask, person and background, each as a tensor.

    `place` is the 3 x 3 matrix from pixels of the photo to pixels of the crop.
    """
    import numpy as np

    times = max(1, -(-WORKING_SIZE // min(size)))
    work = (size[0] * times, size[1] * times)
    place = np.diag([times, times, 1.0]) @ place
    seen = resampled(np.ones(photo.size, np.float32), place, work)
    image = soft_beyond(resampled(photo.pixels / np.float32(255), place, work), seen)

    def tensor(value: np.ndarray, low: float = 0.0) -> Tensor:
        if value.ndim == 2:
            value = value[..., None]
        small = value.reshape(size[0], times, size[1], times, -1).mean((1, 3))
        return _tensor(small.transpose(2, 0, 1) * (1 - low) + low)[None, None]

    made = {"image": tensor(image, -1.0), "seen": tensor(seen)}
    mask = _person(photo, face, place, work, image)
    if mask is None:
        return made
    mask = mask * (seen > 0.5)
    person, background = matting.layers(image, mask)
    weight = mask[..., None] + 1e-4
    made["mask"] = tensor(mask)
    made["person"] = (tensor(person * weight) / tensor(weight)) * 2 - 1
    made["background"] = tensor(background, -1.0)
    return made


def _person(
    photo: Photo, face: Face | None, place: np.ndarray, size: tuple[int, int], image: np.ndarray
) -> np.ndarray | None:
    """The mask of the person in the crop, if anything tells it.

    A file that is transparent on more than a twentieth of the crop is a cut-out: its alpha is the mask, since somebody made
    it with care. Less is decoration (round corners), and only takes away from the detector's mask.
    """
    import numpy as np

    alpha = None if photo.alpha is None else resampled(photo.alpha, place, size)
    inside = resampled(np.ones(photo.size, np.float32), place, size) > 0.5
    if alpha is not None and float((alpha[inside] < 0.5).mean()) > 0.05:
        return alpha
    if face is None or face.mask is None:
        return None
    rough = np.asarray(face.mask, np.float32)
    to_photo = np.diag([photo.size[1] / rough.shape[1], photo.size[0] / rough.shape[0], 1.0])
    mask = matting.sharpened(image, resampled(rough, place @ to_photo, size, mirror=True))
    return mask if alpha is None else mask * alpha


def subject(portrait: Portrait, background: Literal["own", "white", "black"] = "own") -> Subject:
    """The portrait as the loop takes it, on the background that the generator draws."""
    return Subject(View(portrait.camera[None, None]), composited(portrait, background), portrait.mask, portrait.landmarks)


def composited(portrait: Portrait, background: Literal["own", "white", "black"]) -> Tensor:
    """The picture (1, 1, 3, H, W) with the person on white or black; 'own', or without a mask, as it is."""
    if background == "own" or portrait.mask is None or portrait.person is None:
        return portrait.image
    behind = 1.0 if background == "white" else -1.0
    return portrait.person * portrait.mask + behind * (1 - portrait.mask)


def _tensor(values: np.ndarray) -> Tensor:
    import numpy as np
    import torch

    return torch.from_numpy(np.ascontiguousarray(values, np.float32))
