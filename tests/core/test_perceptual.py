"""VGG16 features: names, sizes, and a distance that does not depend on the size of the pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from facednerf_core.cards import LocalWeights, WeightsCard
from facednerf_core.errors import InputError
from facednerf_core.perceptual import OFFICIAL_WIDTHS, Perceptual, Vgg16, distance, from_tensors, load
from tests.smooth import draw, he, latent

WIDTHS = (3, 4, 5, 6, 6)


@pytest.fixture
def network() -> Vgg16:
    return he(Vgg16(WIDTHS))


def weights(path: Path, **options: int) -> LocalWeights:
    card = WeightsCard("vgg16/test", "vgg16", "perceptual", "test", "a narrow VGG16", options=options)
    return LocalWeights(card, {"tensors": path})


def test_official_network_has_the_names_and_shapes_of_torchvision() -> None:
    with torch.device("meta"):
        state = Vgg16(OFFICIAL_WIDTHS).state_dict()
    numbers = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    assert list(state) == [f"features.{n}.{part}" for n in numbers for part in ("weight", "bias")]
    assert state["features.28.weight"].shape == (512, 512, 3, 3)
    assert sum(value.numel() for value in state.values()) == 14_714_688


def test_levels_halve_and_end_in_activations(network: Vgg16) -> None:
    levels = network(torch.rand(2, 3, 64, 32) * 2 - 1)
    shapes = [(64, 32), (32, 16), (16, 8), (8, 4), (4, 2)]
    assert [tuple(level.shape) for level in levels] == [(2, w, *s) for w, s in zip(WIDTHS, shapes, strict=True)]
    assert all(float(level.min()) == 0.0 for level in levels)


def test_input_is_normalised_as_imagenet_is(network: Vgg16) -> None:
    seen: list[torch.Tensor] = []
    network.features[0].register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0]))
    network(torch.ones(1, 3, 16, 16))
    assert torch.allclose(seen[0][0, :, 0, 0], torch.tensor([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]))


def test_distance_is_the_mean_squared_difference_of_directions(network: Vgg16) -> None:
    perceptual = Perceptual(network, size=32)
    a, b = torch.rand(2, 3, 32, 32) * 2 - 1, torch.rand(2, 3, 32, 32) * 2 - 1
    unit = torch.nn.functional.normalize
    levels = zip(network(a), network(b), strict=True)
    expected = torch.stack([(unit(x) - unit(y)).square().sum(1).mean((1, 2)) for x, y in levels]).mean(0)
    assert torch.allclose(distance(perceptual(a), perceptual(b)), expected, rtol=1e-3)
    assert torch.equal(distance(perceptual(a), perceptual(a)), torch.zeros(2))


def test_distance_does_not_depend_on_the_size_of_the_pictures(network: Vgg16) -> None:
    perceptual = Perceptual(network, size=128)
    pairs = [[perceptual(draw(latent(seed), size).image[:, 0]) for seed in (0, 1)] for size in (64, 128, 512)]
    values = torch.stack([distance(a, b) for a, b in pairs])
    assert float(values.max() / values.min()) < 1.05


def test_oblong_pictures_keep_their_shape(network: Vgg16) -> None:
    assert Perceptual(network, size=32).canonical(torch.zeros(1, 3, 64, 128)).shape == (1, 3, 32, 64)


def test_where_nothing_is_active_the_gradient_is_finite(network: Vgg16) -> None:
    with torch.no_grad():
        network.features[0].bias.fill_(-1e3)
    image = torch.zeros(1, 3, 32, 32, requires_grad=True)
    distance(Perceptual(network, size=32)(image), [torch.ones(1)] * 5).sum().backward()
    assert image.grad is not None
    assert bool(torch.isfinite(image.grad).all())


def test_a_file_tells_the_widths_and_a_classifier_is_left_out(network: Vgg16, tmp_path: Path) -> None:
    tensors = {**network.state_dict(), "classifier.0.weight": torch.zeros(2, 2)}
    save_file({name: value.half() for name, value in tensors.items()}, tmp_path / "vgg.safetensors")
    loaded = load(weights(tmp_path / "vgg.safetensors", size=32), torch.device("cpu"))
    assert loaded.size == 32
    assert loaded.network.widths == WIDTHS
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    image = torch.rand(1, 3, 32, 32)
    assert float(distance(loaded(image), Perceptual(network, 32)(image))) < 1e-4


def test_learnt_channel_weights_are_taken_where_there(network: Vgg16) -> None:
    lin = {f"lin.{level}": torch.full((width,), 0.25) for level, width in enumerate(WIDTHS)}
    a, b = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32) - 1
    plain, weighed = from_tensors(network.state_dict(), 32), from_tensors({**network.state_dict(), **lin}, 32)
    assert torch.allclose(distance(weighed(a), weighed(b)), 0.25 * distance(plain(a), plain(b)))


def test_other_files_are_refused_by_name(network: Vgg16, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"features\.0\.weight"):
        from_tensors({"conv.weight": torch.zeros(1)})
    short = {name: value for name, value in network.state_dict().items() if name != "features.2.bias"}
    with pytest.raises(InputError, match=r"features\.2\.bias"):
        from_tensors(short)
    (tmp_path / "broken.safetensors").write_bytes(b"none")
    with pytest.raises(InputError, match="broken"):
        load(weights(tmp_path / "broken.safetensors"), torch.device("cpu"))
