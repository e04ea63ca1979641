"""The light network's recipe: lights that a camera sees, pairs that tell the truth, prints that keep it, files for Dpr."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from facednerf_dpr.hourglass import LEVELS, Hourglass
from facednerf_dpr.lab import lightness
from facednerf_dpr.relighter import Dpr, read
from facednerf_starter.train import draws, lamps, lightmeter
from facednerf_starter.train.__main__ import main
from facednerf_starter.train.light import blame, skip_count
from facednerf_starter.train.prints import PLAIN, STOPS, Prints, mirrored, printed
from facednerf_starter.train.shards import Shards
from facednerf_starter.train.studio import PITCH, YAW, LightReader, Pairs, Studio, by_world, seen_from
from facednerf_starter.world import light as lighting
from facednerf_starter.world.attributes import decode, draw
from facednerf_starter.world.cameras import look
from facednerf_starter.world.render import render
from torch import Tensor

from facednerf_core import light
from facednerf_core.interfaces import Relighter
from facednerf_core.plugins import installed
from facednerf_core.testing import RelighterContract
from facednerf_core.views import angles
from facednerf_core.weights import Registry

CPU = torch.device("cpu")
TINY = ["--device", "cpu", "--tiny", "--batch", "8"]


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of the recipe, with a tiny generator with a designed W, hardly trained."""
    root = tmp_path_factory.mktemp("light")
    words = ["--data", str(data), "--out", str(root), "--held", "3", *TINY]
    main(["mapping", "--out", str(root), "--designed", *TINY, "--steps", "2"])
    main(["generator", *words, "--steps", "1", "--mapping", str(root / "mapping.safetensors")])
    main(["light", *words, "--steps", "2", "--generator", str(root / "generator.safetensors")])
    return root


@pytest.fixture(scope="module")
def studio() -> Studio:
    """Two heads under two lights each, 32 px."""
    return by_world(decode(draw(5, 0, 2)), seen_from(1, "test", 2), lamps.drawn(2, 2, 1, "test"), 32, CPU)


def axes(camera: Tensor, directions: Tensor) -> Tensor:
    """World directions (..., 3) on the light axes of one camera (25,): right, away, up."""
    right, down, forward = camera[:16].unflatten(0, (4, 4))[:3, :3].unbind(-1)
    return torch.stack([directions @ right, directions @ forward, -directions @ down], dim=-1)


def test_what_a_camera_sees_of_a_light_shades_as_the_world_does() -> None:
    camera = look(torch.tensor(0.5), torch.tensor(-0.2))
    lights = lamps.drawn(1, 4, 3, "test")[0]
    normals = torch.nn.functional.normalize(draws.normal((50, 3), draws.key(0, "normals")), dim=1)
    ours = light.shading(axes(camera, normals), lamps.seen(lights, camera)[:, None])  # (4, 50)
    theirs = lighting.shade(normals.expand(4, -1, -1), lights) @ torch.tensor(lamps.LUMINANCE)
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_lights_are_the_worlds_and_such_as_have_a_name() -> None:
    lights = lamps.drawn(40, 4, 1, "test")
    assert lights.shape == (40, 4, 3, 9)
    assert torch.equal(lights, lamps.drawn(40, 4, 1, "test"))
    assert not torch.equal(lights, lamps.drawn(40, 4, 1, "other"))
    assert (lights[:, 2:].std(2) == 0).all()  # without a colour
    assert (lights[:, :2].std(2) > 0).any()
    towards = lighting.key_direction(lights[:, 2:].flatten(0, 1))
    named = light.named("top-left")
    one = lamps.like_named(4000, 1, 1, "many")[:, 0, 0]
    near = torch.cosine_similarity(one, named, dim=1).max()
    assert near > 0.99  # a light with a name is one of them
    assert towards[:, 1].max() <= math.sin(math.radians(80)) + 1e-5
    usual = lamps.of_world(2000, 1, 1, "usual")[:, 0].mean((0, 1))
    assert usual[0] > 3 * usual[1:].abs().max() * 0.5


def test_a_studio_shows_a_head_under_each_of_its_lights(studio: Studio) -> None:
    assert studio.image.shape == (2, 2, 3, 32, 32)
    assert studio.mask.shape == (2, 2, 1, 32, 32)
    lights, cameras = lamps.drawn(2, 2, 1, "test"), seen_from(1, "test", 2)
    own = render(decode(draw(5, 0, 2)), cameras, 32, light=lights[:, 1])
    assert torch.equal(studio.image[:, 1], ((own.image[:, 0].clamp(-1, 1) + 1) * 127.5).round().byte())
    assert torch.allclose(studio.light, lamps.seen(lights, cameras))
    yaw, pitch = angles(seen_from(1, "many", 60))
    assert 0.4 < yaw.abs().max() < YAW + 0.1
    assert pitch.abs().max() < PITCH + 0.1


