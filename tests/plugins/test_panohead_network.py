"""The whole PanoHead network against the golden shrunken generator."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from facednerf_eg3d.sampling import Draws
from facednerf_panohead.clouds import HeadRayOptions
from facednerf_panohead.composition import Composed
from facednerf_panohead.mapping import moved
from facednerf_panohead.network import TriGridGenerator
from torch import Tensor

from facednerf_core.errors import InputError
from tests.plugins.panohead_goldens import CAMERA, PARAMS, RAYS, TINY, assert_golden, draws, error, tiny, tiny_config


@pytest.fixture(scope="module")
def network() -> TriGridGenerator:
    return tiny()


@pytest.fixture(scope="module")
def grids(network: TriGridGenerator) -> Tensor:
    with torch.no_grad():
        return network.grids(TINY["in.ws"])


def seen(network: TriGridGenerator, grids: Tensor, **how: object) -> Composed:
    """Without background: what the renderer itself gives."""
    return network.render(grids, CAMERA, TINY["in.ws"], rules="official", **how)


def assert_seen(prefix: str, composed: Composed) -> None:
    feature = TINY[f"{prefix}feature"]
    assert_golden(f"{prefix}feature", composed.feature[:, :, : feature.shape[-1]].flatten(3).transpose(2, 3))
    assert_golden(f"{prefix}depth", composed.depth)
    assert_golden(f"{prefix}weights_sum", composed.alpha)


def outputs(image: Tensor, composed: Composed) -> dict[str, Tensor]:
    return {"image": image, "image_raw": composed.raw, "image_depth": composed.depth, "image_mask": composed.mask}


def test_mapping_and_truncation(network: TriGridGenerator) -> None:
    z, c = TINY["in.z"], TINY["in.c_cond"]
    assert_golden("ws.psi1", network.mapping(z, c))
    assert_golden("ws.psi0.7", network.mapping(z.double(), c, 0.7))
    cut = network.mapping(z, c, 0.7, 3)
    assert torch.equal(cut[:, 3:], network.mapping(z, c)[:, 3:])
    assert_golden("ws.psi0.7", torch.cat([cut[:, :3], cut[:, :3], cut[:, :2]], dim=1))


def test_a_missing_c_scale_switches_conditioning_off() -> None:
    config = tiny_config()
    del config["rendering_kwargs"]["c_scale"]
    without = TriGridGenerator.from_state_dict(PARAMS, **config)
    z, c = TINY["in.z"], TINY["in.c"]
    zeroed = tiny(c_gen_conditioning_zero=True)
    for one in (without, zeroed):
        assert torch.equal(one.mapping(z, c), tiny().mapping(z, torch.zeros_like(c)))
        assert torch.equal(one.offset(z, c), tiny().offset(z, torch.zeros_like(c)))


def test_the_offset_of_the_camera(network: TriGridGenerator) -> None:
    z, c = TINY["in.z"], TINY["in.c"]
    assert_golden("delta_c.psi1", network.offset(z, c))
    assert_golden("delta_c.psi0.7", network.offset(z, c, 0.7))
    assert_golden("c_new.psi1", moved(c, network.offset(z, c)))


def test_grids_and_background(network: TriGridGenerator, grids: Tensor) -> None:
    image = grids.flatten(1, 3)
    assert_golden("planes_strided", image[:, ::3, ::2, ::2])
    assert_golden("planes_checksum", torch.stack([image.sum(), image.abs().sum(), image.square().sum()]))
    assert_golden("bcg_image", network.background(TINY["in.ws"]))
    own = {name: map_.expand(2, 1, -1, -1) for name, map_ in network.own_noise().items()}
    assert_golden("bcg_image", network.background(TINY["in.ws"], own))


def test_random_noise_reaches_grids_and_background(network: TriGridGenerator, grids: Tensor) -> None:
    ws, maps = TINY["in.ws"], network.random_noise(2, torch.Generator().manual_seed(0))
    assert list(maps) == list(network.own_noise())
    for noise in (maps, "none"):
        assert (network.grids(ws, noise) - grids).abs().max() > 0.1
        assert (network.background(ws, noise) - TINY["bcg_image"]).abs().max() > 0.1


def test_a_background_latent_goes_on_with_its_last_row(network: TriGridGenerator) -> None:
    ws = TINY["in.ws"]
    short = torch.cat([ws[:, :3], ws[:, 2:3].expand(-1, 3, -1)], dim=1)
    assert torch.equal(network.background(ws[:, :3]), network.background(short))


def test_the_volume_with_fixed_draws(network: TriGridGenerator, grids: Tensor) -> None:
    assert_seen("", seen(network, grids, draws=draws()))
    assert_seen("det.", seen(network, grids))


@pytest.mark.parametrize(
    ("name", "rendering"),
    [
        ("no_crop", {"triplane_crop": None}),
        ("cull0.3", {"cull_clouds": 0.3}),
        ("binarize0.3", {"binarize_clouds": 0.3}),
        ("binarize0.3", {"binarize_clouds": 0.3, "cull_clouds": 0.9}),
        ("auto", {"ray_start": "auto", "ray_end": "auto"}),
        ("no_importance", {"depth_resolution_importance": 0}),
    ],
)
def test_every_renderer_option(grids: Tensor, name: str, rendering: dict[str, object]) -> None:
    """As a checkpoint's option, and as a call's."""
    network = tiny(**rendering)
    assert network.options == HeadRayOptions.read(network.rendering_kwargs)
    assert_seen(f"opt.{name}.", seen(network, grids, draws=draws()))
    assert_seen(f"opt.{name}.", seen(tiny(), grids, draws=draws(), options=network.options))


def test_images_and_gradients(network: TriGridGenerator) -> None:
    ws = TINY["in.ws"].clone().requires_grad_()
    image, composed = network(ws, CAMERA, draws=draws(), rules="official")
    for name, value in outputs(image, composed).items():
        assert_golden(name, value)
        if name != "image_depth":
            (gradient,) = torch.autograd.grad((value[:, 0] * TINY[f"in.R_{name}"]).sum(), ws, retain_graph=True)
            assert_golden(f"grad_ws.{name}", gradient)


def test_a_latent_for_the_background_alone(network: TriGridGenerator) -> None:
    image, composed = network(TINY["in.ws"], CAMERA, ws_bcg=TINY["in.ws_bcg"], draws=draws(), rules="official")
    assert_golden("ws_bcg.image", image)
    assert_golden("ws_bcg.image_raw", composed.raw)


def test_another_rendering_resolution_does_not_stay(network: TriGridGenerator) -> None:
    made = network(TINY["in.ws"], CAMERA, resolution=16, draws=draws("nrr16."), rules="official")
    for name, value in outputs(*made).items():
        assert_golden(f"nrr16.{name}", value)
    assert network.neural_rendering_resolution == RAYS


def test_the_original_forward_moves_the_camera(network: TriGridGenerator) -> None:
    made = network.generate(TINY["in.z"], TINY["in.c"], 0.7, draws=draws(), rules="official")
    for name, value in outputs(*made).items():
        assert_golden(f"forward.{name}", value)


def test_points_can_be_queried_and_are_not_cropped(network: TriGridGenerator, grids: Tensor) -> None:
    sigma, colours = network.field(grids)(TINY["in.points"])
    assert_golden("sample_mixed.sigma", sigma)
    assert_golden("sample_mixed.rgb", colours)


@pytest.mark.parametrize("activation", ["none", "sigmoid", "lrelu"])
def test_activations_without_background_and_raw_image_layer(activation: str) -> None:
    network = tiny(decoder_activation=activation, use_torgb_raw=False, use_background=False)
    assert network.background(TINY["in.ws"]) is None
    assert not any(name.startswith(("torgb", "bcg_synthesis")) for name in network.state_dict())
    image, composed = network(TINY["in.ws"], CAMERA, draws=draws(), rules="official")
    assert_golden(f"plain.{activation}.image", image)
    assert_golden(f"plain.{activation}.image_raw", composed.raw)


def test_a_sigmoid_before_a_background() -> None:
    image, composed = tiny(decoder_activation="sigmoid")(TINY["in.ws"], CAMERA, draws=draws(), rules="official")
    assert_golden("sigmoid_bcg_torgb.image", image)
    assert_golden("sigmoid_bcg_torgb.image_raw", composed.raw)


def test_double_precision_is_the_originals() -> None:
    """Its values are not kept, but how far the float32 goldens are from them, to three digits."""
    network = tiny().double()
    z, c = TINY["in.z"].double(), TINY["in.c"].double()
    exact = Draws(draws().coarse.double(), draws().fine.double())
    found = {
        "ws.psi1": network.mapping(z, TINY["in.c_cond"].double()),
        "ws.psi0.7": network.mapping(z, TINY["in.c_cond"].double(), 0.7),
        "delta_c.psi1": network.offset(z, c),
        "delta_c.psi0.7": network.offset(z, c, 0.7),
    }
    made = outputs(*network.generate(z, c, 0.7, draws=exact, rules="official"))
    found |= {f"forward.{name}": value for name, value in made.items()}
    for name, value in found.items():
        assert value.dtype == torch.float64
        away = (value.reshape(TINY[name].shape) - TINY[name]).abs().max().item()
        assert away == pytest.approx(error(name), rel=0.006), name


def test_views_share_grids_and_rules_hold_per_view(network: TriGridGenerator, grids: Tensor) -> None:
    cameras, ws = TINY["in.c"][None], TINY["in.ws"][:1]  # one subject seen twice
    background = network.background(ws)
    both = network.render(grids[:1], cameras, ws, background)
    images = network.enlarge(both, ws)
    assert images.shape == (1, 2, 3, 64, 64)
    for index in range(2):
        alone = network.render(grids[:1], cameras[:, index : index + 1], ws, background, rules="official")
        torch.testing.assert_close(both.feature[:, index], alone.feature[:, 0])
        torch.testing.assert_close(both.depth[:, index], alone.depth[:, 0])
        torch.testing.assert_close(images[:, index], network.enlarge(alone, ws)[:, 0], atol=1e-4, rtol=0)


def test_the_background_stays_on_the_screen(network: TriGridGenerator, grids: Tensor) -> None:
    """What is added to the rendering differs between cameras by the head's opacity alone."""
    ws, cameras = TINY["in.ws"][:1], TINY["in.c"][None]
    background = network.background(ws)
    bare = network.render(grids[:1], cameras, ws)
    whole = network.render(grids[:1], cameras, ws, background)
    added = (whole.feature - bare.feature) / (1.0 - bare.alpha)
    torch.testing.assert_close(added[:, 0], added[:, 1], atol=1e-4, rtol=1e-4)


