"""A photo as a file: any kind that Pillow knows, read into upright RGB of eight bits, or refused with a reason."""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from facednerf_core.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

SMALLEST_PHOTO = 32  # pixels, of the shorter side
MOST_PIXELS = 24_000_000  # a larger photo is scaled down as it is read

_TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # EXIF's orientation -> PIL.Image.Transpose


@dataclass(frozen=True)
class Photo:
    """A photo as it was read: upright, eight bits, RGB. Positions are pixels from the upper left corner of the first one."""

    pixels: np.ndarray  # (H, W, 3) uint8
    alpha: np.ndarray | None = None  # (H, W) in [0, 1], where the file has transparency; pixels then stand on white
    scale: float = 1.0  # these pixels per pixel of the file; less than 1 where a huge photo was scaled down
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[0], self.pixels.shape[1]


def read(path: str | Path) -> Photo:
    """Reads a photo of any kind that Pillow knows.

    Turned upright by its EXIF tag, brought from its own colour profile to sRGB, 16 bits to 8, of an animation the first
    frame. Transparency is kept as `alpha` and the picture put on white.

    Raises:
        InputError: there is no such file, it is a folder, empty, no picture, cut short, or too small.
    """
    from PIL import Image

    path = Path(path)
    _check(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                return _upright(opened, path)
    except Image.UnidentifiedImageError as error:
        raise InputError(f"{path} is not a picture that can be read here. Save it as JPEG or PNG and try again.") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{path} has too many pixels to be read. Scale it down to 8000 pixels or fewer a side.") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise InputError(f"{path} is damaged or cut short ({error}). Copy or download it again.") from error


def _check(path: Path) -> None:
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder; name one photo in it, for instance {_some_photo(path)}.")
        if not path.exists():
            near = get_close_matches(path.name, _names(path.parent), n=1, cutoff=0.6)
            advice = f"Did you mean {path.with_name(near[0])}?" if near else "A path is taken from the current folder."
            raise InputError(f"there is no photo {path}. {advice}")
        with path.open("rb") as file:
            if not file.read(1):
                raise InputError(f"{path} is empty (0 bytes). Copy or download it again.")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}. Check who may read it.") from error


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def _some_photo(folder: Path) -> Path:
    pictures = [name for name in _names(folder) if Path(name).suffix.lower() in (".jpg", ".jpeg", ".png", ".webp")]
    return folder / (pictures[0] if pictures else "photo.jpg")


def _upright(opened: Image.Image, path: Path) -> Photo:
    import numpy as np
    from PIL import Image

    notes = []
    if getattr(opened, "n_frames", 1) > 1:
        notes.append(f"{path.name} has several frames; the first is taken")
    width, height = opened.size
    scale = min(1.0, (MOST_PIXELS / (width * height)) ** 0.5)
    if min(width, height) * scale < SMALLEST_PHOTO:
        raise InputError(
            f"{path} has only {width} x {height} pixels; at least {SMALLEST_PHOTO} a side are needed. Take a larger copy."
        )
    if scale < 1:
        small = (round(width * scale), round(height * scale))
        notes.append(f"{path.name} has {width} x {height} pixels; it is worked on at {small[0]} x {small[1]}")
        opened.draft(None, small)  # a JPEG is then decoded at a fraction of its size
    opened.load()  # a TIFF is turned upright by this, and then has the tag no longer
    turn = _TURNS.get(opened.getexif().get(0x0112, 1))
    picture, profile_note = _in_srgb(_eight_bits(opened))
    notes += [profile_note] if profile_note else []
    if scale < 1:
        picture = picture.resize(small, Image.Resampling.LANCZOS, reducing_gap=3.0)
    if turn is not None:
        picture = picture.transpose(Image.Transpose(turn))
    if picture.mode != "RGBA":
        return Photo(np.array(picture), scale=scale, notes=tuple(notes))
    alpha = np.asarray(picture.getchannel("A"), dtype=np.float32) / 255
    if alpha.min() == 1:
        return Photo(np.array(picture.convert("RGB")), scale=scale, notes=tuple(notes))
    on_white = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return Photo(np.array(on_white), alpha, scale, tuple(notes))


def _eight_bits(picture: Image.Image) -> Image.Image:
    """The picture in RGB, or RGBA where it has transparency."""
    import numpy as np
    from PIL import Image

    if picture.mode.startswith(("I", "F")):  # grey of 16 or 32 bits
        values = np.nan_to_num(np.asarray(picture).astype(np.float64))
        top = 65535.0 if picture.mode.startswith("I") else (1.0 if values.max() <= 1 else 255.0)
        if values.max() > top:
            top = float(values.max())
        return Image.fromarray(np.round(values.clip(0, top) / top * 255).astype(np.uint8)).convert("RGB")
    clear = picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info
    if picture.mode == "CMYK" and picture.info.get("icc_profile"):
        return picture  # its profile knows better how to bring it to RGB
    mode = "RGBA" if clear else "RGB"
    return picture if picture.mode == mode else picture.convert(mode)


def _in_srgb(picture: Image.Image) -> tuple[Image.Image, str]:
    """The picture in sRGB by its own colour profile, and a note where that profile cannot be used."""
    from PIL import Image, ImageCms

    profile = picture.info.get("icc_profile")
    if not profile:
        return picture, ""
    mode: Literal["RGB", "RGBA"] = "RGBA" if picture.mode == "RGBA" else "RGB"
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"), outputMode=mode)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return picture.convert(mode), "its colour profile cannot be read; colours are taken as sRGB"
    assert isinstance(converted, Image.Image)  # profileToProfile returns None only when it works in place
    return converted, ""
