import io
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image, ImageCms

from facednerf_core import photofile
from facednerf_core.errors import InputError


@pytest.fixture(scope="module")
def astronaut() -> Image.Image:
    return Image.fromarray(skimage.data.astronaut()).resize((128, 128), Image.Resampling.LANCZOS)


def difference(photo: photofile.Photo, picture: Image.Image) -> float:
    return float(np.abs(photo.pixels.astype(int) - np.asarray(picture.convert("RGB")).astype(int)).mean())


def test_an_rgb_photo_is_read_as_it_is(tmp_path: Path, astronaut):
    astronaut.save(tmp_path / "a.png")
    photo = photofile.read(tmp_path / "a.png")
    assert difference(photo, astronaut) == 0
    assert photo.pixels.dtype == np.uint8
    assert (photo.alpha, photo.scale, photo.notes) == (None, 1.0, ())


@pytest.mark.parametrize("mode", ["L", "P", "1"])
def test_grey_and_palette_become_rgb(tmp_path: Path, astronaut, mode):
    made = astronaut.convert(mode)
    made.save(tmp_path / "a.png")
    photo = photofile.read(tmp_path / "a.png")
    assert photo.size == (128, 128)
    assert difference(photo, made) == 0


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_become_eight(tmp_path: Path, astronaut, suffix):
    grey = np.asarray(astronaut.convert("L"))
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / f"a.{suffix}")
    photo = photofile.read(tmp_path / f"a.{suffix}")
    assert (photo.pixels[..., 0] == grey).all()
    assert (photo.pixels[..., 2] == grey).all()


def test_floats_of_unit_range_become_eight_bits(tmp_path: Path, astronaut):
    grey = np.asarray(astronaut.convert("L"))
    Image.fromarray(grey.astype(np.float32) / 255).save(tmp_path / "a.tif")
    assert (photofile.read(tmp_path / "a.tif").pixels[..., 1] == grey).all()


def test_cmyk_becomes_rgb(tmp_path: Path, astronaut):
    astronaut.convert("CMYK").save(tmp_path / "a.jpg", quality=98)
    assert difference(photofile.read(tmp_path / "a.jpg"), astronaut) < 3


def test_transparency_is_kept_and_the_picture_put_on_white(tmp_path: Path, astronaut):
    clear = astronaut.convert("RGBA")
    alpha = np.full((128, 128), 255, np.uint8)
    alpha[:, :40] = 0
    clear.putalpha(Image.fromarray(alpha))
    clear.save(tmp_path / "a.png")
    photo = photofile.read(tmp_path / "a.png")
    assert photo.alpha is not None
    assert (photo.alpha == alpha / 255).all()
    assert (photo.pixels[:, :40] == 255).all()
    assert (photo.pixels[:, 40:] == np.asarray(astronaut)[:, 40:]).all()


def test_a_palette_with_a_clear_colour_has_alpha(tmp_path: Path):
    picture = Image.new("P", (64, 64), 1)
    picture.putpalette([0, 0, 0, 200, 10, 10])
    picture.paste(0, (0, 0, 32, 64))
    picture.save(tmp_path / "a.gif", transparency=0)
    alpha = photofile.read(tmp_path / "a.gif").alpha
    assert alpha is not None
    assert alpha[:, :32].max() == 0
    assert alpha[:, 32:].min() == 1


def test_opaque_alpha_is_no_mask(tmp_path: Path, astronaut):
    astronaut.convert("RGBA").save(tmp_path / "a.png")
    photo = photofile.read(tmp_path / "a.png")
    assert photo.alpha is None
    assert difference(photo, astronaut) == 0


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
@pytest.mark.parametrize("tag", range(1, 9))
def test_exif_turns_it_upright(tmp_path: Path, astronaut, tag, suffix):
    stored = astronaut.crop((0, 0, 128, 96))
    exif = Image.Exif()
    exif[0x0112] = tag
    stored.save(tmp_path / f"a.{suffix}", exif=exif, **({"quality": 98} if suffix == "jpg" else {}))
    pixels = np.asarray(stored)
    upright = {  # what EXIF says of the stored picture's first row and column
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.swapaxes(0, 1),
        6: pixels.swapaxes(0, 1)[:, ::-1],
        7: pixels.swapaxes(0, 1)[::-1, ::-1],
        8: pixels.swapaxes(0, 1)[::-1],
    }[tag]
    assert difference(photofile.read(tmp_path / f"a.{suffix}"), Image.fromarray(upright)) < 3


def test_its_colour_profile_is_used(tmp_path: Path, astronaut):
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    astronaut.save(tmp_path / "a.png", icc_profile=lab)
    assert difference(photofile.read(tmp_path / "a.png"), astronaut) < 1
    astronaut.save(tmp_path / "b.png", icc_profile=b"nonsense")
    photo = photofile.read(tmp_path / "b.png")
    assert difference(photo, astronaut) == 0
    assert "colour profile" in photo.notes[0]


def test_a_huge_photo_is_scaled_down_with_a_note(tmp_path: Path, astronaut, monkeypatch):
    monkeypatch.setattr(photofile, "MOST_PIXELS", 64 * 64)
    astronaut.save(tmp_path / "a.png")
    photo = photofile.read(tmp_path / "a.png")
    assert photo.size == (64, 64)
    assert photo.scale == 0.5
    assert "128 x 128" in photo.notes[0]


def test_the_first_frame_of_an_animation(tmp_path: Path, astronaut):
    astronaut.save(tmp_path / "a.png", save_all=True, append_images=[Image.new("RGB", (128, 128))])
    photo = photofile.read(tmp_path / "a.png")
    assert difference(photo, astronaut) == 0
    assert "first" in photo.notes[0]


def test_a_missing_file_names_a_near_one(tmp_path: Path, astronaut):
    astronaut.save(tmp_path / "portrait.png")
    with pytest.raises(InputError, match=r"there is no photo .*potrait\.png.*Did you mean .*portrait\.png"):
        photofile.read(tmp_path / "potrait.png")
    with pytest.raises(InputError, match="there is no photo"):
        photofile.read(tmp_path / "nowhere" / "x.png")


def test_a_folder_names_a_photo_in_it(tmp_path: Path, astronaut):
    astronaut.save(tmp_path / "me.jpg")
    with pytest.raises(InputError, match=r"is a folder; .*me\.jpg"):
        photofile.read(tmp_path)


def test_what_is_no_picture(tmp_path: Path):
    (tmp_path / "a.jpg").write_text("not a picture at all")
    with pytest.raises(InputError, match="not a picture"):
        photofile.read(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").write_bytes(b"")
    with pytest.raises(InputError, match="empty"):
        photofile.read(tmp_path / "b.jpg")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_a_file_cut_short(tmp_path: Path, astronaut, suffix, share):
    buffer = io.BytesIO()
    astronaut.save(buffer, {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "tif": "TIFF"}[suffix])
    whole = buffer.getvalue()
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(InputError, match=r"cut short|not a picture"):
        photofile.read(path)


def test_a_tiny_photo(tmp_path: Path, astronaut):
    astronaut.resize((31, 64)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"only 31 x 64 pixels; at least 32"):
        photofile.read(tmp_path / "a.png")


def test_a_photo_of_too_many_pixels(tmp_path: Path, astronaut, monkeypatch):
    astronaut.save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(InputError, match="too many pixels"):
        photofile.read(tmp_path / "a.png")
