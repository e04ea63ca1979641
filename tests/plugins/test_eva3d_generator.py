"""EVA3D behind facednerf's interface: the contract, poses, what is kept between calls, cards and files."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from facednerf_eva3d import sights
from facednerf_eva3d.checkpoint import convert, generator_of
from facednerf_eva3d.generator import Clothed, Eva3d, adjusted, read
from facednerf_eva3d.network import Eva3dNetwork
from facednerf_eva3d.options import Eva3dOptions
from facednerf_eva3d.orbit import BodyOrbit
from facednerf_eva3d.plugin import build, register_generators, register_weights
from facednerf_eva3d.retuning import with_tensors
from facednerf_eva3d.synthetic import synthetic_body
from safetensors.torch import load_file, save_file
from skimage.measure import marching_cubes

from facednerf_core.cards import Card, LocalWeights, WeightsCard
from facednerf_core.compute import rng
from facednerf_core.errors import InputError, MissingWeights
from facednerf_core.interfaces import Generator
from facednerf_core.plugins import installed
from facednerf_core.scene import Latent
from facednerf_core.testing import GeneratorContract
from facednerf_core.views import View
from tests.plugins.test_eva3d_goldens import (
    CAMERA,
    GOLDEN,
    POSE,
    STYLE,
    close,
    cotangent,
    golden_body,
    golden_network,
    golden_tensors,
    tile,
)

SMALL = {"N_samples": 10, "res_HW": [32, 16]}


@cache
def small_network() -> Eva3dNetwork:
    """Random networks, narrow and of few layers, with colours and surfaces that can be seen."""
    network = Eva3dNetwork(8, 12, depths=[2, *[1] * 15], **SMALL).reset(rng(0, "eva3d"))
    state = network.state_dict()
    for name, value in state.items():
        if name.endswith("rgb_linear.weight"):
            value.mul_(20)
        if "sigma_linear" in name:
            value.mul_(0.05)
        if name == "renderer.sigmoid_beta":
            value.fill_(0.02)
    return Eva3dNetwork.from_state_dict(state, **SMALL)


def small() -> Eva3d:
    return Eva3d(small_network(), synthetic_body())


def arms_down() -> torch.Tensor:
    pose = torch.zeros(85)
    pose[3 * 16 + 2], pose[3 * 17 + 2] = -1.2, 1.2
    return pose


class TestContract(GeneratorContract):
    nominal = 1.0

    def make(self) -> Generator:
        return small()


class TestContractOfPoses(GeneratorContract):
    def make(self) -> Generator:
        return small()

    def view(self, generator: Generator, subjects: int, *angles: tuple[float, float]) -> View:
        camera = generator.orbit.view(*angles, subjects=subjects).camera
        return View(camera, arms_down().expand(subjects, len(angles), 85))


def golden() -> Eva3d:
    return Eva3d(golden_network(), golden_body())


GOLDEN_VIEW = View(CAMERA[None, None], POSE[None])


def test_the_golden_picture_comes_through_the_interface():
    generator = golden()
    latent = Latent(STYLE[:, None].repeat(1, 68, 1).requires_grad_())
    shot = generator.render(generator.synthesize(latent), GOLDEN_VIEW, jitter=None)
    close(tile(shot.image), "fixdir/rgb", 1e-4)
    close(shot.mask, "mask", 1e-4)
    close(shot.depth, "depth", 1e-3)
    (tile(shot.image) * cotangent()).sum().backward()
    gradient = latent.w.grad.sum(dim=1)
    assert (gradient - GOLDEN["grad_style"]).norm() < 5e-4 * GOLDEN["grad_style"].norm()


def test_the_latent_is_a_style_for_each_layer():
    generator = golden()
    assert generator.mean().w.shape == (1, 68, 128)
    assert generator.deviation().shape == (128,)
    mean, full, half = generator.mean().w, generator.sample(rng(5), 1.0).w, generator.sample(rng(5), 0.5).w
    torch.testing.assert_close(half - mean, 0.5 * (full - mean), atol=1e-5, rtol=0)
    z = torch.randn(1, 128, generator=rng(5))
    torch.testing.assert_close(full[0, 7], generator.network.style(z)[0])
    with pytest.raises(KeyError, match="b4"):
        generator.synthesize(Latent(mean, {"b4": torch.zeros(1)}))


def test_the_body_stands_upright_in_the_middle_and_faces_us():
    generator = small()
    scene = generator.synthesize(generator.mean())
    mask = generator.render(scene, generator.orbit.view((0.0, 0.0)), jitter=None, size=128).mask[0, 0, 0]
    rows = (mask > 0.5).any(dim=1).nonzero()[:, 0]
    assert 10 <= rows.min() <= 18, "it fills the picture's height but for a margin"
    assert 10 <= 127 - rows.max() <= 18
    torch.testing.assert_close(mask.sum(dim=0)[:32].sum(), mask.sum(dim=0)[32:].sum(), rtol=0.1, atol=0)
    raised = torch.zeros(85)
    raised[3 * 16 + 2] = 1.2  # its left arm, which we see on the right
    view = View(generator.orbit.view((0.0, 0.0)).camera, raised.expand(1, 1, 85))
    up = generator.render(scene, view, jitter=None, size=128).mask[0, 0, 0]
    assert up[:28, 34:].sum() > 20 + mask[:28, 34:].sum()
    assert up[:28, :30].sum() < 5 + mask[:28, :30].sum()


def test_pixels_are_square_in_pictures_that_are_not():
    label = BodyOrbit(aspect=2.0).camera(0.3, 0.1)
    assert label[20] == label[16] / 2
    sharp = with_tensors(small_network(), {"renderer.sigmoid_beta": torch.tensor([0.004])})
    generator = Eva3d(sharp, synthetic_body())
    scene = generator.synthesize(generator.mean())
    seen = (generator.render(scene, generator.orbit.view((0.0, 0.0)), jitter=None, size=256).mask[0, 0, 0] > 0.5).nonzero()
    metre = 128 * generator.orbit.focal / 11  # pixels, in a picture 128 wide, at the body's place
    height = synthetic_body().template[:, 1].max() - synthetic_body().template[:, 1].min()
    assert (seen[:, 0].max() - seen[:, 0].min() + 1).item() == pytest.approx(height.item() * metre, rel=0.03)
    head = seen[seen[:, 0] < seen[:, 0].min() + 20, 1]
    assert (head.max() - head.min() + 1).item() == pytest.approx(2 * 0.095 * metre, rel=0.25)


def test_jitter_belongs_to_its_view():
    generator = small()
    scene, view = generator.synthesize(generator.mean()), generator.orbit.view((0.0, 0.0), (0.3, 0.1))
    both = generator.render(scene, view, jitter=[rng(0, index) for index in range(2)]).image
    second = generator.render(scene, view[1:], jitter=[rng(0, 1)]).image
    assert torch.equal(both[:, 1:], second)
    with pytest.raises(ValueError, match="2 views"):
        generator.render(scene, view, jitter=[rng(0)])


def test_what_was_seen_is_kept_and_pictures_stay_the_same(monkeypatch):
    seen = []
    monkeypatch.setattr(Eva3dNetwork, "see", lambda *a, _see=Eva3dNetwork.see, **k: seen.append(1) or _see(*a, **k))
    generator = small()
    scene, view = generator.synthesize(generator.mean()), generator.orbit.view((0.0, 0.0), (0.2, 0.0))
    first = generator.render(scene, view, jitter=None).image
    assert len(seen) == 2
    tuned = generator.tuned({"renderer.vox_list.0.network.rgb_linear.bias": torch.ones(3)})
    again = [each.render(scene, view, jitter=None).image for each in (generator, tuned)]
    assert len(seen) == 2
    assert torch.equal(first, again[0])
    assert not torch.equal(first, again[1])
    posed = View(view.camera, arms_down().expand(1, 2, 85))
    assert not torch.equal(generator.render(scene, posed, jitter=None).image, first)
    generator.render(scene, view, jitter=[rng(0), rng(1)])
    generator.render(scene, View(view.camera.clone().requires_grad_()), jitter=None)
    assert len(seen) == 8


def test_only_the_last_few_are_kept():
    shelf = sights.Sights(synthetic_body(), kept=2)
    poses = [torch.full((85,), 0.01 * index) for index in range(3)]
    first, second, third = (shelf.stance(pose) for pose in poses)
    assert shelf.stance(poses[2]) is third
    assert shelf.stance(poses[1]) is second
    assert shelf.stance(poses[0]) is not first
    moving = poses[1].clone().requires_grad_()
    assert shelf.stance(moving).vertices.requires_grad


def test_a_gradient_reaches_the_pose():
    generator = small()
    pose = arms_down().expand(1, 1, 85).clone().requires_grad_()
    scene, camera = generator.synthesize(generator.sample(rng(1))), generator.orbit.view((0.0, 0.0)).camera
    generator.render(scene, View(camera, pose), jitter=None).image.square().sum().backward()
    assert pose.grad.isfinite().all()
    for numbers in (pose.grad[0, 0, 48:54], pose.grad[0, 0, 72:82], pose.grad[0, 0, 82:]):
        assert numbers.abs().max() > 0


def test_distance_and_density_are_those_of_the_body():
    generator = small()
    scene, view = generator.synthesize(generator.mean()), generator.orbit.view((0.0, 0.0))
    points = torch.tensor([[[0.0, -0.2, 0.0], [0.0, 0.45, 0.03], [0.0, 0.9, 0.0], [0.4, -0.2, 0.0]]])
    distance, density = generator.distance(scene, points, view), generator.density(scene, points, view)
    assert (distance[0, :2] < -0.02).all()
    assert (distance[0, 2:] == 1).all()
    assert (density[0, :2] > 30).all()
    assert (density[0, 2:] < 1e-6).all()
    posed = View(view.camera, torch.cat([torch.zeros(82), torch.tensor([0.4, 0.0, 0.0])]).expand(1, 1, 85))
    assert generator.distance(scene, points, posed)[0, 3] < -0.02, "the pose of the view counts"


def test_a_mesh_of_the_distance_is_where_the_rendering_ends():
    generator = small()
    scene, view = generator.synthesize(generator.mean()), generator.orbit.view((0.0, 0.0))
    axes = [torch.linspace(low, high, 24) for low, high in ((-0.25, 0.25), (-0.35, 0.3), (-0.2, 0.2))]
    points = torch.cartesian_prod(*axes)
    with torch.no_grad():
        field = generator.distance(scene, points[None], view)[0].view(24, 24, 24)
        shot = generator.render(scene, view, jitter=None, size=64)
    vertices, _, _, _ = marching_cubes(field.numpy(), 0.0)
    front = -0.2 + vertices[:, 2].max() * 0.4 / 23
    solid = shot.mask[0, 0, 0, 24:32, 14:18] > 0.999
    assert solid.all()
    depth = (shot.depth / shot.mask)[0, 0, 0, 24:32, 14:18].min().item()
    assert 11 - depth == pytest.approx(front, abs=0.03)


def test_tunable_tensors_are_the_networks_of_parts():
    names = set(golden().tunable())
    assert names < set(golden_tensors())
    assert "renderer.vox_list.9.network.pts_linears.7.gamma.weight" in names
    assert not any(name.startswith("style.") or name.endswith("sigmoid_beta") for name in names)


def test_tuning_shares_what_it_does_not_replace():
    generator = small()
    name = "renderer.vox_list.3.network.rgb_linear.bias"
    new = torch.ones(3, requires_grad=True)
    tuned = generator.tuned({name: new})
    assert dict(tuned.network.named_parameters())[name] is new
    assert tuned.network.style[0].weight is generator.network.style[0].weight
    assert dict(generator.network.named_parameters())[name] is not new
    assert torch.equal(tuned.mean().w, generator.mean().w)
    with pytest.raises(KeyError, match="no tensor"):
        with_tensors(generator.network, {"style.9.bias": new})
    with pytest.raises(ValueError, match=r"\(3,\)"):
        with_tensors(generator.network, {name: torch.ones(4)})


@pytest.fixture
def files(tmp_path: Path) -> LocalWeights:
    state = {name: value.half() for name, value in small_network().state_dict().items()}
    save_file(state, tmp_path / "small.safetensors")
    (tmp_path / "small.json").write_text(json.dumps({"class": "facednerf_eva3d.network.Eva3dNetwork", **SMALL}))
    card = WeightsCard("eva3d/small", "eva3d", "generator", "test", "Small.", orbit={"yaw": 0.4, "radius": 10.0})
    return LocalWeights(card, {"tensors": tmp_path / "small.safetensors", "config": tmp_path / "small.json"})


def eva3d_card() -> Card:
    cards: list[Card] = []
    register_generators(cards.append)
    assert [card.name for card in cards] == ["eva3d"]
    return cards[0]


def test_the_card_builds_from_half_precision_files(files):
    built = build(torch.device("cpu"), files, **eva3d_card().checked({"samples": 12, "height": 48}))
    assert isinstance(built, Eva3d)
    assert built.size == (48, 24)
    assert built.orbit == BodyOrbit(yaw=0.4, radius=10.0, aspect=2.0)
    assert built.near == 0.0
    assert build(torch.device("cpu"), files, rules="official").near is None
    shot = built.render(built.synthesize(built.mean()), built.orbit.view((0.0, 0.0)), jitter=None)
    assert shot.image.shape == (1, 1, 3, 48, 24)
    assert shot.image.dtype == torch.float32
    with pytest.raises(MissingWeights):
        build(torch.device("cpu"), None)


def test_a_card_that_says_another_shape_is_refused(files):
    wide = LocalWeights(replace(files.card, orbit={"aspect": 1.0}), files.paths)
    with pytest.raises(InputError, match=r"32 x 16.*aspect 2"):
        build(torch.device("cpu"), wide)


def test_the_aist_release_wears_a_scaled_body(files, tmp_path):
    state = Eva3dNetwork(8, 12, is_aist=True).reset(rng(0)).state_dict()
    save_file(state, tmp_path / "small.safetensors")
    (tmp_path / "small.json").write_text(json.dumps({**SMALL, "is_aist": True}))
    built = build(torch.device("cpu"), files)
    assert built.network.num_ws == 63
    beta = torch.zeros(10)
    beta[0] = 0.1
    torch.testing.assert_close(built.body.rest_joints(beta), 1.1 * synthetic_body().rest_joints(torch.zeros(10)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"samples": 1}, "samples"),
        ({"height": 2}, "8 pixels high"),
        ({"template_sdf": "sdf.npy"}, "template_sdf"),
        ({"rules": "mine"}, "rules"),
        ({"fine": 3}, "no option 'fine'"),
    ],
)
def test_options_are_validated(options, words):
    with pytest.raises(InputError, match=words):
        eva3d_card().checked(options)


def test_files_that_are_none_are_named(files):
    files["config"].write_text('{"N_sample": 3}')
    with pytest.raises(InputError, match=r"small\.json"):
        read(files["tensors"], files["config"])
    files["config"].write_text("not json")
    with pytest.raises(InputError, match=r"small\.json"):
        read(files["tensors"], files["config"])
    files["config"].write_text("{}")
    files["tensors"].write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"small\.safetensors"):
        read(files["tensors"], files["config"])


def test_adjusting_keeps_proportions_and_what_is_not_asked_for():
    network = Eva3dNetwork(8, 12)
    assert adjusted(network, Eva3dOptions()).size == (512, 256)
    assert adjusted(network, Eva3dOptions(height=100, samples=9)).size == (100, 50)
    assert network.samples == 9


def test_an_official_file_becomes_ours_without_the_body(tmp_path):
    state = {**golden_tensors(), "renderer.smpl_model.posedirs": torch.zeros(207, 20670)}
    torch.save({"g": {}, "d": {"x": torch.zeros(2)}, "g_ema": state}, tmp_path / "420000.pt")
    convert(tmp_path / "420000.pt", tmp_path)
    assert set(load_file(tmp_path / "eva3d.safetensors")) == set(golden_tensors())
    network = read(tmp_path / "eva3d.safetensors", tmp_path / "eva3d.json")
    assert (network.samples, network.size, network.num_ws, network.is_aist) == (28, (512, 256), 68, False)
    torch.save({"g_ema": Eva3dNetwork(8, 12, is_aist=True).state_dict()}, tmp_path / "340000.pt")
    convert(tmp_path / "340000.pt", tmp_path)
    assert read(tmp_path / "eva3d.safetensors", tmp_path / "eva3d.json").is_aist


class Evil:
    def __reduce__(self):
        return Path.touch, (Path("touched-by-evil"),)


def test_a_checkpoint_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"g_ema": {"x": Evil()}}, tmp_path / "evil.pt")
    with pytest.raises(InputError, match=r"evil\.pt"):
        generator_of(tmp_path / "evil.pt")
    assert not (tmp_path / "touched-by-evil").exists()
    torch.save({"g_ema": [1, 2]}, tmp_path / "list.pt")
    with pytest.raises(InputError, match="no generator"):
        generator_of(tmp_path / "list.pt")


def test_the_plugin_is_installed_with_its_cards():
    shelves = installed()
    assert shelves.generators["eva3d"].domains == ("body",)
    cards: list[WeightsCard] = []
    register_weights(cards.append)
    assert {card.name for card in cards} == {f"eva3d/{name}" for name in ("deepfashion", "shhq", "ubcfashion", "aist")}
    for card in cards:
        depths = Eva3dNetwork(is_aist=card.name.endswith("aist")).num_ws
        assert card.latent == (depths, 128)
        assert card.pose == 85


def test_a_scene_is_frozen_and_jittered_pictures_are_bitwise_reproducible():
    generator = small()
    scene = generator.synthesize(generator.sample(rng(2)))
    assert isinstance(scene, Clothed)
    with pytest.raises(AttributeError):
        scene.films = ()
    view = generator.orbit.view((0.1, 0.0))
    prints = {
        hashlib.sha256(generator.render(scene, view, jitter=[rng(3)]).image.numpy().tobytes()).hexdigest() for _ in range(2)
    }
    assert len(prints) == 1
