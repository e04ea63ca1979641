"""The whole EG3D network against the golden shrunken generator, and its tensors against the official lists."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from facednerf_eg3d.network import TriPlaneGenerator
from facednerf_eg3d.sampling import middle_draws
from facednerf_eg3d.superresolution import SuperResolution, design

from facednerf_core.errors import InputError
from tests.plugins.eg3d_goldens import GOLDEN, TINY, assert_golden, draws, stored, tiny, tiny_config

CAMERA = TINY["in.c"][:, None]  # (2, 1, 25)


@pytest.fixture(scope="module")
def network() -> TriPlaneGenerator:
    return tiny()


@pytest.fixture(scope="module")
def planes(network: TriPlaneGenerator) -> torch.Tensor:
    return network.planes(TINY["in.ws"])


def test_mapping_and_truncation(network: TriPlaneGenerator) -> None:
    z, c = TINY["in.z"], TINY["in.c_cond"]
    assert_golden("ws.psi1", network.mapping(z, c))
    assert_golden("ws.psi0.7", network.mapping(z.double(), c, 0.7))
    assert_golden("ws.psi0.7_cutoff3", network.mapping(z, c, 0.7, 3))
    assert_golden("ws.psi1_czero", tiny(c_gen_conditioning_zero=True).mapping(z, c))


def test_a_missing_c_scale_switches_conditioning_off() -> None:
    config = tiny_config()
    rendering = dict(config["rendering_kwargs"])
    del rendering["c_scale"]
    unconditioned = TriPlaneGenerator.from_state_dict(stored("params."), **(config | {"rendering_kwargs": rendering}))
    assert_golden("ws.psi1_czero", unconditioned.mapping(TINY["in.z"], TINY["in.c_cond"]))


def test_planes(network: TriPlaneGenerator, planes: torch.Tensor) -> None:
    assert_golden("planes", planes)
    assert_golden("planes_noise_none", network.planes(TINY["in.ws"], "none").flatten(1, 2)[:, ::7, ::5, ::5])
    own = {name: map_.expand(2, 1, -1, -1) for name, map_ in network.backbone.synthesis.own_noise().items()}
    assert_golden("planes", network.planes(TINY["in.ws"], own))


def test_random_noise_changes_the_planes(network: TriPlaneGenerator, planes: torch.Tensor) -> None:
    maps = network.backbone.synthesis.random_noise(2, torch.Generator().manual_seed(0))
    assert list(maps) == list(network.backbone.synthesis.own_noise())
    assert (network.planes(TINY["in.ws"], maps) - planes).abs().max() > 0.1


def test_the_volume_with_fixed_draws(network: TriPlaneGenerator, planes: torch.Tensor) -> None:
    volume = network.render(planes, CAMERA, draws=draws(), rules="official")
    assert_golden("feature", volume.feature.flatten(3).transpose(2, 3))
    assert_golden("depth", volume.depth)
    assert_golden("weights_sum", volume.alpha)
    middle = network.render(planes, CAMERA, rules="official")
    assert_golden("det.feature", middle.feature.flatten(3).transpose(2, 3))
    assert_golden("det.depth", middle.depth)
    assert_golden("det.weights_sum", middle.alpha)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("auto", {"near": None, "far": None}),
        ("auto_miss", {"near": None, "far": None, "box_warp": 0.5}),
        ("disparity", {"disparity": True}),
        ("white_back", {"white_back": True}),
        ("no_importance", {"fine": 0}),
        ("box_warp1.6", {"box_warp": 1.6}),
    ],
)
def test_every_renderer_option(planes: torch.Tensor, name: str, changes: dict[str, object]) -> None:
    rendering = {"near": "ray_start", "far": "ray_end", "fine": "depth_resolution_importance"}
    rendering |= {"disparity": "disparity_space_sampling"}
    kwargs = {rendering.get(key, key): "auto" if value is None else value for key, value in changes.items()}
    network = tiny(**kwargs)
    assert network.options == replace(tiny().options, **changes)
    volume = network.render(planes, CAMERA, draws=draws(), rules="official")
    assert_golden(f"opt.{name}.feature", volume.feature[:, :, :6].flatten(3).transpose(2, 3))
    assert_golden(f"opt.{name}.depth", volume.depth)
    assert_golden(f"opt.{name}.weights_sum", volume.alpha)


def test_one_limit_alone_is_refused() -> None:
    with pytest.raises(InputError, match="'auto' for both"):
        tiny(ray_start="auto")


def test_images_and_gradients(network: TriPlaneGenerator) -> None:
    ws = TINY["in.ws"].clone().requires_grad_()
    image, volume = network(ws, CAMERA, draws=draws(), rules="official")
    for name, value in {"image": image, "image_raw": volume.raw, "image_depth": volume.depth}.items():
        assert_golden(name, value)
        (gradient,) = torch.autograd.grad((value[:, 0] * TINY[f"in.R_{name}"]).sum(), ws, retain_graph=True)
        assert_golden(f"grad_ws.{name}", gradient)


def test_mapping_conditioned_on_the_rendered_camera(network: TriPlaneGenerator) -> None:
    ws = network.mapping(TINY["in.z"], TINY["in.c"], 0.7, 14)
    image, _ = network(ws, CAMERA, draws=draws(), rules="official")
    assert_golden("forward.image", image)


@pytest.mark.parametrize("resolution", [12, 20])
def test_other_rendering_resolutions(network: TriPlaneGenerator, planes: torch.Tensor, resolution: int) -> None:
    prefix = f"nrr{resolution}."
    volume = network.render(planes, CAMERA, resolution=resolution, draws=draws(prefix), rules="official")
    assert_golden(f"{prefix}image_raw", volume.raw)
    assert_golden(f"{prefix}image_depth", volume.depth)
    assert_golden(f"{prefix}image", network.enlarge(volume.feature, TINY["in.ws"]))


def test_points_can_be_queried(network: TriPlaneGenerator, planes: torch.Tensor) -> None:
    sigma, colours = network.field(planes)(TINY["in.points"])
    assert_golden("sample_mixed.sigma", sigma)
    assert_golden("sample_mixed.rgb", colours)


def test_the_2x_super_resolution_keeps_the_raw_image() -> None:
    feature = TINY["sr_noup.in.feature"].clone().requires_grad_()
    plan = replace(design("training.superresolution.SuperresolutionHybrid2X"), input_resolution=16, widths=(12, 8))
    enlarger = SuperResolution(plan, w_dim=64, clamp=256.0)
    state = stored("sr_noup.params.")
    assert sorted(state) == sorted(enlarger.state_dict())
    enlarger.load_state_dict(state)
    w = TINY["in.ws"][:, -1]
    image = enlarger(feature, w, {})
    assert_golden("sr_noup.image", image)
    assert_golden("sr_noup.image_noise_const", enlarger(feature, w, enlarger.own_noise()))
    assert torch.equal(feature, TINY["sr_noup.in.feature"])
    image.sum().backward()  # the original's in-place addition forbids this


def test_views_share_planes_and_rules_hold_per_view(network: TriPlaneGenerator, planes: torch.Tensor) -> None:
    cameras = TINY["in.c"][None]  # (1, 2, 25): one subject seen twice
    both = network.render(planes[:1], cameras)
    for index in range(2):
        alone = network.render(planes[:1], cameras[:, index : index + 1], rules="official")
        torch.testing.assert_close(both.feature[:, index], alone.feature[:, 0])
        torch.testing.assert_close(both.depth[:, index], alone.depth[:, 0])
    images = network.enlarge(both.feature, TINY["in.ws"][:1])
    assert images.shape == (1, 2, 3, 64, 64)
    torch.testing.assert_close(images[:, 1:], network.enlarge(both.feature[:, 1:], TINY["in.ws"][:1]))


def test_automatic_limits_hold_per_view() -> None:
    network = tiny(ray_start="auto", ray_end="auto", box_warp=0.5)
    planes, cameras = network.planes(TINY["in.ws"][:1]), TINY["in.c"][None]
    together = network.render(planes, cameras)
    alone = network.render(planes, cameras[:, 1:], rules="official")
    torch.testing.assert_close(together.depth[:, 1:], alone.depth)


def test_the_way_of_other_devices_gives_the_same(
    network: TriPlaneGenerator, planes: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole, and in portions, which only happens without gradient."""
    points = TINY["in.points"]
    whole = network._decoded(planes.detach(), points)
    assert_golden("sample_mixed.sigma", whole[0])
    assert_golden("sample_mixed.rgb", whole[1])
    monkeypatch.setattr("facednerf_eg3d.network.POINTS_AT_ONCE", 90)
    sizes: list[int] = []
    hook = network.decoder.register_forward_pre_hook(lambda _module, given: sizes.append(given[0].shape[1]))
    with torch.no_grad():
        for part, expected in zip(network._decoded(planes, points), whole, strict=True):
            torch.testing.assert_close(part, expected)
    hook.remove()
    assert sizes == [90, 90, 20]