def test_a_pair_is_one_head_under_two_lights(data: Path, studio: Studio) -> None:
    shards = Shards(data, held_every=3)
    reader = LightReader(shards, [studio_of(shards)], CPU)
    pairs = reader.read(16, draws.key(1, "test"))
    assert pairs.lightness.shape == (32, 1, 64, 64)
    assert pairs.light.shape == (32, 9)
    assert torch.equal(pairs.mask[:16], pairs.mask[16:])
    assert torch.equal(pairs.light[:4], pairs.light[16:20])  # twice the same view of a shard
    assert (pairs.light[4:16] != pairs.light[20:]).any(1).all()
    own = lamps.seen(shards.field("light").take(shards.training).unflatten(1, (1, 3, 9)),
                     shards.field("cameras").take(shards.training)).flatten(0, 1)  # fmt: skip
    assert all((own == one).all(1).any() for one in pairs.light[:4])  # of training heads


def studio_of(shards: Shards) -> Studio:
    heads = decode(shards.field("z").take(shards.training[:2]))
    return by_world(heads, seen_from(1, "test", 2), lamps.drawn(2, 3, 1, "test"), shards.size, CPU)


def test_prints_keep_the_light_of_what_they_show() -> None:
    """A matte ball: after a print its shading, and so the light that fits it best, is the print's light."""
    size, count = 64, 24
    ours = lamps.seen(lamps.like_named(2 * count, 1, 1, "ball")[:, 0], look(torch.tensor(0.0), torch.tensor(0.0)))
    across = torch.linspace(-1, 1, size) * 1.4
    x, z = across[None, :].expand(size, size), -across[:, None].expand(size, size)
    ball = (x.square() + z.square() <= 1)[None, None].float()
    y = -(1 - x.square() - z.square()).clamp_min(0).sqrt()
    luminance = 0.4 * light.shading(torch.stack([x, y, z], -1), ours[:, None, None]).clamp_min(0.01)[:, None]
    shown = (1.16 * luminance.pow(1 / 3) - 0.16) * ball + 1 - ball
    prints = printed(Pairs(shown, ball.expand(2 * count, -1, -1, -1), ours), 1, "test")
    assert prints.shown.min() >= 0
    assert prints.shown.max() <= 1
    same = (prints.light == ours).all(1) & (prints.clean == shown).flatten(1).all(1)
    assert abs(float(same.float().mean()) - PLAIN) < 0.2
    inside = prints.mask > 0.99
    for number in range(2 * count):
        where = inside[number, 0]
        place = where.nonzero().float()
        centre, radius = place.mean(0), math.sqrt(len(place) / math.pi)
        v, u = ((place - centre) / radius).clamp(-0.99, 0.99).unbind(-1)
        deep = u.square() + v.square() < 0.8
        normals = torch.stack([u, -(1 - u.square() - v.square()).clamp_min(0).sqrt(), -v], -1)[deep]
        found = ((prints.clean[number, 0][where][deep] + 0.16) / 1.16) ** 3
        told = 0.4 * light.shading(normals, prints.light[number])
        assert (found - told).abs().mean() < 0.06 * told.mean(), number


def test_a_pair_of_prints_has_one_background_and_two_exposures() -> None:
    count = 40
    image = torch.rand(count, 1, 32, 32).repeat(2, 1, 1, 1) * 0.5
    mask = torch.zeros_like(image)
    mask[..., 8:24, 8:24] = 1
    image = image * mask + 1 - mask
    prints = printed(Pairs(image, mask, torch.ones(2 * count, 9)), 2, "test")
    corner = prints.clean[..., 0, 0]  # too far from the subject for a soft print
    assert torch.allclose(corner[:count], corner[count:], atol=1e-5)
    assert (corner < 0.9).any(1).float().mean() > 0.3
    gain = prints.light[:, 0]
    assert gain.max() <= 2**STOPS
    assert gain.min() >= 2**-STOPS
    assert (gain[:count] != gain[count:]).any()
    bright = prints.clean[:, 0, 12:20, 12:20].mean((1, 2))
    more = gain[:count] > gain[count:] + 0.05
    assert (bright[:count] > bright[count:])[more].all()
    assert torch.equal(prints.shown, printed(Pairs(image, mask, torch.ones(2 * count, 9)), 2, "test").shown)


def test_a_mirror_turns_right_into_left() -> None:
    assert torch.allclose(mirrored(light.named("top-left")), light.named("top-right"), atol=1e-6)
    assert torch.allclose(mirrored(light.named("front")), light.named("front"), atol=1e-6)


def test_skip_branches_come_in_one_by_one() -> None:
    assert [skip_count(step, 10) for step in range(0, 12, 2)] == [4, 3, 2, 1, 0, 0]
    assert skip_count(0, 10) == LEVELS
    assert skip_count(0, 0) == skip_count(5000, 10) == 0


