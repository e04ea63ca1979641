import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image
from scipy import ndimage

from facednerf_core import photos
from facednerf_core.errors import InputError
from facednerf_core.framing import Framing, moved
from facednerf_core.interfaces import Detector, Face
from facednerf_core.views import Orbit, angles

FRAMING = Framing(eye_x=0.055, eye_y=0.04, eye_z=0.2, nose_y=0.0, nose_z=0.26, mouth_x=0.045, mouth_y=-0.07, mouth_z=0.21)
ORBIT = Orbit()
LANDMARKS = np.array([[204.0, 101], [247, 103], [224, 127], [204, 141], [244, 142]])  # of the astronaut, in her 512 pixels
BOX = (175.0, 65.0, 275.0, 175.0)


def rough_mask(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width] * 512 / width
    head = ((x - 230) / 78) ** 2 + ((y - 85) / 78) ** 2 < 1
    chest = (y > 190) & (np.abs(x - 224) < 50 + (y - 190) * 1.6)
    neck = ((x - 228) / 55) ** 2 + ((y - 110) / 85) ** 2 < 1
    return ndimage.gaussian_filter((head | chest | neck).astype(np.float32), 5 * width / 512)


class FakeDetector(Detector):
    """Finds the faces that it was told of, in a photo that is taken as 512 pixels wide."""

    def __init__(self, *faces: Face, masks: bool = False) -> None:
        self.faces, self.masks = faces, masks
        self.seen: list[tuple[int, ...]] = []

    def find(self, photo: np.ndarray) -> Sequence[Face]:
        self.seen.append(photo.shape)
        scale = photo.shape[1] / 512
        mask = rough_mask(*photo.shape[:2]) if self.masks else None
        return [
            Face(
                tuple(side * scale for side in face.box),
                None if face.landmarks is None else face.landmarks * scale,
                face.pose,
                mask,
            )
            for face in self.faces
        ]


HER = Face(BOX, LANDMARKS, (0.1, -0.05, 0.0))


@pytest.fixture(scope="module")
def photo() -> photos.Photo:
    return photos.Photo(skimage.data.astronaut())


def made(photo: photos.Photo, detector: Detector, size: tuple[int, int] = (64, 64), **more) -> photos.Portrait:
    return photos.portrait(photo, detector, FRAMING, ORBIT, size, **more)


def test_landmarks_land_where_the_generator_draws_its_own(photo):
    portrait = made(photo, FakeDetector(HER), (128, 128))
    wanted = FRAMING.seen(ORBIT.camera(0.1, -0.05))
    assert portrait.landmarks is not None
    assert portrait.landmarks.shape == (1, 1, 5, 2)
    offsets = portrait.landmarks[0, 0].numpy() - wanted
    assert np.abs(offsets.mean(0)).max() < 1e-5
    assert np.abs(offsets).max() < 0.06  # her own face differs from the mean one
    assert np.allclose(moved(portrait.transform, LANDMARKS), portrait.landmarks[0, 0].numpy(), atol=1e-5)
    assert tuple(float(angle) for angle in angles(portrait.camera)) == pytest.approx((0.1, -0.05), abs=1e-5)
    assert portrait.image.shape == (1, 1, 3, 128, 128)
    assert portrait.image.abs().max() <= 1
    pupil = portrait.landmarks[0, 0, 0] * 128
    patch = portrait.image[0, 0, :, int(pupil[1]) - 2 : int(pupil[1]) + 3, int(pupil[0]) - 2 : int(pupil[0]) + 3]
    assert patch.min() < -0.6  # dark, as a pupil is


def test_roll_is_removed(photo):
    angle = math.radians(20)
    turned = Image.fromarray(photo.pixels).rotate(20, Image.Resampling.BICUBIC)  # anticlockwise about the middle
    about = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    landmarks = (LANDMARKS - 256) @ about.T + 256
    straight = made(photo, FakeDetector(HER))
    rolled = made(photos.Photo(np.array(turned)), FakeDetector(Face(BOX, landmarks, HER.pose)))
    assert rolled.landmarks is not None
    assert straight.landmarks is not None
    assert (rolled.landmarks - straight.landmarks).abs().max() < 1e-3
    middle = (slice(None), slice(None), slice(None), slice(16, 48), slice(16, 48))
    assert (rolled.image[middle] - straight.image[middle]).abs().mean() < 0.03


def test_not_only_squares(photo):
    portrait = made(photo, FakeDetector(HER, masks=True), (96, 48))
    assert portrait.image.shape == (1, 1, 3, 96, 48)
    assert portrait.mask is not None
    assert portrait.mask.shape == (1, 1, 1, 96, 48)