def test_cameras_have_gradients(network: TriPlaneGenerator, planes: torch.Tensor) -> None:
    """Against finite differences of the translation, in double precision, with a field that the planes give."""
    double = tiny().double()
    camera = CAMERA[:1].double()
    still = planes[:1].double()
    draw = middle_draws(14, 0, camera)
    options = replace(double.options, fine=0)

    def value(moved: torch.Tensor) -> torch.Tensor:
        return double.render(still, moved, resolution=6, draws=draw, options=options).raw.square().mean()

    leaf = camera.clone().requires_grad_()
    value(leaf).backward()
    for entry in (3, 7, 11, 16):
        step = torch.zeros_like(camera)
        step[..., entry] = 1e-6
        with torch.no_grad():
            slope = (value(camera + step) - value(camera - step)) / 2e-6
        torch.testing.assert_close(leaf.grad[0, 0, entry], slope, rtol=1e-3, atol=1e-6)


def _official(name: str) -> tuple[dict[str, object], dict[str, tuple[int, ...]], list[str]]:
    configs = json.loads((GOLDEN / "state_dict_keys.json").read_text())["configs"]
    tensors = {key: tuple(entry["shape"]) for key, entry in configs["ffhq512_128"]["tensors"].items()}
    kinds = [key for key, entry in configs["ffhq512_128"]["tensors"].items() if entry["kind"] == "parameter"]
    changed = configs[name].get("tensors_that_differ", {})
    tensors |= {key: tuple(entry["shape"]) for key, entry in changed.items()}
    return configs[name]["init_kwargs"], tensors, kinds


