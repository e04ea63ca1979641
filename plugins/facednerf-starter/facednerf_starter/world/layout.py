"""One picture of many: blocks of square cells on a grid, each with a line of text below."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Cells = Sequence[Sequence[NDArray[np.uint8]]]
"""Rows of pictures (H, W, 3), all of one size."""

WIDE = 4 / 3
"""About how much wider than high a sheet should be."""
LINES = 3
"""Of text below a block, at most."""


@dataclass(frozen=True)
class Grid:
    """Where `count` blocks of `rows` x `columns` cells lie in a picture, row by row."""

    count: int
    rows: int
    columns: int
    cell: int  # pixels across a cell
    text: int = 0  # pixels below a block
    gap: int = 0  # pixels between blocks
    across: int = 1  # blocks in a row

    @property
    def block(self) -> tuple[int, int]:
        """Width and height of a block without its text, pixels."""
        return self.columns * self.cell, self.rows * self.cell

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture, pixels."""
        width, height = self.block
        down = math.ceil(self.count / self.across)
        return self.across * (width + self.gap) - self.gap, down * (height + self.text + self.gap) - self.gap

    def box(self, number: int) -> tuple[int, int, int, int]:
        """Left, top, width and height of a block without its text, pixels."""
        width, height = self.block
        down, over = divmod(number, self.across)
        return over * (width + self.gap), down * (height + self.text + self.gap), width, height


def grid(count: int, rows: int, columns: int, cell: int, *, text: bool = False) -> Grid:
    """The grid whose picture is nearest to `WIDE`, and of those that are as near, the one with the fewest gaps."""
    below = LINES * _line(cell) + _line(cell) // 2 if text else 0
    gap = cell // 12 if rows * columns > 1 else 0

    def shape(across: int) -> Grid:
        return Grid(count, rows, columns, cell, below, gap, across)

    def oddness(found: Grid) -> float:
        width, height = found.size
        gaps = -count % found.across / count
        return abs(math.log(width / height / WIDE)) + gaps

    return min((shape(across) for across in range(1, count + 1)), key=oddness)


def compose(found: Grid, blocks: Sequence[Cells], texts: Sequence[str] = ()) -> Image.Image:
    """The picture of all blocks over white, each with its text."""
    picture = np.full((found.size[1], found.size[0], 3), 255, np.uint8)
    for number, block in enumerate(blocks):
        left, top, width, height = found.box(number)
        picture[top : top + height, left : left + width] = np.concatenate([np.concatenate(row, 1) for row in block], 0)
    image = Image.fromarray(picture)
    if texts:
        pen, font = ImageDraw.Draw(image), ImageFont.load_default(_line(found.cell) * 0.8)
        margin = found.cell // 32
        for number, text in enumerate(texts):
            left, top, width, height = found.box(number)
            lines = wrapped(text, width - 2 * margin, font.getlength)
            at = (left + margin, top + height + _line(found.cell) // 4)
            pen.multiline_text(at, "\n".join(lines), (40, 40, 40), font, spacing=0.2 * _line(found.cell))
    return image


def wrapped(text: str, width: float, length: Callable[[str], float]) -> list[str]:
    """A text in at most `LINES` lines no longer than `width`, by `length` of a line; the last ends in dots if it is cut.

    A single word that is too long stays whole.
    """
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and length(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    if len(lines) > LINES:
        words = lines[LINES - 1].split()
        while len(words) > 1 and length(" ".join([*words, "..."])) > width:
            words.pop()
        lines = [*lines[: LINES - 1], " ".join([*words, "..."])]
    return lines


def _line(cell: int) -> int:
    """Pixels from one line of text to the next."""
    return max(10, round(cell / 16))
