"""What is measured without networks."""

from __future__ import annotations

import math

import pytest
import torch

from facednerf_core.metrics import REGIONS, changes, psnr, said


def test_psnr_of_a_constant_error() -> None:
    truth = torch.zeros(3, 8, 8)
    assert psnr(truth + 0.2, truth) == pytest.approx(-20 * math.log10(0.1), abs=1e-4)
    assert psnr(truth, truth) == pytest.approx(100)


def test_psnr_is_of_the_picture_as_it_is_shown() -> None:
    assert psnr(torch.full((3, 4, 4), 7.0), torch.ones(3, 4, 4)) == pytest.approx(100)


def test_psnr_inside_a_mask_is_that_of_the_inside() -> None:
    truth = torch.zeros(3, 8, 8)
    image, mask = truth.clone(), torch.zeros(1, 8, 8)
    image[:, 4:] = 1.0
    image[:, :4] = 0.2
    mask[:, :4] = 1
    assert psnr(image, truth, mask) == pytest.approx(20, abs=1e-4)
    assert psnr(image, truth) < 10


LANDMARKS = torch.tensor([[0.35, 0.4], [0.65, 0.4], [0.5, 0.5], [0.4, 0.6], [0.6, 0.6]])


@pytest.mark.parametrize(
    ("rows", "region"),
    [((0, 30), "hair and forehead"), ((34, 46), "eyes"), ((50, 52), "nose and cheeks"), ((56, 72), "mouth and chin")],
)
def test_a_change_is_found_in_its_region(rows: tuple[int, int], region: str) -> None:
    before = torch.zeros(3, 100, 100)
    after = before.clone()
    after[:, rows[0] : rows[1]] = 1.0
    found = changes(before, after, LANDMARKS)
    assert tuple(found) == REGIONS
    assert max(found, key=lambda name: found[name]) == region
    assert said(found).startswith(f"the picture changed (mean difference by region): {region}")


def test_changes_are_parts_of_the_full_range() -> None:
    before, after = -torch.ones(3, 100, 100), torch.full((3, 100, 100), 5.0)
    assert set(changes(before, after, LANDMARKS).values()) == {1.0}
    assert changes(before, after, None) == {"picture": 1.0}


def test_regions_beyond_the_picture_are_left_out() -> None:
    low = LANDMARKS + torch.tensor([0.0, 0.5])
    found = changes(torch.zeros(3, 50, 50), torch.ones(3, 50, 50), low)
    assert all(math.isfinite(value) for value in found.values())
    assert "neck and clothes" not in found


def test_a_change_too_small_to_see_is_called_that() -> None:
    assert said({"eyes": 0.004, "neck": 0.001}) == "almost nothing changed in the picture"
    assert said({"eyes": 0.02, "neck": 0.001}) == "the picture changed (mean difference by region): eyes 2.0 %"
