"""The four super-resolution modules: their sizes, tensors, and when they resize."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from facednerf_eg3d.layers import upsample_image
from facednerf_eg3d.superresolution import DESIGNS, SuperResolution, design

# of the facts: image, input, block0's channels and size, block1's, and whether the module stores a filter
TABLE = {
    "8XDC": (512, 128, (256, 256), (128, 512), False),
    "8X": (512, 128, (128, 256), (64, 512), True),
    "4X": (256, 128, (128, 128), (64, 256), True),
    "2X": (128, 64, (128, 64), (64, 128), True),
}


@pytest.mark.parametrize("name", TABLE)
def test_sizes_and_tensors(name: str) -> None:
    image, entry, first, second, own = TABLE[name]
    with torch.device("meta"):
        made = SuperResolution(design(f"training.superresolution.SuperresolutionHybrid{name}"), clamp=256.0)
    assert (made.resolution, made.plan.input_resolution) == (image, entry)
    shapes = {key: tuple(value.shape) for key, value in made.state_dict().items()}
    assert ("resample_filter" in shapes) == own
    assert shapes["block0.conv0.weight"] == (first[0], 32, 3, 3)
    assert shapes["block0.conv0.noise_const"] == shapes["block0.conv1.noise_const"] == (first[1], first[1])
    assert shapes["block1.conv0.weight"] == (second[0], first[0], 3, 3)
    assert shapes["block1.conv0.noise_const"] == (second[1], second[1])
    assert shapes["block1.torgb.weight"] == (3, second[0], 1, 1)
    assert shapes["block0.conv0.affine.weight"] == (32, 512)
    assert made.block0.up == made.block0.conv0.up == (name in ("8XDC", "8X"))


def small(name: str, **how: object) -> SuperResolution:
    torch.manual_seed(0)
    made = SuperResolution(replace(DESIGNS[name], input_resolution=8, widths=(6, 5)), features=4, w_dim=7, **how)
    return made.requires_grad_(False)


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("rays", [6, 8, 11])
@pytest.mark.parametrize("antialias", [True, False])
def test_when_and_how_the_input_is_resized(name: str, rays: int, antialias: bool) -> None:
    made = small(name, antialias=antialias)
    feature = torch.randn(2, 4, rays, rays)
    kept = rays == 8 or (name == "4X" and rays > 8)
    expected = feature if kept else F.interpolate(feature, size=(8, 8), mode="bilinear", antialias=antialias)
    torch.testing.assert_close(made.fitted(feature), expected)
    image = made(feature, torch.randn(2, 7), {})
    side = 2 * expected.shape[-1] * (2 if DESIGNS[name].grows else 1)
    assert image.shape == (2, 3, side, side)


def test_the_input_of_the_image_is_the_first_three_features() -> None:
    """With image layers that draw nothing, the raw image is enlarged and nothing else."""
    for name, steps in (("8XDC", 2), ("2X", 1)):
        made = small(name)
        for block in (made.block0, made.block1):
            block.torgb.weight.zero_()
        feature = torch.randn(1, 4, 8, 8)
        expected = feature[:, :3]
        for _ in range(steps):
            expected = upsample_image(expected, made.block0.resample_filter)
        torch.testing.assert_close(made(feature, torch.randn(1, 7), {}), expected)


def test_pictures_side_by_side_are_those_of_each_alone() -> None:
    made = small("4X", clamp=256.0)
    feature, w = torch.randn(3, 4, 8, 8), torch.randn(3, 7)
    noise = made.own_noise() | {"block0.conv1": torch.randn(3, 1, 8, 8)}
    for layer in (made.block0.conv0, made.block0.conv1):
        layer.noise_strength.fill_(0.5)
    together = made(feature, w, noise)
    for index in range(3):
        own = noise | {"block0.conv1": noise["block0.conv1"][index : index + 1]}
        alone = made(feature[index : index + 1], w[index : index + 1], own)
        torch.testing.assert_close(together[index : index + 1], alone)


def test_the_clamp_holds_in_every_layer_and_not_for_what_is_accumulated() -> None:
    made, x, ws = small("2X", clamp=0.1), 9 * torch.randn(1, 6, 8, 8), torch.randn(1, 3, 7)
    made_x, drawn = made.block1(x, None, ws, {})
    assert made_x.abs().max() == pytest.approx(0.1)
    assert drawn.abs().max() == pytest.approx(0.1)
    _, image = made.block1(x, torch.full((1, 3, 8, 8), 5.0), ws, {})
    assert image[:, :, 4:-4, 4:-4].min() > 4.8