def test_a_tall_picture_shows_the_same_face_neither_stretched_nor_moved(photo):
    """The crop of a tall orbit has the same scale across, and more of the photo above and below."""
    square = made(photo, FakeDetector(HER), (64, 64))
    tall = photos.portrait(photo, FakeDetector(HER), FRAMING, Orbit(aspect=2.0), (128, 64))
    scale = np.diag([64, 64, 1.0]) @ square.transform
    longer = np.diag([64, 128, 1.0]) @ tall.transform
    assert np.allclose(longer[:2, :2], scale[:2, :2], atol=1e-4)
    assert np.allclose(longer[:2, 2], scale[:2, 2] + (0, 32), atol=0.01)


def test_no_face_names_the_ways_out(photo):
    with pytest.raises(InputError, match=r"no face.*--crop.*--camera"):
        made(photo, FakeDetector())


def test_of_several_the_largest_is_taken_and_said(photo):
    small = Face((300.0, 300, 340, 350), LANDMARKS / 4 + 280, (0.0, 0.0, 0.0))
    detector = FakeDetector(small, HER)
    portrait = made(photo, detector)
    assert (portrait.transform == made(photo, FakeDetector(HER)).transform).all()
    assert any("2 faces" in note and "--face" in note for note in portrait.notes)
    second = made(photo, detector, which=2)
    assert second.yaw == 0.0
    assert not any("2 faces" in note for note in second.notes)
    for number in (0, 3):
        with pytest.raises(InputError, match=rf"no face {number}: 2 faces"):
            made(photo, detector, which=number)


def test_a_face_too_small(photo):
    with pytest.raises(InputError, match=r"only 20 x 24 pixels.*at least 24"):
        made(photo, FakeDetector(Face((10.0, 10, 30, 34), LANDMARKS / 10, (0.0, 0.0, 0.0))))


def test_a_small_face_is_said(photo):
    assert any("soft" in note for note in made(photo, FakeDetector(HER), (512, 512)).notes)
    assert not any("soft" in note for note in made(photo, FakeDetector(HER)).notes)


def test_a_box_is_enough(photo):
    portrait = made(photo, FakeDetector(Face(BOX)), (64, 64))
    assert portrait.landmarks is None
    assert portrait.mask is None
    assert (portrait.yaw, portrait.pitch) == (0.0, 0.0)
    said = " ".join(portrait.notes)
    assert "no landmarks" in said
    assert "frontal" in said
    assert "--camera" in said
    assert "no mask" in said
    where = moved(portrait.transform, LANDMARKS)
    assert np.abs(where - FRAMING.seen(ORBIT.camera())).max() < 0.1


def test_landmarks_without_pose_give_the_angles(photo):
    landmarks = moved(np.diag([400.0, 400, 1]), FRAMING.seen(ORBIT.camera(0.3, 0.1)))
    portrait = made(photo, FakeDetector(Face(BOX, landmarks)))
    assert (portrait.yaw, portrait.pitch) == pytest.approx((0.3, 0.1), abs=0.03)
    assert any("estimated from the landmarks" in note for note in portrait.notes)


def test_a_camera_that_is_given_wins(photo):
    portrait = made(photo, FakeDetector(HER), camera=(-0.2, 0.1))
    assert (portrait.yaw, portrait.pitch) == (-0.2, 0.1)


def test_a_face_turned_beyond_the_orbit_is_said(photo):
    portrait = made(photo, FakeDetector(Face(BOX, LANDMARKS, (1.0, 0.0, 0.0))))
    assert any("57" in note and "trusted" in note for note in portrait.notes)


def test_a_crop_needs_no_face(photo):
    portrait = made(photo, FakeDetector(), crop=(225.0, 120.0, 200.0), camera=(0.0, 0.1))
    assert np.allclose(moved(portrait.transform, np.array([[125.0, 20], [325, 220]])), [[0, 0], [1, 1]])
    assert portrait.mask is None
    wanted = np.asarray(Image.fromarray(photo.pixels).crop((125, 20, 325, 220)).resize((64, 64), Image.Resampling.BOX))
    assert np.abs((portrait.image[0, 0].permute(1, 2, 0).numpy() + 1) * 127.5 - wanted).mean() < 4
    assert portrait.pitch == 0.1


def test_a_crop_keeps_what_the_detector_knows(photo):
    portrait = made(photo, FakeDetector(HER, masks=True), crop=(225.0, 120.0, 200.0))
    assert portrait.yaw == 0.1
    assert portrait.mask is not None
    assert portrait.landmarks is not None
    assert portrait.landmarks[0, 0, 0].tolist() == pytest.approx([(204 - 125) / 200, (101 - 20) / 200])


@pytest.mark.parametrize("crop", [(900.0, 100.0, 200.0), (225.0, 120.0, 10.0), (math.nan, 0.0, 100.0), (225.0, 120.0, 1e6)])
def test_a_crop_that_cannot_be(photo, crop):
    with pytest.raises(InputError, match="the crop"):
        made(photo, FakeDetector(), crop=crop)


