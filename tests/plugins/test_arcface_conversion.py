"""Official files of the networks that judge pictures, imported through their weights cards."""

from __future__ import annotations

import importlib.util
import pickle
from pathlib import Path

import pytest
import torch
from facednerf_arcface import conversion, plugin
from facednerf_arcface.identity import ArcFace
from facednerf_arcface.irse import IrSe
from facednerf_arcface.recognition import Recognition
from safetensors import safe_open
from safetensors.torch import save_file

from facednerf_core.cards import WeightsCard
from facednerf_core.compute import rng
from facednerf_core.errors import InputError, MissingWeights
from facednerf_core.perceptual import load as load_perceptual
from facednerf_core.weights import Registry
from tests.plugins.test_arcface_irse import narrow, picture
from tests.plugins.test_arcface_recognition import Exporter, small
from tests.plugins.test_arcface_vgg16 import LIN, ScriptedVgg16, scripted, torchvision_like


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    cards: list[WeightsCard] = []
    plugin.register_weights(cards.append)
    return Registry({card.name: card for card in cards}, tmp_path / "cache")


def test_the_official_cards_say_what_they_are(registry: Registry) -> None:
    assert list(registry.cards) == ["arcface/ir_se50", "arcface/w600k_r50", "vgg16/nvidia", "vgg16/torchvision"]
    for card in registry.cards.values():
        assert card.pack == "official"
        assert card.licence != "unknown"
        assert card.source
        module, _, function = card.converter.partition(":")
        assert callable(getattr(importlib.import_module(module), function))
        with pytest.raises(MissingWeights, match=card.name):
            registry.local(card)


@pytest.mark.parametrize("zipped", [True, False])
def test_ir_se50_is_imported_and_built(registry: Registry, tmp_path: Path, zipped: bool) -> None:
    network, file = narrow(), tmp_path / "model_ir_se50.pth"
    torch.save(network.state_dict(), file, _use_new_zipfile_serialization=zipped)
    identity = plugin.build(torch.device("cpu"), registry.import_file("arcface/ir_se50", file))
    assert isinstance(identity, ArcFace)
    assert isinstance(identity.network, IrSe)
    assert torch.equal(identity.embed(picture("A")), ArcFace(network).embed(picture("A")))
    assert registry.choose("identity", "arcface", "official").name == "arcface/ir_se50"


@pytest.mark.parametrize("kind", ["w600k_r50.onnx", "backbone.pth", "backbone.safetensors"])
def test_insightfaces_model_is_imported_and_built(registry: Registry, tmp_path: Path, kind: str) -> None:
    network, file = small(), tmp_path / kind
    if kind.endswith(".onnx"):
        Exporter().write(file, network)
    elif kind.endswith(".pth"):
        torch.save(network.state_dict(), file)
    else:
        save_file(network.state_dict(), file)
    local = registry.import_file("arcface/w600k_r50", file)
    identity = plugin.build(torch.device("cpu"), local)
    assert isinstance(identity, ArcFace)
    marks = torch.tensor([[[[0.35, 0.4], [0.65, 0.4], [0.5, 0.55], [0.38, 0.7], [0.62, 0.7]]]])
    assert torch.allclose(identity.embed(picture("A"), marks), ArcFace(network).embed(picture("A"), marks), atol=1e-5)
    with safe_open(local["tensors"], "pt") as opened:
        metadata = opened.metadata()
    assert metadata["source"] == kind
    there = importlib.util.find_spec("onnxruntime") is not None
    said = metadata.get("onnxruntime", "")
    assert said.startswith("differs by" if there else "not installed") == kind.endswith(".onnx")


def test_without_onnxruntime_the_import_says_that_it_was_not_compared(tmp_path: Path, monkeypatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else found(name))
    conversion.insightface(Exporter().write(tmp_path / "w600k_r50.onnx", small()), tmp_path)
    with safe_open(tmp_path / conversion.W600K_R50, "pt") as opened:
        assert opened.metadata()["onnxruntime"] == "not installed: not compared"


