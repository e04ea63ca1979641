"""VGG16 features: names, sizes, and a distance that does not depend on the size of the pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from facednerf_core.cards import LocalWeights, WeightsCard
from facednerf_core.errors import InputError
from facednerf_core.perceptual import (
    DEVIATION,
    LEVELS,
    MEAN,
    OFFICIAL_WIDTHS,
    Perceptual,
    Vgg16,
    distance,
    from_tensors,
    load,
    named,
)
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


PLACES = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
WIDE = (4, 6, 8, 10, 10)  # no level is as wide as there are colours


def renamed(network: Vgg16, **more: torch.Tensor) -> dict[str, torch.Tensor]:
    """The tensors of a network under names that say nothing, as NVIDIA's file may have them."""
    found = {}
    for number, place in enumerate(PLACES):
        for part in ("weight", "bias"):
            found[f"layer{number}.{part}"] = network.state_dict()[f"features.{place}.{part}"]
    return {**more, **found, "fc.weight": torch.zeros(7, 10), "fc.bias": torch.zeros(7), "steps": torch.tensor(3)}


def test_features_are_those_of_a_plain_sequence_of_torchvisions_layers() -> None:
    """Configuration D of Simonyan & Zisserman's table 1, full width, with convolutions under torchvision's numbers."""
    layers: list[torch.nn.Module] = []
    channels = 3
    for width, count in zip(OFFICIAL_WIDTHS, LEVELS, strict=True):
        for _ in range(count):
            layers += [torch.nn.Conv2d(channels, width, kernel_size=3, padding=1), torch.nn.ReLU()]
            channels = width
        layers.append(torch.nn.MaxPool2d(kernel_size=2, stride=2))
    plain = he(torch.nn.Sequential(*layers))
    tensors = {f"features.{name}": value for name, value in plain.state_dict().items()}
    perceptual = Perceptual.from_state_dict({**tensors, "classifier.0.weight": torch.zeros(1)}, size=64)
    image = torch.rand(1, 3, 64, 64) * 2 - 1
    x = ((image + 1) / 2 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(DEVIATION).view(3, 1, 1)
    for level, end in zip(perceptual.network(image), (3, 8, 15, 22, 29), strict=True):
        assert torch.allclose(level, plain[: end + 1](x), rtol=1e-4, atol=1e-5)


def test_torchvision_itself_has_the_same_features() -> None:
    try:
        from torchvision.models import vgg16
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"torchvision is not installed beside this torch: {error}")
    official = vgg16(weights=None).eval()
    perceptual = Perceptual.from_state_dict(official.state_dict(), size=64)
    image = torch.rand(1, 3, 64, 64) * 2 - 1
    x = ((image + 1) / 2 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(DEVIATION).view(3, 1, 1)
    assert torch.allclose(perceptual.network(image)[4], official.features[:30](x), rtol=1e-4, atol=1e-5)


def test_tensors_without_torchvisions_names_are_told_by_order_and_shape() -> None:
    torch.manual_seed(3)  # the pictures below must differ by more than rounding
    network = he(Vgg16(WIDE))
    lin = [torch.rand(width) for width in WIDE]
    more = {f"l{level}": value.view(1, -1, 1, 1) if level % 2 else value for level, value in enumerate(lin)}
    found = named(renamed(network, **more))
    assert set(found) == set(network.state_dict()) | {f"lin.{level}" for level in range(5)}
    assert all(torch.equal(found[name], value) for name, value in network.state_dict().items())
    image, other = torch.rand(2, 1, 3, 64, 64) * 2 - 1
    perceptual = Perceptual.from_state_dict(renamed(network, **more), size=64)
    lpips = torch.zeros(1)
    for channels, a, b in zip(lin, network(image), network(other), strict=True):
        apart = torch.nn.functional.normalize(a) - torch.nn.functional.normalize(b)
        lpips += (channels.view(1, -1, 1, 1) * apart.square()).sum(1).mean((1, 2))
    assert torch.allclose(5 * distance(perceptual(image), perceptual(other)), lpips, rtol=1e-4)
    assert torch.equal(perceptual.network.mean, network.mean)


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (255.0, 0.0), (2.0, -1.0)])
def test_a_files_own_normalisation_is_taken_whatever_its_unit(scale: float, offset: float) -> None:
    mean, deviation = torch.tensor([0.4, 0.45, 0.5]), torch.tensor([0.2, 0.25, 0.3])
    network = he(Vgg16(WIDE))
    tensors = renamed(network, img_mean=(scale * mean + offset).view(1, 3, 1, 1), img_std=(scale * deviation).view(3, 1, 1))
    found = Perceptual.from_state_dict(tensors).network
    assert torch.allclose(found.mean.flatten(), mean, atol=1e-6)
    assert torch.allclose(found.deviation.flatten(), deviation, atol=1e-6)


def test_a_normalisation_without_a_name_must_be_imagenets() -> None:
    network = he(Vgg16(WIDE))
    imagenet = {"c0": 255 * torch.tensor(MEAN), "c1": 255 * torch.tensor(DEVIATION)}
    assert torch.allclose(Perceptual.from_state_dict(renamed(network, **imagenet)).network.mean, network.mean)
    with pytest.raises(InputError, match="cannot tell whether c0 and c1"):
        named(renamed(network, c0=imagenet["c1"], c1=imagenet["c0"]))
    for odd in ({"mean": torch.ones(3)}, {"mean": torch.ones(3), "shift": torch.ones(3)}, {"c0": torch.ones(3)}):
        with pytest.raises(InputError, match="cannot tell a mean and a deviation"):
            named(renamed(network, **odd))


def test_tensors_that_are_no_vgg16s_are_refused_whatever_their_names() -> None:
    tensors = renamed(he(Vgg16(WIDE)))
    with pytest.raises(InputError, match="13 convolutions of 3 x 3; these tensors have 12"):
        named({name: value for name, value in tensors.items() if not name.startswith("layer4.")})
    with pytest.raises(InputError, match=r"'layer4\.weight' has no bias"):
        named({name: value for name, value in tensors.items() if name != "layer4.bias"})
    with pytest.raises(InputError, match=r"channel weights of \[4, 6\] do not fit"):
        named({**tensors, "a": torch.ones(4), "b": torch.ones(6)})
    with pytest.raises(InputError, match="not a VGG16"):
        Perceptual.from_state_dict(dict(reversed(tensors.items())))


# largest difference of features over the largest feature, and of distances, as measured, times 1.5
HALF = {torch.bfloat16: (0.019, 0.001), torch.float16: (0.0024, 0.0005)}


@pytest.mark.parametrize("dtype", HALF)
def test_half_precision_stays_near_and_does_not_overflow(dtype: torch.dtype) -> None:
    network = he(Vgg16((16, 16, 16, 16, 16)))
    with torch.no_grad():
        network.features[0].weight.mul_(300)  # activations whose squares no half precision holds
    perceptual, pictures = Perceptual(network, 64), [draw(latent(seed), 64).image[:, 0] for seed in (0, 1)]
    exact = [perceptual(picture) for picture in pictures]
    with torch.autocast("cpu", dtype=dtype):
        rough = [perceptual(picture) for picture in pictures]
    for a, b in zip(exact[0], rough[0], strict=True):
        assert b.dtype == torch.float32
        assert float((a - b).abs().max() / a.abs().max()) < HALF[dtype][0]
    apart = distance(*exact)
    assert float((distance(*rough) - apart).abs() / apart) < HALF[dtype][1]
