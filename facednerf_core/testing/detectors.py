"""The contract of detectors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from facednerf_core.interfaces import Detector, Face


class DetectorContract(ABC):
    """What every detector keeps: it finds the face of a photo, measures it in the photo's pixels, and nothing in none."""

    exact = 0.4  # how much of the true box and the found one overlap, intersection over union

    @abstractmethod
    def make(self) -> Detector:
        """The detector to be tested."""

    def photo(self) -> tuple[np.ndarray, tuple[float, float, float, float]]:
        """A photo (H, W, 3) uint8 with one face, and its box; scikit-image's astronaut unless overridden."""
        from skimage.data import astronaut

        return np.asarray(astronaut())[:300, 50:450], (113.0, 55.0, 226.0, 197.0)

    def found(self) -> tuple[np.ndarray, Face]:
        """The photo and the largest face found in it."""
        photo, _ = self.photo()
        faces = self.make().find(photo)
        assert len(faces) >= 1, "the face of the photo is found"
        return photo, faces[0]

    def test_the_face_is_where_it_is(self) -> None:
        _, face = self.found()
        left, top, right, bottom = self.photo()[1]
        width = min(right, face.box[2]) - max(left, face.box[0])
        height = min(bottom, face.box[3]) - max(top, face.box[1])
        shared = max(0.0, width) * max(0.0, height)
        overlap = shared / ((right - left) * (bottom - top) + face.area - shared)
        assert overlap >= self.exact, f"the box {face.box} overlaps the face by {overlap:.2f}, not {self.exact}"

    def test_landmarks_pose_and_mask_have_their_shapes(self) -> None:
        photo, face = self.found()
        left, top, right, bottom = face.box
        assert left < right and top < bottom, "a box is left, top, right, bottom"
        if face.landmarks is not None:
            assert face.landmarks.ndim == 2 and face.landmarks.shape[1] == 2, "landmarks are (K, 2)"
            eye, other_eye, nose, *mouth = face.landmarks[:5]
            assert eye[0] < other_eye[0] and mouth[0][0] < mouth[1][0], "left is left as the image shows it"
            assert eye[1] < nose[1] < mouth[0][1], "eyes above nose above mouth, y down, in pixels"
            inside = (eye[0] > left - (right - left)) and (other_eye[0] < right + (right - left))
            assert inside, "landmarks are in pixels of the photo, near the box"
        if face.pose is not None:
            assert len(face.pose) == 3 and max(map(abs, face.pose)) < np.pi, "a pose is yaw, pitch, roll in radians"
        if face.mask is not None:
            assert face.mask.shape == photo.shape[:2], f"the mask is (H, W) of the photo, not {face.mask.shape}"
            assert face.mask.min() >= 0 and face.mask.max() <= 1, "the mask is within [0, 1]"

    def test_the_photo_is_left_as_it_is_and_found_the_same_again(self) -> None:
        photo, _ = self.photo()
        kept, detector = photo.copy(), self.make()
        one = detector.find(photo)
        assert np.array_equal(photo, kept), "a detector must not change the photo"
        other = detector.find(photo)
        assert [face.box for face in one] == [face.box for face in other], "the same photo gives the same faces"

    def test_the_largest_comes_first(self) -> None:
        photo, _ = self.photo()
        small = photo[::2, ::2]
        both = np.full((photo.shape[0], photo.shape[1] + small.shape[1], 3), 127, np.uint8)
        both[: small.shape[0], : small.shape[1]], both[:, small.shape[1] :] = small, photo
        areas = [face.area for face in self.make().find(both)]
        assert areas == sorted(areas, reverse=True), "faces are ordered by area"

    def test_where_there_is_no_face_none_is_found(self) -> None:
        assert not self.make().find(np.full((200, 150, 3), 127, np.uint8)), "a grey picture has no face"
