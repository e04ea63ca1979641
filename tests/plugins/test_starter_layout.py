"""Many cells in one picture: each block where the grid says, each text below its own."""

from __future__ import annotations

import numpy as np
import pytest
from facednerf_starter.world.layout import LINES, compose, grid, wrapped


@pytest.mark.parametrize("count", [1, 5, 12, 31])
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 3)])
@pytest.mark.parametrize("text", [False, True])
def test_blocks_lie_in_the_picture_and_apart(count: int, shape: tuple[int, int], text: bool) -> None:
    found = grid(count, *shape, 32, text=text)
    width, height = found.size
    covered = np.zeros((height, width), int)
    for number in range(count):
        left, top, wide, high = found.box(number)
        assert (wide, high) == found.block == (shape[1] * 32, shape[0] * 32)
        assert left + wide <= width
        assert top + high + found.text <= height
        covered[top : top + high, left : left + wide] += 1
    assert covered.max() == 1


def test_twelve_heads_are_three_rows_of_four() -> None:
    assert grid(12, 1, 1, 256).size == (1024, 768)


def test_cells_are_where_they_belong() -> None:
    cells = [np.full((8, 8, 3), value, np.uint8) for value in range(12)]
    blocks = [[cells[0:2], cells[2:4]], [cells[4:6], cells[6:8]], [cells[8:10], cells[10:12]]]
    found = grid(3, 2, 2, 8)
    picture = np.asarray(compose(found, blocks))
    for number, block in enumerate(blocks):
        left, top, _, _ = found.box(number)
        for down, row in enumerate(block):
            for over, cell in enumerate(row):
                y, x = top + 8 * down, left + 8 * over
                assert np.array_equal(picture[y : y + 8, x : x + 8], cell)


def test_text_is_dark_below_its_block_and_nowhere_else() -> None:
    cells = [[np.full((64, 64, 3), 255, np.uint8)]]
    found = grid(2, 1, 1, 64, text=True)
    picture = np.asarray(compose(found, [cells, cells], ["", "a man with a beard and a hat"]))
    left, top, wide, high = found.box(1)
    below = np.zeros(picture.shape[:2], bool)
    below[top + high : top + high + found.text, left : left + wide] = True
    assert picture[below].min() < 100
    assert picture[~below].min() == 255


def test_wrapping_keeps_all_words_or_says_that_it_does_not() -> None:
    assert wrapped("a man with a beard", 10, len) == ["a man with", "a beard"]
    assert wrapped("extraordinarily long", 10, len) == ["extraordinarily", "long"]
    cut = wrapped("one two three four five six seven eight", 9, len)
    assert len(cut) == LINES
    assert cut[-1].endswith("...")
    assert all(len(line) <= 9 for line in cut)
