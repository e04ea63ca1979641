"""Pictures of a result: stills, sheets, and the turntable film; each is written whole or not at all."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from facednerf_core.files import whole_file

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image, ImageFont
    from torch import Tensor

    from facednerf_core.scene import Rendering
    from facednerf_core.views import Orbit

PAPER = (250, 249, 247)
INK = (38, 38, 42)
FAINT = (128, 127, 130)
CELL = 232  # height of a picture on a sheet, pixels
GAP = 10
MARGIN = 28
FILM = 512  # least height of the film, pixels
NOD = 0.35  # share of the trusted pitch by which a film all round goes up and down


def pixels(image: Tensor) -> np.ndarray:
    """An image (..., 3, H, W) in [-1, 1] as bytes (..., H, W, 3), rounded to the nearest; beyond the range is cut off."""
    return ((image.detach().float().cpu() + 1) * 127.5).round().clamp(0, 255).byte().movedim(-3, -1).numpy()


def still(path: Path, image: Tensor) -> None:
    """Writes an image (3, H, W), or the only one of (1, 1, 3, H, W), in [-1, 1], as PNG."""
    from PIL import Image

    _png(path, Image.fromarray(pixels(image.reshape(image.shape[-3:]))))


def on_background(rendering: Rendering, drawn_on: Literal["own", "white", "black"], behind: Tensor | None) -> Tensor:
    """The rendering's images (N, V, 3, H, W) with another background in place of the plain one they are drawn on.

    `behind` broadcasts to the images. A generator with a background of its own has finished its image: it stays as it is,
    as it does without a mask or anything to put behind.
    """
    if drawn_on == "own" or rendering.mask is None or behind is None:
        return rendering.image
    from torch.nn import functional as F

    image = rendering.image
    mask = rendering.mask.flatten(0, 1)  # (N V, 1, h, w)
    if mask.shape[-2:] != image.shape[-2:]:
        mask = F.interpolate(mask, image.shape[-2:], mode="bilinear", align_corners=False, antialias=True)
    through = 1 - mask.unflatten(0, image.shape[:2]).clamp(0, 1)
    plain = 1.0 if drawn_on == "white" else -1.0
    return (image + through * (behind.to(image) - plain)).clamp(-1, 1)


def backdrop(background: Tensor | None, size: tuple[int, int]) -> Tensor:
    """A quiet backdrop (1, 1, 3, H, W) in the colours of the photo's background, for views that the photo does not show.

    The upper two thirds of the background (1, 1, 3, h, w), where shoulders seldom reach, much blurred and a little lighter
    in the middle; None gives a neutral grey.
    """
    import torch
    from torch.nn import functional as F

    height, width = size
    if background is None:
        soft = torch.full((1, 3, height, width), 0.72)
    else:
        upper = background.detach().cpu().float().flatten(0, 1)[:, :, : max(1, background.shape[-2] * 2 // 3)]
        few = F.interpolate(upper, (3, 3), mode="area")
        mean = few.mean((2, 3), keepdim=True)
        few = mean + 0.6 * (few - mean)
        soft = F.interpolate(few, (height, width), mode="bicubic", align_corners=True)
    y = torch.linspace(-1, 1, height)[:, None]
    x = torch.linspace(-1, 1, width)[None, :]
    vignette = 1.02 - 0.07 * (x**2 + (y + 0.2) ** 2)
    return (((soft + 1) * vignette) - 1).clamp(-1, 1)[None]


def turntable_angles(orbit: Orbit, frames: int) -> list[tuple[float, float]]:
    """(yaw, pitch) of a film that loops, from frontal and a little above: once round the subject where the orbit is trusted
    from all sides, by its right and its back; else once around an ellipse well within the orbit."""
    turn = [2 * math.pi * frame / frames for frame in range(frames)]
    if orbit.all_round:
        return [(math.remainder(t, 2 * math.pi), NOD * orbit.pitch * math.cos(t)) for t in turn]
    return [(0.9 * orbit.yaw * math.sin(t), 0.5 * orbit.pitch * math.cos(t)) for t in turn]


def sheet_angles(orbit: Orbit) -> list[tuple[float, float]]:
    """(yaw, pitch) of the columns of a contact sheet, left to right: across the orbit at eye level, or from eight sides with
    the back last where it is trusted all round; then from above and from below."""
    if orbit.all_round:
        yaws = [eighth * math.pi / 4 for eighth in range(-3, 5)]
    else:
        yaws = [share * orbit.yaw for share in (-0.9, -0.45, 0.0, 0.45, 0.9)]
    return [*((yaw, 0.0) for yaw in yaws), (0.0, 0.85 * orbit.pitch), (0.0, -0.85 * orbit.pitch)]


def angle_name(yaw: float, pitch: float) -> str:
    """Where the camera stands, in words: '30° right', 'front', 'back', '12° above'; turns of a full circle do not count."""
    words = []
    for angle, positive, negative in ((math.remainder(yaw, 2 * math.pi), "right", "left"), (pitch, "above", "below")):
        degrees = round(math.degrees(abs(angle)))
        if degrees == 180:
            words.append("back")
        elif degrees:
            words.append(f"{degrees}° {positive if angle > 0 else negative}")
    return ", ".join(words) or "front"


def contact_sheet(
    path: Path, rows: Mapping[str, Tensor], angles: Sequence[tuple[float, float]], title: str = "", subtitle: str = ""
) -> None:
    """Writes a sheet of views: named rows of images (V, 3, H, W) in [-1, 1], a column for each (yaw, pitch) in radians."""
    columns = [angle_name(*pair) for pair in angles]
    _png(path, _page([(name, list(pixels(images))) for name, images in rows.items()], columns, title, subtitle))


def comparison(path: Path, images: Mapping[str, Tensor], title: str = "", subtitle: str = "") -> None:
    """Writes a sheet of named images (3, H, W) in [-1, 1] side by side, for instance before, inverted and after."""
    shown = [pixels(image.reshape(image.shape[-3:])) for image in images.values()]
    _png(path, _page([("", shown)], list(images), title, subtitle, cell=320))


def turntable(path: Path, frames: Iterable[Tensor], fps: int = 24) -> None:
    """Writes a film (H.264, yuv420p) of images (3, H, W) in [-1, 1]; all of one size, scaled up where they are small."""
    import av
    from PIL import Image

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as film:
        stream = film.add_stream("libx264", rate=fps, options={"crf": "16", "preset": "medium"})
        stream.pix_fmt = "yuv420p"
        size: tuple[int, int] | None = None
        for frame in frames:
            picture = Image.fromarray(pixels(frame.reshape(frame.shape[-3:])))
            if size is None:
                size = _film_size(picture.width, picture.height)
                stream.width, stream.height = size
            if picture.size != size:
                picture = picture.resize(size, Image.Resampling.BICUBIC)
            film.mux(stream.encode(av.VideoFrame.from_image(picture)))
        if size is None:
            raise ValueError("a film needs at least one frame")
        film.mux(stream.encode(None))
    with whole_file(path) as part:
        part.write_bytes(buffer.getvalue())


def _film_size(width: int, height: int) -> tuple[int, int]:
    """Width and height, even as yuv420p wants, at least `FILM` high."""
    factor = max(1, -(-FILM // height))
    return max(2, width * factor // 2 * 2), max(2, height * factor // 2 * 2)


def _png(path: Path, picture: Image.Image) -> None:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    with whole_file(path) as part:
        part.write_bytes(buffer.getvalue())


def _page(
    rows: Sequence[tuple[str, Sequence[np.ndarray]]],
    columns: Sequence[str],
    title: str,
    subtitle: str,
    cell: int = CELL,
) -> Image.Image:
    """Rows of pictures on paper: a title above, the rows' names at the left, the columns' names below."""
    from PIL import Image, ImageDraw, ImageFont

    large, small = ImageFont.load_default(24), ImageFont.load_default(15)
    tall, wide = rows[0][1][0].shape[:2]
    size = (round(cell * wide / tall), cell)
    names = [name for name, _ in rows if name]
    aside = max((round(small.getlength(name)) for name in names), default=0) + (18 if names else 0)
    inner = len(columns) * size[0] + (len(columns) - 1) * GAP
    heading = _wrapped(title, large, aside + inner)
    under = _wrapped(subtitle, small, aside + inner)
    top = MARGIN + 32 * len(heading) + 21 * len(under) + (14 if heading or under else 0)
    bottom = top + len(rows) * (cell + GAP)
    page = Image.new("RGB", (2 * MARGIN + aside + inner, bottom + 22 + MARGIN), PAPER)
    draw = ImageDraw.Draw(page)
    y = MARGIN
    for line in heading:
        draw.text((MARGIN, y), line, INK, large)
        y += 32
    for line in under:
        draw.text((MARGIN, y), line, FAINT, small)
        y += 21
    for number, (name, pictures) in enumerate(rows):
        y = top + number * (cell + GAP)
        draw.text((MARGIN, y + cell / 2), name, INK, small, anchor="lm")
        for column, picture in enumerate(pictures):
            shown = Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS)
            page.paste(shown, (MARGIN + aside + column * (size[0] + GAP), y), _rounded(size))
    for column, name in enumerate(columns):
        middle = MARGIN + aside + column * (size[0] + GAP) + size[0] / 2
        draw.text((middle, bottom + 2), name, FAINT, small, anchor="ma")
    return page


def _rounded(size: tuple[int, int]) -> Image.Image:
    """A mask with slightly rounded corners."""
    from PIL import Image, ImageDraw

    fine = Image.new("L", (size[0] * 4, size[1] * 4))
    ImageDraw.Draw(fine).rounded_rectangle((0, 0, fine.width - 1, fine.height - 1), 24, 255)
    return fine.resize(size, Image.Resampling.BOX)


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> list[str]:
    """The text in lines that fit, broken between words."""
    lines: list[str] = []
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(word)
    return lines
