import time

import numpy as np
import pytest
from scipy import ndimage

from facednerf_core import matting


@pytest.fixture(scope="module")
def cutout() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A reddish blob before a bluish, uneven wall: image, its true mask, the person's colours and the wall, 256 px."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:256, :256]
    radius = 70 + 12 * np.sin(5 * np.arctan2(y - 128, x - 128))
    mask = ndimage.gaussian_filter((np.hypot(y - 128, x - 128) < radius).astype(float), 0.7)
    texture = ndimage.gaussian_filter(rng.normal(size=(256, 256, 3)), (2, 2, 0)) * 0.25
    person = np.clip(np.array([0.75, 0.5, 0.4]) + texture, 0, 1)
    wall = np.clip(np.array([0.35, 0.45, 0.6]) + texture[::-1] + (x[..., None] - 128) / 1500, 0, 1)
    return mask[..., None] * person + (1 - mask[..., None]) * wall, mask, person, wall


def test_a_rough_mask_is_drawn_to_the_edges(cutout):
    image, mask, _, _ = cutout
    rough = np.roll(ndimage.gaussian_filter((np.hypot(*np.mgrid[-128:128, -128:128]) < 70).astype(float), 6), 3, 1)
    start = time.perf_counter()
    sharp = matting.sharpened(image, rough)
    assert time.perf_counter() - start < 1.5
    assert np.abs(sharp - mask).mean() < 0.35 * np.abs(rough - mask).mean()
    assert np.abs(sharp - mask).mean() < 0.02
    assert sharp.min() >= 0
    assert sharp.max() <= 1


def test_colours_count_where_they_are():
    """A person in red over blue before a wall of blue over red: taken together the colours tell nothing."""
    y, x = np.mgrid[:256, :256]
    texture = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(256, 256, 3)), (2, 2, 0)) * 0.25
    mask = (np.abs(x - 128) < 60).astype(float)
    red = (mask > 0.5) == (y < 128)
    image = np.clip(np.where(red[..., None], [0.7, 0.4, 0.35], [0.35, 0.45, 0.65]) + texture, 0, 1)
    sharp = matting.sharpened(image, ndimage.gaussian_filter(np.roll(mask, 12, 1), 14))
    assert np.abs(sharp - mask).mean() < 0.025


def test_what_the_mask_is_sure_of_stays(cutout):
    image, mask, _, _ = cutout
    grey = np.full_like(image, 0.5)
    sharp = matting.sharpened(grey, mask)
    assert (sharp[mask == 0][:1000] == 0).all()
    assert sharp[118:138, 118:138].min() == 1
    for flat in (np.zeros((64, 64)), np.ones((64, 64)), np.full((64, 64), 0.5)):
        assert (matting.sharpened(image[:64, :64], flat) == flat).all()


def test_filling_keeps_what_is_known_and_is_smooth():
    ramp = np.linspace(0, 1, 61)[None, :, None].repeat(45, 0).repeat(3, 2)
    known = np.ones((45, 61))
    known[10:35, 20:41] = 0
    out = matting.filled(np.where(known[..., None] > 0, ramp, 9.0), known)
    assert (out[known > 0] == ramp[known > 0]).all()
    assert np.abs(out - ramp).max() < 0.15
    assert np.isfinite(matting.filled(ramp, np.zeros((45, 61)))).all()


def test_layers_carry_no_rim_of_one_another(cutout):
    image, mask, _, wall = cutout
    front, back = matting.layers(image, mask)
    assert np.abs(back - wall)[mask > 0.99].mean() < 0.12
    assert back[mask > 0.5][:, 0].max() < 0.65  # nothing of the red
    rim = (mask > 0.2) & (mask < 0.8)
    assert np.abs(front[rim] - [0.75, 0.5, 0.4]).mean() < 0.1
    again = mask[..., None] * front + (1 - mask[..., None]) * back
    assert np.abs(again - image).mean() < 0.02
