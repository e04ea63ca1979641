"""NVIDIA's VGG16, a TorchScript archive that is built here and read as data."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from facednerf_arcface import torchscript
from facednerf_arcface.vgg16 import convert
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from facednerf_core.errors import InputError
from facednerf_core.perceptual import DEVIATION, LEVELS, MEAN
from tests.smooth import he

WIDTHS = (4, 6, 8, 10, 10)
LIN = WIDTHS  # one weight for each channel of each level
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.jit


class ScriptedVgg16(nn.Module):
    """LPIPS features of pictures in [0, 255], as StyleGAN's metrics use them: names and layout of this test's own."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(DEVIATION).view(1, 3, 1, 1) * 255)
        self.scale = 1.0
        self.sizes = [2, 2, 3, 3, 3]
        channels, convolutions = 3, []
        for width, count in zip(WIDTHS, LEVELS, strict=True):
            for _ in range(count):
                convolutions.append(nn.Conv2d(channels, width, 3, padding=1))
                channels = width
        self.convolutions = nn.ModuleList(convolutions)
        self.lin = nn.ModuleList(nn.Conv2d(width, 1, 1, bias=False) for width in WIDTHS)
        self.fc1 = nn.Linear(WIDTHS[-1], 7)
        he(self)
        with torch.no_grad():
            for seed, layer in enumerate(self.lin):
                layer.weight.uniform_(0, 1, generator=torch.Generator().manual_seed(seed))
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        x = (image - self.mean) / self.std
        ends = [1, 3, 6, 9, 12]
        found: list[Tensor] = []
        for index, convolution in enumerate(self.convolutions):
            x = functional.relu(convolution(x)) * self.scale
            if index in ends:
                unit = x / (x.square().sum(1, keepdim=True) + 1e-8).sqrt()
                for level, layer in enumerate(self.lin):
                    if ends[level] == index:
                        unit = unit * layer.weight.sqrt()
                found.append((unit / float(x.shape[2] * x.shape[3]) ** 0.5).flatten(1))
                x = functional.max_pool2d(x, 2)
        return torch.cat(found, 1)


def scripted(network: nn.Module, folder: Path, freeze: bool = False) -> Path:
    script = torch.jit.script(network)
    script = torch.jit.freeze(script) if freeze else script
    script.save(str(folder / "vgg16.pt"))
    return folder / "vgg16.pt"


def torchvision_like() -> nn.Module:
    """torchvision's VGG16 by its published table (configuration D), narrow: features and a classifier."""
    layers: list[nn.Module] = []
    channels = 3
    for width, count in zip(WIDTHS, LEVELS, strict=True):
        for _ in range(count):
            layers += [nn.Conv2d(channels, width, kernel_size=3, padding=1), nn.ReLU(inplace=True)]
            channels = width
        layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
    network = nn.Module()
    network.features = nn.Sequential(*layers)
    network.classifier = nn.Sequential(nn.Linear(channels * 49, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 5))
    return he(network).eval()


def test_an_archive_is_known_from_other_files(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "state.pth")
    (tmp_path / "text.pth").write_text("text")
    assert torchscript.is_archive(scripted(ScriptedVgg16(), tmp_path))
    assert not any(torchscript.is_archive(tmp_path / name) for name in ("state.pth", "text.pth", "gone.pth", "."))