def test_the_losses_are_of_the_other_picture_of_a_pair() -> None:
    torch.manual_seed(0)
    network = Hourglass(width=2, light_features=3, light_hidden=4, size=32).eval()
    shown, lights = torch.rand(4, 1, 32, 32), torch.randn(4, 9)
    with torch.no_grad():
        drawn, told = network(shown, lights.roll(2, 0))
    clean = drawn.roll(2, 0)  # as if each picture relit were the other
    parts = blame(network, Prints(shown, clean, torch.ones_like(shown), told), 0, torch.contiguous_format)
    again = blame(network, Prints(shown, clean, torch.ones_like(shown), lights), 0, torch.contiguous_format)
    assert again["image"] < 1e-6
    assert again["edges"] < 1e-6
    assert again["light"] > 0.1
    assert parts["light"] < 1e-6
    assert parts["face"] > 0
    twice = Prints(shown[:2].repeat(2, 1, 1, 1), clean, torch.ones_like(shown), lights)
    assert blame(network, twice, 0, torch.contiguous_format)["face"] == 0


def test_the_files_are_read_by_dpr_and_the_card_tells_what_was_measured(trained: Path) -> None:
    dpr = Dpr(read(trained / "light.safetensors", trained / "light.json"))
    assert dpr.network.size == 64
    image = torch.rand(1, 2, 3, 64, 64) * 2 - 1
    assert dpr.estimate(image).shape == (1, 2, 9)
    assert dpr.relight(image, light.named("left").expand(1, 2, 9)).shape == image.shape
    card = json.loads((trained / "light.card.json").read_text())
    measured = card["measured_on_held_out_heads"]
    assert set(measured) == {"world", "world_before_rooms", "generator"}
    assert measured["world"]["psnr_as_it_was"] > 5
    assert card["settings"]["generator"]
    assert (trained / "light.png").exists()


def test_a_network_of_the_default_size_fits_into_half_a_megabyte() -> None:
    network = Hourglass(width=8, light_features=16, light_hidden=64, size=128)
    assert 2 * sum(value.numel() for value in network.state_dict().values()) < 5e5


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Relighter:
    """The relighter with the starter's weights, by its cards."""
    shelves = installed()
    registry = Registry(shelves.weights, tmp_path_factory.mktemp("cache"))
    return shelves.relighters["dpr"].build(CPU, registry.resolve("relighter", "dpr", "starter", ("face",)))


def test_the_shipped_weights_find_the_light_of_fresh_heads_and_change_it(shipped: Relighter) -> None:
    assert isinstance(shipped, Dpr)
    count, size = 4, shipped.network.size
    lights = lamps.drawn(count, 2, 2027, "fresh")
    told = lightmeter.score(
        shipped, by_world(decode(draw(2027, 0, count)), seen_from(2027, "fresh", count), lights, size, CPU)
    )
    assert told["direction_degrees"] < min(20, 0.5 * told["direction_degrees_guessed"])
    assert told["light_relative_error"] < 0.6 * told["light_relative_error_guessed"]
    assert told["psnr_relit"] > told["psnr_as_it_was"] + 3


def test_the_shipped_weights_tell_a_light_from_the_left_from_one_from_the_right(shipped: Relighter) -> None:
    assert isinstance(shipped, Dpr)
    names = ("left", "right", "top", "front")
    lights = torch.stack([light.named(name) for name in names])[None, :, None].repeat(1, 1, 3, 1)
    studio = by_world(decode(draw(2027, 9, 1)), seen_from(2027, "fresh", 1), lights, shipped.network.size, CPU)
    with torch.no_grad():
        found = shipped.estimate(studio.image.float() / 127.5 - 1)[0]
    nearest = torch.cosine_similarity(found[:, None, 1:4], studio.light[0, None, :, 1:4], dim=-1).argmax(1)
    assert nearest.tolist() == [0, 1, 2, 3]


class TestShippedWeights(RelighterContract):
    @pytest.fixture(autouse=True)
    def _relighter(self, shipped: Relighter) -> None:
        self.shipped = shipped

    def make(self) -> Relighter:
        return self.shipped


class Oracle(Dpr):
    """Knows the lights of a studio, and how its heads look under the next one."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    def estimate(self, image: Tensor) -> Tensor:
        return self.studio.light

    def relight(self, image: Tensor, sh: Tensor) -> Tensor:
        assert torch.equal(sh, self.studio.light.roll(-1, 1))
        return image.roll(-1, 1)


def test_the_meter_has_no_error_where_there_is_none(studio: Studio) -> None:
    told = lightmeter.score(Oracle(studio), studio)
    assert told["direction_degrees"] < 0.1
    assert told["light_relative_error"] == 0
    assert told["psnr_relit"] > 60 > told["psnr_as_it_was"]
    assert told["direction_degrees_guessed"] > 5
    rooms = lightmeter.furnished(studio, 1)
    covered = (studio.mask == 255).expand_as(rooms.image)
    assert torch.equal(rooms.image[covered], studio.image[covered])
    assert not torch.equal(rooms.image, studio.image)
    assert torch.equal(rooms.image[:, 0, :, 0, 0], rooms.image[:, 1, :, 0, 0])  # the room does not change with the light
    bare = lightness(rooms.image.float() / 255)
    assert bare.shape == (2, 2, 1, 32, 32)