def test_a_network_that_differs_from_onnxruntimes_is_refused(tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("onnxruntime")
    right = conversion.recognition

    def wrong(path: Path) -> Recognition:
        tensors = dict(right(path).tensors)
        tensors["layer3.0.prelu.weight"] = tensors["layer3.0.prelu.weight"] + 0.1
        return Recognition(tensors, pixels=False)

    monkeypatch.setattr(conversion, "recognition", wrong)
    with pytest.raises(InputError, match="onnxruntime's embedding differs from ours"):
        conversion.insightface(Exporter().write(tmp_path / "w600k_r50.onnx", small()), tmp_path)


class Trap:
    """What would write a file if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["arcface/ir_se50", "arcface/w600k_r50", "vgg16/torchvision", "vgg16/nvidia"])
def test_other_files_are_refused_and_nothing_in_them_is_executed(registry: Registry, tmp_path: Path, name: str) -> None:
    file, sprung = tmp_path / "odd.pth", tmp_path / "sprung"
    torch.save({"trap": Trap(sprung)}, file)
    with pytest.raises(InputError, match=r"odd\.pth is not a state dict that can be read without executing it"):
        registry.import_file(name, file)
    file.write_bytes(pickle.dumps(Trap(sprung), protocol=2))
    with pytest.raises(InputError, match=r"odd\.pth"):
        registry.import_file(name, file)
    assert not sprung.exists()
    file.write_bytes(b"<html>not found</html>")
    with pytest.raises(InputError, match=r"odd\.pth is not a state dict"):
        registry.import_file(name, file)
    torch.save({"epoch": 3}, file)
    with pytest.raises(InputError, match="holds dict, not a state dict"):
        registry.import_file(name, file)
    torch.save({"conv.weight": torch.zeros(1)}, file)
    with pytest.raises(InputError, match=r"these are not the tensors|these tensors have 0"):
        registry.import_file(name, file)
    (tmp_path / "odd.safetensors").write_bytes(b"none")
    with pytest.raises(InputError, match=r"cannot read .*odd\.safetensors"):
        registry.import_file(name, tmp_path / "odd.safetensors")


def test_a_folder_of_models_is_answered_with_what_it_holds(registry: Registry, tmp_path: Path) -> None:
    pack = tmp_path / "buffalo_l"
    pack.mkdir()
    for name in ("det_10g.onnx", "w600k_r50.onnx"):
        (pack / name).touch()
    with pytest.raises(InputError, match=r"give the recognition model in it.*det_10g\.onnx, w600k_r50\.onnx"):
        registry.import_file("arcface/w600k_r50", pack)


def test_torchvisions_vgg16_is_imported_and_built(registry: Registry, tmp_path: Path) -> None:
    network, file = torchvision_like(), tmp_path / "vgg16-397923af.pth"
    torch.save(network.state_dict(), file, _use_new_zipfile_serialization=False)
    perceptual = load_perceptual(registry.import_file("vgg16/torchvision", file), torch.device("cpu"))
    assert perceptual.size == 256
    assert perceptual.lin is None
    assert torch.equal(perceptual.network.features[28].weight, network.features[28].weight)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.jit
def test_nvidias_vgg16_is_imported_and_built(registry: Registry, tmp_path: Path) -> None:
    network = ScriptedVgg16()
    perceptual = load_perceptual(registry.import_file("vgg16/nvidia", scripted(network, tmp_path)), torch.device("cpu"))
    assert perceptual.lin is not None
    image = torch.rand(2, 3, 256, 256, generator=rng(0, "image")) * 2 - 1
    mine = torch.cat([level.flatten(1) for level in perceptual(image)], 1) * len(LIN) ** 0.5
    with torch.no_grad():
        published = network((image + 1) * 127.5)
    assert float((mine - published).abs().max() / published.abs().max()) < 1e-4