def test_weights_without_framing_need_a_crop(photo):
    with pytest.raises(InputError, match=r"how a photo is framed.*--crop"):
        photos.portrait(photo, FakeDetector(HER), None, ORBIT, (64, 64))
    photos.portrait(photo, FakeDetector(HER), None, ORBIT, (64, 64), crop=(225.0, 120.0, 200.0))


def test_beyond_the_edge_nothing_is_seen_and_nobody_is_there(photo):
    portrait = made(photo, FakeDetector(HER, masks=True), crop=(225.0, 30.0, 200.0))
    assert portrait.mask is not None
    assert portrait.seen[..., :20, :].max() == 0
    assert portrait.seen[..., 24:, :].min() == 1
    assert portrait.mask[..., :20, :].max() == 0
    assert portrait.image[..., :20, :].std() > 0.01


def test_person_and_background_come_apart(photo):
    start = time.perf_counter()
    portrait = made(photo, FakeDetector(HER, masks=True), (256, 256))
    assert time.perf_counter() - start < 3
    assert portrait.mask is not None
    assert portrait.background is not None
    hair = moved(portrait.transform, np.array([[215.0, 60]]))[0] * 256
    wall = moved(portrait.transform, np.array([[140.0, 60]]))[0] * 256
    assert portrait.mask[0, 0, 0, int(hair[1]), int(hair[0])] > 0.95
    assert portrait.mask[0, 0, 0, int(wall[1]), int(wall[0])] < 0.05
    nose = portrait.landmarks[0, 0, 2] * 256  # type: ignore[index]
    behind = portrait.background[0, 0, :, int(nose[1]), int(nose[0])]
    skin = portrait.image[0, 0, :, int(nose[1]), int(nose[0])]
    assert (behind - skin).abs().max() > 0.2
    assert (behind.max() - behind.min()) < 0.25  # grey, as the wall is


@pytest.mark.parametrize(("background", "value"), [("white", 1.0), ("black", -1.0)])
def test_the_person_on_the_generators_background(photo, background, value):
    portrait = made(photo, FakeDetector(HER, masks=True))
    subject = photos.subject(portrait, background)
    assert subject.image is not None
    assert portrait.mask is not None
    assert (subject.image - value).abs()[(portrait.mask < 1e-3).expand_as(subject.image)].max() < 0.01
    inside = (portrait.mask > 0.999).expand_as(subject.image)
    assert (subject.image - portrait.image)[inside].abs().max() < 0.05
    assert subject.view.camera.shape == (1, 1, 25)
    assert subject.mask is portrait.mask
    own = photos.subject(portrait, "own")
    assert own.image is portrait.image


def test_a_cut_out_is_its_own_mask(photo):
    alpha = np.zeros((512, 512), np.float32)
    alpha[40:, 150:300] = 1
    cut = photos.Photo(photo.pixels, alpha)
    portrait = made(cut, FakeDetector(HER, masks=True))
    assert portrait.mask is not None
    column = moved(portrait.transform, np.array([[145.0, 150], [155, 150]]))[:, 0] * 64
    assert portrait.mask[0, 0, 0, 40, int(column[0]) - 1] < 0.01
    assert portrait.mask[0, 0, 0, 40, int(column[1]) + 1] > 0.99
    assert made(cut, FakeDetector(Face(BOX, LANDMARKS))).mask is not None


def test_round_corners_are_no_mask(photo):
    alpha = np.ones((512, 512), np.float32)
    alpha[:20, :20] = 0
    portrait = made(photos.Photo(photo.pixels, alpha), FakeDetector(HER, masks=True))
    assert portrait.mask is not None
    assert portrait.mask.mean() < 0.8
    assert made(photos.Photo(photo.pixels, alpha), FakeDetector(HER)).mask is None


def test_large_photos_are_detected_small_and_cropped_whole(photo):
    large = photos.Photo(np.kron(photo.pixels, np.ones((5, 5, 1), np.uint8)), scale=0.5)
    detector = FakeDetector(HER, masks=True)
    portrait = made(large, detector)
    assert detector.seen == [(1024, 1024, 3)]
    reference = made(photo, FakeDetector(HER, masks=True))
    assert (portrait.image - reference.image).abs().mean() < 0.02
    assert np.allclose(portrait.transform, reference.transform @ np.diag([0.1, 0.1, 1]))  # from the file's own pixels
    nobody = FakeDetector()
    with pytest.raises(InputError):
        made(large, nobody)
    assert [shape[0] for shape in nobody.seen] == [1024, 2048]


def test_notes_of_reading_are_passed_on(tmp_path: Path, photo):
    Image.fromarray(photo.pixels).save(tmp_path / "a.png", save_all=True, append_images=[Image.new("RGB", (512, 512))])
    portrait = made(photos.read(tmp_path / "a.png"), FakeDetector(HER))
    assert "several frames" in portrait.notes[0]