@pytest.mark.parametrize("name", ["ffhq512_128", "afhqcats512_128", "shapenetcars128_64"])
def test_tensors_are_the_official_ones_one_to_one(name: str) -> None:
    config, tensors, parameters = _official(name)
    with torch.device("meta"):
        network = TriPlaneGenerator(**config)
    found = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    assert found == tensors
    assert sorted(key for key, _ in network.named_parameters()) == sorted(parameters)
    assert network.num_ws == 14
    if name == "ffhq512_128":
        assert list(found) == list(tensors)  # and in the official order


def test_a_wrong_state_dict_is_refused_by_name() -> None:
    state = stored("params.")
    del state["decoder.net.0.bias"]
    state["decoder.net.1.bias"] = torch.zeros(3)
    state["backbone.mapping.w_avg"] = torch.zeros(3)
    state["backbone.synthesis.b8.resample_filter"] = torch.ones(4, 4) / 16
    with pytest.raises(InputError) as caught:
        TriPlaneGenerator.from_state_dict(state, **tiny_config())
    message = str(caught.value)
    for part in (
        "decoder.net.0.bias is missing",
        "decoder.net.1.bias is unknown",
        "w_avg is (3,) instead of (64,)",
        "b8.resample_filter is not the filter",
    ):
        assert part in message


def test_an_unknown_argument_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="no argument z_dims, sigma; it has: z_dim, c_dim"):
        TriPlaneGenerator.from_state_dict(stored("params."), **tiny_config(), z_dims=3, sigma=1)


def test_an_unknown_super_resolution_is_refused() -> None:
    with pytest.raises(InputError, match="there are: 8XDC, 8X, 4X, 2X"):
        tiny(superresolution_module="training.superresolution.SuperresolutionHybrid16X")


def test_widths_of_a_shrunken_network_are_read_from_its_tensors() -> None:
    """So that the arguments that the JSON beside a golden gives are enough."""
    facts = json.loads((GOLDEN / "golden_tiny.json").read_text())
    network = TriPlaneGenerator.from_state_dict(stored("params."), **facts["init_kwargs"])
    assert network.neural_rendering_resolution == 64  # the official constructor's; a checkpoint stores another beside it
    ws = TINY["in.ws"]
    image, _ = network(ws, CAMERA, draws=draws(), rules="official", resolution=16)
    assert_golden("image", image)


def test_noise_of_the_super_resolution_can_be_given(network: TriPlaneGenerator, planes: torch.Tensor) -> None:
    feature, ws = network.render(planes, CAMERA).feature, TINY["in.ws"]
    silent = network.enlarge(feature, ws)
    assert torch.equal(silent, network.enlarge(feature, ws, "none"))
    own = network.enlarge(feature, ws, "const")
    assert (own - silent).abs().max() > 1e-3
    assert torch.equal(own, tiny(superresolution_noise_mode="const").enlarge(feature, ws))
    maps = network.superresolution.own_noise()
    each = {name: torch.stack([value, -value])[:, None] for name, value in maps.items()}  # another for each image
    found = network.enlarge(feature, ws, each)
    torch.testing.assert_close(found[:1], own[:1])
    assert (found[1:] - own[1:]).abs().max() > 1e-3


def test_the_optional_label_buffer_is_ignored() -> None:
    state = stored("params.") | {"dataset_label_std": torch.ones(25)}
    assert TriPlaneGenerator.from_state_dict(state, **tiny_config()).num_ws == 8


def test_a_new_network_trains() -> None:
    network = TriPlaneGenerator(
        z_dim=8,
        w_dim=8,
        img_resolution=16,
        channel_base=64,
        channel_max=8,
        plane_resolution=8,
        plane_features=8,
        decoder_hidden=16,
        sr_input_resolution=8,
        sr_widths=(6, 4),
        neural_rendering_resolution=8,
        rendering_kwargs={
            "superresolution_module": "2X",
            "depth_resolution": 6,
            "depth_resolution_importance": 6,
            "ray_start": 2.25,
            "ray_end": 3.3,
            "box_warp": 1,
            "white_back": True,
            "c_scale": 1.0,
        },
    )
    torch.manual_seed(0)
    ws = network.mapping(torch.randn(2, 8), TINY["in.c"])
    image, volume = network(ws, CAMERA)
    assert image.shape == (2, 1, 3, 16, 16)
    (image.square().mean() + volume.depth.mean()).backward()
    silent = [name for name, value in network.named_parameters() if value.grad is None]
    assert silent == [name for name in silent if name.startswith("superresolution") and name.endswith("noise_strength")]
