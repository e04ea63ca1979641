"""PanoHead behind facednerf's interface, with the golden shrunken generator."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from facednerf_eg3d.sampling import random_draws
from facednerf_panohead.generator import Head, PanoHead, adjusted, orbit_of, read
from facednerf_panohead.options import PanoHeadOptions
from facednerf_panohead.plugin import build, register_generators
from safetensors.torch import save_file

from facednerf_core.cards import Card, LocalWeights, WeightsCard
from facednerf_core.compute import rng
from facednerf_core.errors import InputError, MissingWeights
from facednerf_core.interfaces import Generator
from facednerf_core.scene import Latent
from facednerf_core.testing import GeneratorContract
from facednerf_core.views import Orbit
from tests.plugins.panohead_goldens import PARAMS, TINY, tiny, tiny_config

ORBIT = Orbit(pivot=(0.0, 0.0, 0.0), yaw=math.pi)
VIEW = ORBIT.view((0.0, 0.0), (0.3, 0.1))  # (1, 2, 25)


def jitter(count: int = 2) -> Sequence[torch.Generator]:
    return [rng(0, "jitter", index) for index in range(count)]


class TestPanoHead(GeneratorContract):
    nominal = 0.0  # random weights draw no heads

    def make(self) -> Generator:
        return PanoHead(tiny(), ORBIT)


class TestPanoHeadWithoutBackground(TestPanoHead):
    def make(self) -> Generator:
        network = tiny(use_background=False, use_torgb_raw=False, decoder_activation="sigmoid")
        return PanoHead(network, ORBIT)


@pytest.fixture(scope="module")
def panohead() -> PanoHead:
    return PanoHead(tiny(), ORBIT)


@pytest.fixture
def latent(panohead: PanoHead) -> Latent:
    return panohead.sample(rng(0, "sample"))


@pytest.fixture
def files(tmp_path: Path) -> LocalWeights:
    save_file({name: value.half() for name, value in PARAMS.items()}, tmp_path / "tiny.safetensors")
    config = {"class": "facednerf_panohead.network.TriGridGenerator", **tiny_config()}
    (tmp_path / "tiny.json").write_text(json.dumps(config))
    card = WeightsCard("panohead/tiny", "panohead", "generator", "test", "Tiny.", orbit={"pitch": 0.25})
    return LocalWeights(card, {"tensors": tmp_path / "tiny.safetensors", "config": tmp_path / "tiny.json"})


def test_the_image_is_finished_and_is_the_networks(panohead: PanoHead, latent: Latent) -> None:
    """Background composited, raw and finished image as the network gives them for the same draws."""
    found = panohead.render(panohead.synthesize(latent), VIEW, jitter=jitter())
    options = panohead.network.options
    draws = random_draws(jitter(), 144, options.coarse, options.fine, latent.w)
    image, composed = panohead.network(latent.w, VIEW.camera, draws=draws)
    assert torch.equal(found.image, image)
    assert torch.equal(found.mask, composed.alpha)
    assert torch.equal(found.depth, composed.depth)
    bare = panohead.network.render(panohead.network.grids(latent.w), VIEW.camera, latent.w, draws=draws)
    assert (panohead.network.enlarge(bare, latent.w) - image).abs().max() > 0.1


def test_it_looks_from_all_round(panohead: PanoHead, latent: Latent) -> None:
    """Every camera of a full turn finds the head at its distance, and none sees what another sees."""
    turn = [(2 * math.pi * step / 8, 0.1) for step in range(8)]
    shot = panohead.render(panohead.synthesize(latent), ORBIT.view(*turn), jitter=None)
    assert (shot.mask > 0.2).flatten(2).float().mean(-1).min() > 0.3
    middle = shot.depth[..., 4:8, 4:8]
    assert ((middle > 2.25) & (middle < 3.3)).all()
    for one in range(8):
        for other in range(one):
            assert (shot.image[:, one] - shot.image[:, other]).abs().max() > 0.1
    again = panohead.render(panohead.synthesize(latent), ORBIT.view((2 * math.pi, 0.1)), jitter=None)
    torch.testing.assert_close(again.image[:, 0], shot.image[:, 0], atol=2e-3, rtol=0)


def test_the_background_does_not_turn(panohead: PanoHead) -> None:
    """With nothing in the cube, the image is the same from everywhere."""
    empty = panohead.tuned({"decoder.net.2.bias": panohead.tunable()["decoder.net.2.bias"] - 100.0})
    shot = empty.render(empty.synthesize(panohead.mean()), ORBIT.view((0.0, 0.0), (3.0, 0.2)), jitter=None)
    assert shot.mask.max() < 1e-6
    torch.testing.assert_close(shot.image[:, 0], shot.image[:, 1], atol=1e-3, rtol=0)


def test_noise_maps_reach_grids_and_background(panohead: PanoHead, latent: Latent) -> None:
    assert list(latent.noise)[:2] == ["b4.conv1", "b8.conv0"]
    own = panohead.synthesize(latent)
    assert torch.equal(panohead.synthesize(Latent(latent.w)).grids, own.grids)
    for name, part in (("b16.conv0", "grids"), ("bcg_synthesis.b16.conv0", "background")):
        noise = dict(latent.noise)
        noise[name] = torch.zeros_like(noise[name]).requires_grad_()
        other = panohead.synthesize(Latent(latent.w, noise))
        for each in ("grids", "background"):
            moved = (getattr(other, each) - getattr(own, each)).abs().max()
            assert moved > 0.05 if each == part else moved == 0
        getattr(other, part).sum().backward()
        assert noise[name].grad.abs().sum() > 0
    with pytest.raises(KeyError, match=r"b99\.conv0"):
        panohead.synthesize(Latent(latent.w, {"b99.conv0": torch.zeros(4, 4)}))


def test_tuning_may_move_everything_that_a_latent_passes_through(panohead: PanoHead, latent: Latent) -> None:
    names = set(panohead.tunable())
    assert names < set(PARAMS)
    assert not any("mapping" in name for name in names)
    parts = ["backbone.synthesis.b4.const", "bcg_synthesis.b4.const", "torgb.bias", "decoder.net.0.weight"]
    moved = {name: (panohead.tunable()[name].detach() + 0.05).requires_grad_() for name in parts}
    tuned = panohead.tuned(moved)
    shot = tuned.render(tuned.synthesize(latent), VIEW, jitter=None)
    shot.image.square().sum().backward()
    assert all(value.grad.abs().sum() > 0 for value in moved.values())
    assert torch.equal(tuned.mean().w, panohead.mean().w)
    assert tuned.network.torgb.weight is panohead.network.torgb.weight


@pytest.mark.parametrize("size", [32, 96])
def test_another_size_casts_other_rays(panohead: PanoHead, latent: Latent, size: int) -> None:
    shot = panohead.render(panohead.synthesize(latent), VIEW, jitter=jitter(), size=size)
    assert shot.image.shape == (1, 2, 3, size, size)
    assert shot.depth.shape[-1] == shot.mask.shape[-1] == 12 * size // 64


def test_jitter_belongs_to_its_view(panohead: PanoHead, latent: Latent) -> None:
    scene = panohead.synthesize(latent)
    both = panohead.render(scene, VIEW, jitter=jitter()).image
    second = panohead.render(scene, VIEW[1:], jitter=[rng(0, "jitter", 1)]).image
    torch.testing.assert_close(both[:, 1:], second, atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="2 views"):
        panohead.render(scene, VIEW, jitter=jitter(1))


def test_density_is_what_is_rendered(panohead: PanoHead) -> None:
    """Cropped, and nothing outside the cube."""
    scene = panohead.synthesize(Latent(TINY["in.ws"]))
    assert isinstance(scene, Head)
    points = TINY["in.points"]
    density = panohead.density(scene, points, VIEW)
    sigma, _ = panohead.network.field(scene.grids)(points)
    kept = (points.abs() <= torch.tensor([0.4, 0.5, 0.4])).all(-1)
    assert 0 < kept.sum() < kept.numel()
    torch.testing.assert_close(density[kept], torch.nn.functional.softplus(sigma - 1)[kept])
    assert density[~kept].max() == 0


def test_the_card_builds_from_half_precision_files(files: LocalWeights, latent: Latent, panohead: PanoHead) -> None:
    cards: list[Card] = []
    register_generators(cards.append)
    assert [(card.name, card.domains) for card in cards] == [("panohead", ("face", "head"))]
    chosen = cards[0].checked({"rays": 8, "fine": 6, "crop": "off"})
    built = build(torch.device("cpu"), files, **chosen)
    assert isinstance(built, PanoHead)
    assert built.orbit == Orbit(radius=2.7, pivot=(0.0, 0.0, 0.0), yaw=math.pi, pitch=0.25)
    shot = built.render(built.synthesize(latent), VIEW, jitter=None)
    assert shot.image.dtype == torch.float32
    assert shot.depth.shape[-1] == 8
    options = built.network.options
    assert (options.coarse, options.fine, options.triplane_crop) == (14, 6, None)
    whole = build(torch.device("cpu"), files)
    image = whole.render(whole.synthesize(latent), VIEW, jitter=None).image
    assert (image - panohead.render(panohead.synthesize(latent), VIEW, jitter=None).image).abs().mean() < 0.03
    with pytest.raises(MissingWeights):
        build(torch.device("cpu"), None)


def test_options_change_what_the_checkpoint_says_only_where_they_are_set() -> None:
    own = tiny(cull_clouds=0.2, triplane_crop=0.05).options
    assert adjusted(tiny(cull_clouds=0.2, triplane_crop=0.05), PanoHeadOptions(faint=0.0)).options == own
    changed = adjusted(tiny(cull_clouds=0.2), PanoHeadOptions(crop=0.2, cull=0.4, coarse=5)).options
    assert (changed.triplane_crop, changed.cull_clouds, changed.coarse, changed.fine) == (0.2, 0.4, 5, 10)


def test_faint_samples_are_left_out_unless_the_user_wants_all() -> None:
    own = tiny().options
    assert own.faint == 0
    assert adjusted(tiny(), PanoHeadOptions()).options == replace(own, faint=1e-4)
    assert adjusted(tiny(), PanoHeadOptions(faint=0.0, crop=0.2)).options == replace(own, triplane_crop=0.2)
    assert adjusted(tiny(), PanoHeadOptions(faint=0.01, crop="off")).options == replace(own, faint=0.01, triplane_crop=None)


def test_faint_samples_change_next_to_nothing(latent: Latent, panohead: PanoHead) -> None:
    whole, seen = (
        generator.render(generator.synthesize(latent), VIEW, jitter=jitter())
        for generator in (panohead, PanoHead(adjusted(tiny(), PanoHeadOptions(faint=1e-3)), ORBIT))
    )
    assert 0 < (seen.image - whole.image).abs().max() < 0.02
    torch.testing.assert_close(seen.mask, whole.mask, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"coarse": 2}, "4 coarse samples"),
        ({"fine": -1}, "-1 fine samples"),
        ({"rays": 0}, "1 ray per side"),
        ({"cull": 1.5}, "0 to 1"),
        ({"faint": -1e-4}, "faint .* not -0.0001"),
        ({"faint": 1.0}, "faint .* not 1.0"),
        ({"crop": "some"}, "crop"),
        ({"zoom": 2}, "has no option 'zoom'"),
    ],
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


def test_the_orbit_is_all_round_and_looks_at_the_middle() -> None:
    """The checkpoint's own pivot is not what its scripts look at."""
    network = tiny(avg_camera_radius=2.75)
    assert network.rendering_kwargs["avg_camera_pivot"] == [0, 0, 0.2]
    assert orbit_of(network, {"focal": 4.2634}) == Orbit(radius=2.75, pivot=(0.0, 0.0, 0.0), focal=4.2634, yaw=math.pi)
    with pytest.raises(InputError, match="focal"):
        orbit_of(network, {"focal": 0.0})
