"""What the relighter makes of pictures and cameras, its card, and its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from facednerf_dpr.hourglass import Hourglass
from facednerf_dpr.lab import lightness, rgb_to_lab
from facednerf_dpr.options import DprOptions
from facednerf_dpr.plugin import build, register_relighters
from facednerf_dpr.relighter import Dpr, angle, read
from safetensors.torch import save_file
from torch import Tensor

from facednerf_core import light
from facednerf_core.cards import Card, LocalWeights, WeightsCard
from facednerf_core.errors import InputError, MissingWeights
from facednerf_core.interfaces import Relighter
from facednerf_core.plugins import installed
from facednerf_core.resampling import resized
from facednerf_core.scene import Rendering, Scene
from facednerf_core.testing import RelighterContract
from facednerf_core.testing.probes import pictures
from facednerf_core.views import Orbit, View
from tests.plugins.dpr_oracle import NARROW, network, procedural
from tests.smooth import latent, step


@pytest.fixture(scope="module")
def dpr() -> Dpr:
    return Dpr(Hourglass.from_state_dict(procedural(**NARROW), **NARROW))


def shot(image: Tensor, *angles: tuple[float, float]) -> Rendering:
    view = Orbit().view(*angles or [(0.0, 0.0)] * image.shape[1], subjects=len(image))
    return Rendering(Scene(), view, image)


class TestDpr(RelighterContract):
    def make(self) -> Relighter:
        return Dpr(Hourglass.from_state_dict(procedural(**NARROW), **NARROW))


class TestDprByPicture(RelighterContract):
    def make(self) -> Relighter:
        return Dpr(Hourglass.from_state_dict(procedural(**NARROW), **NARROW), DprOptions(statistics="picture"))


def test_estimate_reads_the_lightness_at_the_networks_size(dpr: Dpr) -> None:
    image = pictures(2, 1, (64, 64))
    expected = dpr.network.estimate(lightness((image[:, 0] + 1) / 2))
    assert torch.equal(dpr.estimate(image)[:, 0], expected)
    large = pictures(1, 1, (300, 200))
    shrunk = lightness((resized(large[:, 0], (96, 64)) + 1) / 2)
    assert torch.allclose(dpr.estimate(large)[:, 0], dpr.network.estimate(shrunk), atol=1e-6)


def test_relight_draws_lightness_and_keeps_colour(dpr: Dpr) -> None:
    image, wanted = pictures(2, 2, (64, 64)), torch.stack([light.named("left"), light.named("top")]).expand(2, 2, 9)
    relit = dpr.relight(image, wanted)
    before, after = (rgb_to_lab((each.flatten(0, 1) + 1) / 2) for each in (image, relit))
    drawn, _ = dpr.network(lightness((image.flatten(0, 1) + 1) / 2), wanted.flatten(0, 1))
    assert torch.allclose(after[:, :1], 100 * drawn, atol=1e-2)
    assert torch.allclose(after[:, 1:], before[:, 1:], atol=1e-2)
    other = pictures(1, 1, (100, 70))
    assert dpr.relight(other, wanted[:1, :1]).shape == other.shape
    for wrong in (wanted[:1], wanted[..., :8], wanted[0, 0]):
        with pytest.raises(InputError, match="want lights"):
            dpr.relight(image, wrong)


def test_gradients_are_finite_whatever_a_generator_draws(dpr: Dpr) -> None:
    image = (pictures(1, 2, (64, 64)) * 40).requires_grad_()
    dpr.aim(light.named("left"))(shot(image), step(latent())).value.sum().backward()
    assert image.grad is not None
    assert image.grad.isfinite().all()
    assert (image.grad[image.detach() < -1.2] != 0).any()
    twin = image.detach().requires_grad_()
    dpr.relight(twin, light.named("top").expand(1, 2, 9)).sum().backward()
    assert twin.grad is not None
    assert twin.grad.isfinite().all()


def test_a_loss_is_the_sum_over_coefficients_and_the_mean_over_views(dpr: Dpr) -> None:
    image, world = pictures(2, 2, (64, 64)), torch.stack([light.named("left"), light.named("back")])
    rendering = shot(image, (0.2, 0.0), (-0.3, 0.1))
    verdict = dpr.aim(world)(rendering, step(latent()))
    goal = light.in_camera(world[:, None], rendering.view.camera)
    found = dpr.estimate(image)
    assert torch.allclose(verdict.value, (found - goal).square().sum(2).mean(1))
    assert verdict.metrics["light_angle"] == pytest.approx(angle(found, goal))
    assert angle(light.named("left"), light.named("left")) == pytest.approx(0, abs=0.1)
    assert angle(light.named("front"), light.named("back")) == pytest.approx(180, abs=0.1)


def test_no_gradient_reaches_camera_or_network(dpr: Dpr) -> None:
    image = pictures(1, 1, (64, 64)).requires_grad_()
    view = Orbit().view((0.2, 0.1))
    camera = view.camera.clone().requires_grad_()
    loss = dpr.aim(light.named("left").requires_grad_())
    loss(Rendering(Scene(), View(camera), image), step(latent())).value.sum().backward()
    assert camera.grad is None
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in dpr.network.parameters())
    with pytest.raises(ValueError, match="needs a look"):
        loss(None, step(latent()))


@pytest.mark.parametrize("wrong", [torch.zeros(8), torch.zeros(3, 3, 9), torch.full((9,), torch.nan), torch.tensor(1.0)])
def test_a_wrong_light_is_refused_before_the_run(dpr: Dpr, wrong: Tensor) -> None:
    with pytest.raises(InputError, match="9 finite SH coefficients"):
        dpr.aim(wrong)


def test_statistics_of_the_picture_are_those_of_the_network_in_training() -> None:
    weights = procedural(**NARROW)
    original = Hourglass.from_state_dict(weights, **NARROW)
    published = Dpr(original, DprOptions(statistics="picture"))
    image = pictures(2, 1, (64, 64))
    for index in range(2):
        read_as = lightness((image[index] + 1) / 2).double()
        double = {name: value.double() for name, value in weights.items()}
        _, own = network(read_as, torch.zeros(1, 9, dtype=torch.float64), double, train=True)
        assert torch.allclose(published.estimate(image)[index].double(), own, atol=1e-5)
    assert torch.equal(original.bn_1.running_mean, weights["bn_1.running_mean"])  # type: ignore[arg-type]
    assert not torch.allclose(published.estimate(image), Dpr(original).estimate(image), atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_loss_under_autocast_is_near_and_finite(dpr: Dpr, dtype: torch.dtype) -> None:
    image = pictures(1, 2, (64, 64)).requires_grad_()
    loss = dpr.aim(light.named("left"))
    plain = loss(shot(image, (0.3, 0.1), (0.0, 0.0)), step(latent())).value
    with torch.autocast("cpu", dtype=dtype):
        cast = loss(shot(image, (0.3, 0.1), (0.0, 0.0)), step(latent())).value
    assert cast.dtype == torch.float32
    assert torch.allclose(cast, plain, atol=0.02)
    cast.sum().backward()
    assert image.grad is not None
    assert image.grad.isfinite().all()


def write(folder: Path, config: object = NARROW) -> LocalWeights:
    tensors, described = folder / "light.safetensors", folder / "light.json"
    save_file(procedural(**NARROW), tensors)
    described.write_text(json.dumps(config))
    card = WeightsCard(
        "dpr/test", "dpr", "relighter", "test", "tiny", files={"tensors": tensors.name, "config": described.name}
    )
    return LocalWeights(card, {"tensors": tensors, "config": described})


def test_card_builds_a_narrow_network_by_its_configuration(dpr: Dpr, tmp_path: Path) -> None:
    cards: list[Card[Relighter]] = []
    register_relighters(cards.append)
    (card,) = cards
    assert (card.name, card.domains, card.options) == ("dpr", ("face", "head"), DprOptions)
    options = card.checked({"statistics": "picture"})
    built = card.build(torch.device("cpu"), write(tmp_path, {"class": "Hourglass", **NARROW}), **options)
    assert isinstance(built, Dpr)
    assert built.options.statistics == "picture"
    assert built.network.size == 64
    image = pictures(1, 1, (64, 64))
    same = build(torch.device("cpu"), write(tmp_path))
    assert torch.equal(same.estimate(image), dpr.estimate(image))
    with pytest.raises(InputError, match="'statistics' of dpr"):
        card.checked({"statistics": "none"})
    with pytest.raises(MissingWeights, match="fdn weights"):
        build(torch.device("cpu"), None)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    weights = write(tmp_path)
    tensors, config = weights["tensors"], weights["config"]
    with pytest.raises(InputError, match=r"cannot read the configuration of a DPR network from .*none\.json"):
        read(tensors, tmp_path / "none.json")
    config.write_text("[1]")
    with pytest.raises(InputError, match="holds no arguments"):
        read(tensors, config)
    config.write_text("{")
    with pytest.raises(InputError, match="cannot read the configuration"):
        read(tensors, config)
    config.write_text("{}")
    with pytest.raises(InputError, match="not the tensors of this DPR network"):
        read(tensors, config)
    tensors.write_bytes(b"no tensors")
    with pytest.raises(InputError, match="cannot read a DPR network from"):
        read(tensors, config)


def test_plugin_is_installed() -> None:
    shelves = installed()
    assert "dpr" in shelves.relighters
    assert shelves.origins["relighter", "dpr"].distribution == "facednerf-dpr"