def test_all_tensors_of_an_archive_are_read_by_their_paths(tmp_path: Path) -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            whole = torch.arange(24.0).view(2, 3, 4)
            self.register_buffer("turned", whole.permute(2, 0, 1))
            self.register_buffer("part", whole[1, 1:, ::2])
            self.register_buffer("halved", whole.half()[0])
            self.register_buffer("count", torch.tensor(7))
            self.listed = [torch.ones(2), torch.zeros(3)]
            self.named = {"one": torch.full((1,), 5.0)}
            self.numbers, self.switch, self.name = [1.5, 2.5], True, "mixed"
            self.inner = nn.Linear(2, 3)

        def forward(self, x: Tensor) -> Tensor:
            constant = torch.tensor([3.0, 4.0])
            x = x + self.listed[0].sum() + self.named["one"] + self.numbers[0] + constant.sum()
            return x + self.turned.sum() + self.part.sum() + self.halved.sum() + self.count if self.switch else x

    module = Mixed()
    torch.jit.script(module).save(str(tmp_path / "mixed.pt"))
    found = torchscript.read(tmp_path / "mixed.pt")
    expected = {
        **module.state_dict(),
        "listed.0": torch.ones(2),
        "listed.1": torch.zeros(3),
        "named.one": module.named["one"],
    }
    assert {name for name in found if not name.startswith("constants")} == set(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value), name


def test_nvidias_file_becomes_tensors_by_torchvisions_names(tmp_path: Path) -> None:
    network = ScriptedVgg16()
    convert(scripted(network, tmp_path), tmp_path)
    found = load_file(tmp_path / "vgg16.safetensors")
    places = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    names = {f"features.{place}.{part}" for place in places for part in ("weight", "bias")}
    assert set(found) == names | {f"lin.{level}" for level in range(5)} | {"mean", "deviation"}
    for place, convolution in zip(places, network.convolutions, strict=True):
        assert torch.equal(found[f"features.{place}.weight"], convolution.weight)
        assert torch.equal(found[f"features.{place}.bias"], convolution.bias)
    for level, layer in enumerate(network.lin):
        assert torch.equal(found[f"lin.{level}"], layer.weight.flatten())
    assert torch.allclose(found["mean"], torch.tensor(MEAN))
    assert torch.allclose(found["deviation"], torch.tensor(DEVIATION))


def rewritten(source: Path, target: Path, **parts: bytes | None) -> Path:
    """An archive with some of its files replaced, or left out."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = parts.get(Path(name).name.replace(".", "_"), old.read(name))
            if content is not None:
                new.writestr(name, content)
    return target


class Trap:
    def __reduce__(self) -> tuple[object, ...]:
        return eval, ("1 + 1",)


def test_archives_that_hold_more_than_data_or_less_are_refused(tmp_path: Path) -> None:
    source, odd = scripted(ScriptedVgg16(), tmp_path), tmp_path / "odd.pt"
    for parts, message in (
        ({"data_pkl": pickle.dumps(Trap(), protocol=2)}, "it asks for __builtin__.eval"),
        ({"data_pkl": b"nothing"}, "read as data"),
        ({"data_pkl": None}, "read as data"),
        ({"0": b"\0" * 8}, "its storage 0 holds 2 numbers"),
        ({"0": None}, "read as data"),
    ):
        with pytest.raises(InputError, match=rf"odd\.pt is not a TorchScript archive that can be {message}|{message}"):
            torchscript.read(rewritten(source, odd, **parts))
    with pytest.raises(InputError, match=r"gone\.pt"):
        torchscript.read(tmp_path / "gone.pt")


def test_a_tensor_that_reaches_beyond_its_numbers_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(scripted(ScriptedVgg16(), tmp_path)) as opened:
        name = next(name for name in opened.namelist() if name.endswith("data.pkl"))
        pickled = opened.read(name)
    shape, longer = b"(K\x04t(K\x01t", b"(K\x09t(K\x01t"  # (4,) with strides (1,), and (9,)
    assert shape in pickled
    odd = rewritten(tmp_path / "vgg16.pt", tmp_path / "odd.pt", data_pkl=pickled.replace(shape, longer))
    with pytest.raises(InputError, match="read as data"):
        torchscript.read(odd)


def test_a_frozen_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="frozen archive"):
        convert(scripted(ScriptedVgg16(), tmp_path, freeze=True), tmp_path)


def test_an_archive_of_another_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"vgg16\.pt is not a VGG16: .* these tensors have 1"):
        convert(scripted(nn.Sequential(nn.Conv2d(3, 4, 3)), tmp_path), tmp_path)
