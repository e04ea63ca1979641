"""EG3D behind facednerf's interface, with the golden shrunken generator."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from facednerf_eg3d.generator import Eg3d, Planes, adjusted, orbit_of, read
from facednerf_eg3d.mapping import statistics
from facednerf_eg3d.options import Eg3dOptions
from facednerf_eg3d.plugin import build, register_generators
from facednerf_eg3d.retuning import with_tensors
from safetensors.torch import save_file

from facednerf_core.cards import Card, LocalWeights, WeightsCard
from facednerf_core.compute import rng
from facednerf_core.errors import InputError, MissingWeights
from facednerf_core.scene import Latent
from facednerf_core.views import Orbit
from tests.plugins.eg3d_goldens import TINY, stored, tiny, tiny_config

VIEW = Orbit().view((0.0, 0.0), (0.3, 0.1))  # (1, 2, 25)


def jitter(count: int = 2) -> Sequence[torch.Generator]:
    return [rng(0, "jitter", index) for index in range(count)]


@pytest.fixture(scope="module")
def eg3d() -> Eg3d:
    return Eg3d(tiny(), Orbit())


@pytest.fixture
def latent(eg3d: Eg3d) -> Latent:
    return eg3d.sample(rng(0, "sample"))


@pytest.fixture
def files(tmp_path: Path) -> LocalWeights:
    save_file({name: value.half() for name, value in stored("params.").items()}, tmp_path / "tiny.safetensors")
    config = {"class": "facednerf_eg3d.network.TriPlaneGenerator", **tiny_config()}
    (tmp_path / "tiny.json").write_text(json.dumps(config))
    card = WeightsCard("eg3d/tiny", "eg3d", "generator", "test", "Tiny.", orbit={"yaw": 0.4})
    return LocalWeights(card, {"tensors": tmp_path / "tiny.safetensors", "config": tmp_path / "tiny.json"})


def test_the_mean_and_deviation_are_those_of_w(eg3d: Eg3d) -> None:
    z = torch.randn(4000, 48, generator=rng(1))
    with torch.no_grad():
        w = eg3d.network.mapping(z, Orbit().camera().expand(4000, -1))[:, 0]
    assert eg3d.mean().w.shape == (1, 8, 64)
    torch.testing.assert_close(eg3d.mean().w[0, 3], w.mean(0), atol=0.1, rtol=0)
    torch.testing.assert_close(eg3d.deviation(), w.std(0), atol=0.05, rtol=0.1)


def test_the_axes_are_those_of_w_and_short_where_it_hardly_varies(eg3d: Eg3d) -> None:
    z = torch.randn(20_000, 48, generator=rng(2))
    with torch.no_grad():
        w = eg3d.network.mapping(z, Orbit().camera().expand(len(z), -1))[:, 0].double()
    axes = eg3d.axes().double()
    lengths = axes.norm(dim=1)
    kept = lengths > 1e-6 * lengths.max()
    directions = axes[kept] / lengths[kept, None]
    torch.testing.assert_close(directions @ directions.T, torch.eye(len(directions), dtype=torch.double), atol=1e-4, rtol=0)
    variance = ((w - w.mean(0)) @ directions.T).var(0)
    mean = w.var(0).mean()
    torch.testing.assert_close(lengths[kept], variance.clamp_max(2 * mean).sqrt(), atol=1e-3, rtol=0.075)
    assert eg3d.axes() is eg3d.axes()


def test_statistics_use_every_sample_they_are_told() -> None:
    mapping = tiny().backbone.mapping
    few = statistics(mapping, torch.zeros(25), samples=1500)
    again = statistics(mapping, torch.zeros(25), samples=1500)
    assert torch.equal(few.mean, again.mean)
    assert not torch.equal(few.mean, statistics(mapping, torch.zeros(25), samples=1000).mean)


def test_truncation_pulls_towards_the_mean(eg3d: Eg3d) -> None:
    mean, full, half = eg3d.mean().w, eg3d.sample(rng(5), 1.0).w, eg3d.sample(rng(5), 0.5).w
    torch.testing.assert_close(half - mean, 0.5 * (full - mean))
    torch.testing.assert_close(eg3d.sample(rng(5), 0.0).w, mean)


def test_shapes_and_ranges(eg3d: Eg3d, latent: Latent) -> None:
    rendering = eg3d.render(eg3d.synthesize(latent), VIEW, jitter=jitter())
    assert eg3d.size == (64, 64)
    assert rendering.image.shape == (1, 2, 3, 64, 64)
    assert rendering.depth.shape == rendering.mask.shape == (1, 2, 1, 16, 16)
    assert rendering.mask.min() >= 0
    assert rendering.mask.max() <= 1
    assert rendering.depth.min() > 2.2
    assert rendering.depth.max() < 3.5


def test_jitter_belongs_to_its_view(eg3d: Eg3d, latent: Latent) -> None:
    scene = eg3d.synthesize(latent)
    both = eg3d.render(scene, VIEW, jitter=jitter()).image
    second = eg3d.render(scene, VIEW[1:], jitter=[rng(0, "jitter", 1)]).image
    torch.testing.assert_close(both[:, 1:], second)
    assert (eg3d.render(scene, VIEW, jitter=None).image - both).abs().max() > 1e-4
    with pytest.raises(ValueError, match="2 views"):
        eg3d.render(scene, VIEW, jitter=jitter(1))


def test_subjects_side_by_side_equal_each_alone(eg3d: Eg3d) -> None:
    pair = TINY["in.ws"]
    view = Orbit().view((0.0, 0.0), (0.3, 0.1), subjects=2)
    both = eg3d.render(eg3d.synthesize(Latent(pair)), view, jitter=jitter())
    for index in range(2):
        one = eg3d.render(eg3d.synthesize(Latent(pair[index : index + 1])), VIEW, jitter=jitter())
        torch.testing.assert_close(both.image[index], one.image[0], atol=1e-4, rtol=0)
        torch.testing.assert_close(both.depth[index], one.depth[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [32, 96])
def test_another_size(eg3d: Eg3d, latent: Latent, size: int) -> None:
    scene = eg3d.synthesize(latent)
    other = eg3d.render(scene, VIEW, jitter=jitter(), size=size)
    assert other.image.shape == (1, 2, 3, size, size)
    assert other.depth.shape[-1] == size // 4
    own = eg3d.render(scene, VIEW, jitter=None, size=64)
    assert torch.equal(own.image, eg3d.render(scene, VIEW, jitter=None).image)


def test_noise_maps_reach_the_planes(eg3d: Eg3d, latent: Latent) -> None:
    assert list(latent.noise)[:2] == ["b4.conv1", "b8.conv0"]
    own = eg3d.synthesize(latent).planes
    assert torch.equal(eg3d.synthesize(Latent(latent.w)).planes, own)
    noise = dict(latent.noise)
    noise["b16.conv0"] = torch.zeros_like(noise["b16.conv0"]).requires_grad_()
    other = eg3d.synthesize(Latent(latent.w, noise)).planes
    assert (other - own).abs().max() > 0.1
    other.sum().backward()
    assert noise["b16.conv0"].grad.abs().sum() > 0
    with pytest.raises(KeyError, match=r"b99\.conv0"):
        eg3d.synthesize(Latent(latent.w, {"b99.conv0": torch.zeros(4, 4)}))


def test_tuning_moves_a_copy_only(eg3d: Eg3d, latent: Latent) -> None:
    names = ["decoder.net.2.bias", "backbone.synthesis.b16.conv0.weight", "superresolution.block1.torgb.bias"]
    base = eg3d.render(eg3d.synthesize(latent), VIEW, jitter=None).image
    before = {name: value.clone() for name, value in eg3d.network.state_dict().items()}
    moved = {name: (eg3d.tunable()[name].detach() + 0.05).requires_grad_() for name in names}
    tuned = eg3d.tuned(moved)
    image = tuned.render(tuned.synthesize(latent), VIEW, jitter=None).image
    assert (image - base).abs().max() > 1e-3
    image.square().sum().backward()
    assert all(value.grad.abs().sum() > 0 for value in moved.values())
    assert all(parameter.grad is None for parameter in eg3d.network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in eg3d.network.state_dict().items())
    assert torch.equal(eg3d.render(eg3d.synthesize(latent), VIEW, jitter=None).image, base)
    untouched = tuned.network.backbone.synthesis.b8.conv0.weight
    assert untouched is eg3d.network.backbone.synthesis.b8.conv0.weight
    assert torch.equal(tuned.mean().w, eg3d.mean().w)
    assert eg3d.tuned({}) is eg3d


def test_tunable_names_are_official_and_leave_the_mapping_out(eg3d: Eg3d) -> None:
    names = set(eg3d.tunable())
    assert names < set(stored("params."))
    assert not any("mapping" in name for name in names)
    assert "backbone.synthesis.b4.const" in names


def test_replacing_what_is_not_there_is_refused() -> None:
    network = tiny()
    with pytest.raises(KeyError, match="no tensor"):
        with_tensors(network, {"decoder.net.7.bias": torch.zeros(3)})
    with pytest.raises(ValueError, match=r"\(64,\)"):
        with_tensors(network, {"decoder.net.0.bias": torch.zeros(3)})


def test_density_stands_inside_the_box_and_agrees_with_the_rendering(eg3d: Eg3d) -> None:
    scene = eg3d.synthesize(Latent(TINY["in.ws"]))
    points = torch.cat([TINY["in.points"].clamp(-0.5, 0.5), torch.full((2, 1, 3), 0.6)], dim=1)
    density = eg3d.density(scene, points, VIEW)
    sigma, _ = eg3d.network.field(scene.planes)(points)
    assert density.shape == (2, 201)
    torch.testing.assert_close(density[:, :-1], torch.nn.functional.softplus(sigma - 1)[:, :-1])
    assert torch.equal(density[:, -1], torch.zeros(2))


def test_the_card_builds_from_half_precision_files(files: LocalWeights, latent: Latent, eg3d: Eg3d) -> None:
    cards: list[Card] = []
    register_generators(cards.append)
    assert [card.name for card in cards] == ["eg3d"]
    built = build(torch.device("cpu"), files, **cards[0].checked({"rays": 8, "fine": 6}))
    assert isinstance(built, Eg3d)
    assert built.orbit == Orbit(yaw=0.4)
    rendering = built.render(built.synthesize(latent), VIEW, jitter=None)
    assert rendering.image.dtype == torch.float32
    assert rendering.depth.shape[-1] == 8
    assert (built.network.options.coarse, built.network.options.fine) == (14, 6)
    whole = build(torch.device("cpu"), files)
    image = whole.render(whole.synthesize(latent), VIEW, jitter=None).image
    assert (image - eg3d.render(eg3d.synthesize(latent), VIEW, jitter=None).image).abs().mean() < 0.02
    with pytest.raises(MissingWeights):
        build(torch.device("cpu"), None)


def test_faint_samples_are_left_out_unless_the_user_wants_all() -> None:
    own = tiny().options
    assert own.faint == 0
    assert adjusted(tiny(), Eg3dOptions()).options == replace(own, faint=1e-4)
    assert adjusted(tiny(), Eg3dOptions(faint=0.0)).options == own


def test_faint_samples_change_next_to_nothing(latent: Latent, eg3d: Eg3d) -> None:
    whole, seen = (
        generator.render(generator.synthesize(latent), VIEW, jitter=jitter())
        for generator in (eg3d, Eg3d(adjusted(tiny(), Eg3dOptions(faint=1e-3)), Orbit()))
    )
    assert 0 < (seen.image - whole.image).abs().max() < 0.02
    torch.testing.assert_close(seen.mask, whole.mask, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [({"coarse": 2}, "coarse"), ({"faint": -1e-4}, "faint .* not -0.0001"), ({"faint": 1.0}, "faint .* not 1.0")],
)
def test_options_are_validated(wrong: dict[str, object], complaint: str) -> None:
    cards: list[Card] = []
    register_generators(cards.append)
    with pytest.raises(InputError, match=complaint):
        cards[0].checked(wrong)


def test_an_unreadable_config_is_named(files: LocalWeights) -> None:
    files["config"].write_text("not json")
    with pytest.raises(InputError, match=r"tiny\.json"):
        read(files["tensors"], files["config"])


def test_the_orbit_comes_from_the_card_then_the_checkpoint() -> None:
    network = tiny(avg_camera_radius=1.7, avg_camera_pivot=[0, 0, 0])
    assert orbit_of(network, {"focal": 1.7074}) == Orbit(radius=1.7, pivot=(0.0, 0.0, 0.0), focal=1.7074)
    with pytest.raises(InputError, match="focal"):
        orbit_of(network, {"focal": 0.0})


def test_a_scene_is_frozen(eg3d: Eg3d, latent: Latent) -> None:
    scene = eg3d.synthesize(latent)
    assert isinstance(scene, Planes)
    with pytest.raises(AttributeError):
        scene.w = latent.w
