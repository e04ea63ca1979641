"""Where an edit departs: the axes of its sentence, and the part of the picture that they change."""

from __future__ import annotations

import torch
from torch import Tensor

from facednerf_core.departure import Departure, region
from facednerf_core.scene import Atlas

SIZE = 64


def departing(column: int | None) -> Departure:
    """An edit whose sentence speaks of one column of w, or of nothing."""
    latents = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))

    def score(pictures: Tensor) -> Tensor | None:
        return None if column is None else latents[:, column]

    return Departure(Atlas(latents, torch.zeros(100, 3, 8, 8)), torch.eye(4), score, lambda: torch.full((1, 1, 2, 2), 0.5))


def drawn(w: Tensor) -> Tensor:
    """A picture in four quarters, one for each number of w, (N, 3, SIZE, SIZE)."""
    quarters = w.mean(1).reshape(-1, 1, 2, 2).repeat_interleave(SIZE // 2, 2).repeat_interleave(SIZE // 2, 3)
    return quarters.expand(-1, 3, -1, -1) * 0.2


def test_what_the_axes_change_on_the_subject_is_spared_and_the_rest_is_held() -> None:
    edit = departing(2)
    assert edit.spared() is None
    edit.look(torch.zeros(2, 3, 4), drawn)
    spared = edit.spared()
    assert spared is not None
    assert spared.shape == (2, 1, 32, 32)
    assert spared[:, :, 17:, :15].min() == 1  # the third quarter
    assert spared[:, :, :13].max() == 0
    assert spared[:, :, :, 19:].max() == 0
    assert torch.equal(spared[0], spared[1])


def test_it_begins_along_those_axes() -> None:
    moved = departing(2).begin(torch.zeros(1, 3, 4))
    assert moved[0, 0].abs().argmax() == 2
    assert moved[0, 0, 2] > 1.5


def test_a_sentence_that_tells_nothing_leaves_the_region_to_the_guidance() -> None:
    edit = departing(None)
    w = torch.rand(1, 3, 4)
    assert torch.equal(edit.begin(w), w)
    edit.look(w, drawn)
    spared = edit.spared()
    assert spared is not None
    assert torch.equal(spared, torch.full((1, 1, 2, 2), 0.5))


def test_a_region_does_not_depend_on_how_large_its_change_is() -> None:
    change = torch.zeros(2, 1, SIZE, SIZE)
    change[:, :, 20:40, 20:40] = 1.0
    change[1] *= 0.01
    found = region(change)
    torch.testing.assert_close(found[0], found[1])
    assert found[0, 0, 15, 15] == 1
    assert found[0, 0, 2, 2] == 0
    assert region(torch.zeros(1, 1, 8, 8)).max() == 0