def test_a_large_rendering_is_brought_to_the_super_resolution(network: TriGridGenerator, grids: Tensor) -> None:
    ws = TINY["in.ws"]
    image = network.enlarge(network.render(grids, CAMERA, ws, network.background(ws), resolution=20), ws)
    jagged = tiny(sr_antialias=False)
    other = jagged.enlarge(jagged.render(grids, CAMERA, ws, jagged.background(ws), resolution=20), ws)
    assert image.shape == (2, 1, 3, 64, 64)
    assert (image - other).abs().max() > 1e-2


def test_cameras_have_gradients() -> None:
    """Against finite differences in double precision, translation and focal length."""
    network = tiny().double()
    ws = TINY["in.ws"][:1].double()
    grids, camera = network.grids(ws), CAMERA[:1].double()
    options = replace(network.options, fine=0)
    exact = Draws(torch.full((1, 1, 1, 14), 0.37, dtype=torch.float64), torch.empty(1, 1, 1, 0, dtype=torch.float64))

    def value(moved: Tensor) -> Tensor:
        return network.render(grids, moved, ws, resolution=6, draws=exact, options=options).feature.square().mean()

    leaf = camera.clone().requires_grad_()
    value(leaf).backward()
    for entry in (3, 7, 11, 16):
        step = torch.zeros_like(camera)
        step[..., entry] = 1e-6
        with torch.no_grad():
            slope = (value(camera + step) - value(camera - step)) / 2e-6
        torch.testing.assert_close(leaf.grad[0, 0, entry], slope, rtol=1e-3, atol=1e-6)


def test_what_does_not_exist_is_refused() -> None:
    with pytest.raises(InputError, match="'auto' for both"):
        tiny(ray_start="auto")
    with pytest.raises(InputError, match="none, sigmoid, lrelu"):
        tiny(decoder_activation="tanh")
    with pytest.raises(InputError, match="triplane_crop is 'much'"):
        tiny(triplane_crop="much")
    with pytest.raises(InputError, match="'skip'"):
        TriGridGenerator.from_state_dict(PARAMS, **(tiny_config() | {"architecture": "resnet"}))
    with pytest.raises(InputError, match="gives 64"):
        TriGridGenerator.from_state_dict(PARAMS, **(tiny_config() | {"img_resolution": 512}))
    with pytest.raises(InputError, match="at least one slice"):
        tiny(triplane_depth=0)
