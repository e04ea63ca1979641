"""The cards of the published networks, and what becomes of an official checkpoint: here a tiny one, in their format."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from facednerf_eg3d import conversion
from facednerf_eg3d.generator import Eg3d, read
from facednerf_eg3d.network import TriPlaneGenerator
from facednerf_eg3d.official import RELEASES
from facednerf_eg3d.plugin import build, register_weights
from facednerf_eg3d.triplanes import EG3D_AXES
from safetensors.torch import load_file

from facednerf_core.cards import WeightsCard
from facednerf_core.errors import InputError
from facednerf_core.framing import Framing
from facednerf_core.unpickle import Refused
from facednerf_core.views import Orbit
from facednerf_core.weights import Registry, fetchable
from tests.official_pickles import Persistent, generator, write
from tests.plugins.eg3d_goldens import GOLDEN, TINY, assert_golden, draws, stored

CONFIGS = {"ffhq": "ffhq512_128", "cats": "afhqcats512_128", "cars": "shapenetcars128_64"}
FACTS = json.loads((GOLDEN / "golden_tiny.json").read_text())


def cards() -> dict[str, WeightsCard]:
    found: list[WeightsCard] = []
    register_weights(found.append)
    return {card.name: card for card in found}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The card of faces takes the shrunken generator, which differs by its size alone."""
    monkeypatch.setitem(RELEASES, "ffhq", replace(RELEASES["ffhq"], resolution=64))


def checkpoint(**attributes: Any) -> dict[str, Any]:
    """What an official file holds, of the golden shrunken generator."""
    tensors = {"dataset_label_std": torch.ones(25), **stored("params.")}
    made = generator(tensors, FACTS["init_kwargs"], **({"neural_rendering_resolution": 16} | attributes))
    return {"training_set_kwargs": {}, "G": None, "D": None, "G_ema": made, "augment_pipe": None}


def test_the_cards() -> None:
    found = cards()
    assert list(found) == ["eg3d/ffhq", "eg3d/cats", "eg3d/cars"]
    for name, card in found.items():
        assert (card.plugin, card.kind, card.pack, card.latent) == ("eg3d", "generator", "official", (14, 512))
        module, _, function = card.converter.partition(":")
        assert callable(getattr(import_module(module), function))
        assert "NVIDIA" in card.licence
        assert "not commercially" in card.terms_of_use
        assert not fetchable(card)  # it stands behind a form
        assert Orbit(**card.orbit).radius == (1.7 if name == "eg3d/cars" else 2.7)
    assert [card.domains for card in found.values()] == [("face",), ("cat",), ("car",)]
    assert [Orbit(**card.orbit).pivot for card in found.values()] == [(0, 0, 0.2), (0, 0, -0.06), (0, 0, 0)]
    assert [Orbit(**card.orbit).focal for card in found.values()] == [4.2647, 4.2647, 1.7074]
    assert ["mask" in card.provides for card in found.values()] == [False, False, True]


def test_photos_of_faces_are_framed_as_their_pose_estimator_frames_them() -> None:
    """Eyes level, a quarter of the width apart, the nose at the middle, the mouth below."""
    card = cards()["eg3d/ffhq"]
    framing = Framing.of(card.crop)
    assert framing is not None
    left, right, nose, *mouth = framing.seen(Orbit(**card.orbit).camera())
    assert right[0] - left[0] == pytest.approx(0.27, abs=0.01)
    assert left[1] == pytest.approx(right[1])
    assert left[1] == pytest.approx(0.375, abs=0.01)
    assert nose == pytest.approx([0.5, 0.52], abs=0.01)
    assert mouth[0][1] == pytest.approx(0.666, abs=0.01)


@pytest.mark.parametrize("name", RELEASES)
def test_arguments_are_those_of_the_checkpoints(name: str) -> None:
    entry = json.loads((GOLDEN / "state_dict_keys.json").read_text())["configs"][CONFIGS[name]]
    ours, theirs = RELEASES[name].arguments(), entry["init_kwargs"]
    assert ours["neural_rendering_resolution"] == entry["neural_rendering_resolution"]
    training = {"gpc_reg_prob", "density_reg", "density_reg_p_dist", "reg_type"}
    assert set(theirs["rendering_kwargs"]) - set(ours["rendering_kwargs"]) == training
    assert all(theirs["rendering_kwargs"][key] == value for key, value in ours["rendering_kwargs"].items())
    assert set(theirs) - set(ours) == {"fused_modconv_default", "num_fp16_res", "sr_kwargs"}  # none of them acts
    assert all(theirs.get(key, value) == value for key, value in ours.items() if key != "rendering_kwargs")
    with torch.device("meta"):
        built, official = TriPlaneGenerator(**ours), TriPlaneGenerator(**theirs)
    assert [(k, v.shape) for k, v in built.state_dict().items()] == [(k, v.shape) for k, v in official.state_dict().items()]
    assert built.options == official.options


@pytest.mark.parametrize("protocol", [2, 4])
def test_an_official_checkpoint_is_imported_and_drawn(tmp_path: Path, small: None, protocol: int) -> None:
    path = write(tmp_path / "official.pkl", checkpoint(), protocol)
    card = cards()["eg3d/ffhq"]
    local = Registry({card.name: card}, tmp_path / "cache").import_file("eg3d/ffhq", path)
    kept = load_file(local["tensors"])
    assert sorted(kept) == sorted(stored("params."))
    assert all(torch.equal(kept[name], value) for name, value in stored("params.").items())
    built = build(torch.device("cpu"), local, rules="official", faint=0.0)
    assert isinstance(built, Eg3d)
    assert built.orbit == Orbit()
    assert built.network.axes == EG3D_AXES
    assert built.network.neural_rendering_resolution == 16
    image, _ = built.network(TINY["in.ws"], TINY["in.c"][:, None], draws=draws(), rules="official")
    assert_golden("image", image)


def test_what_was_changed_after_construction_counts(tmp_path: Path, small: None) -> None:
    """The rendering arguments and the planes' axes that the network had when it was saved."""
    held = checkpoint()
    held["G_ema"].rendering_kwargs = dict(held["G_ema"].rendering_kwargs, depth_resolution=28)
    held["G_ema"].renderer.plane_axes = held["G_ema"].renderer.plane_axes[[0, 1, 1]]
    conversion.ffhq(write(tmp_path / "official.pkl", held), tmp_path)
    config = json.loads((tmp_path / "generator.json").read_text())
    assert config["rendering_kwargs"]["depth_resolution"] == 28
    network = read(tmp_path / "generator.safetensors", tmp_path / "generator.json")
    assert network.options.coarse == 28
    assert network.axes == ((0, 1), (0, 2), (0, 2))


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_alone_get_the_arguments_of_the_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    """As FaceDNeRF's converted files hold them."""
    sampling = FACTS["init_kwargs"]["rendering_kwargs"]
    small_one = replace(RELEASES["ffhq"], resolution=64, rays=16, sampling=sampling)
    monkeypatch.setattr(
        type(small_one), "arguments", lambda self: FACTS["init_kwargs"] | {"neural_rendering_resolution": 16}
    )
    path = tmp_path / "G_ema.pt"
    torch.save({"G_ema": stored("params.")}, path, _use_new_zipfile_serialization=zipped)
    conversion.convert(path, tmp_path, small_one)
    config = json.loads((tmp_path / "generator.json").read_text())
    assert config["neural_rendering_resolution"] == 16
    assert sorted(load_file(tmp_path / "generator.safetensors")) == sorted(stored("params."))


def test_another_release_is_told_apart(tmp_path: Path, small: None) -> None:
    path = write(tmp_path / "official.pkl", checkpoint())
    with pytest.raises(InputError, match=r"not what eg3d/cats stands for: it has img_resolution 64.*looks like eg3d/ffhq"):
        conversion.cats(path, tmp_path)
    held = checkpoint()
    held["G_ema"].rendering_kwargs = dict(held["G_ema"].rendering_kwargs, avg_camera_pivot=[0, 0, 1])
    with pytest.raises(InputError, match="a weights card of your own"):
        conversion.ffhq(write(tmp_path / "official.pkl", held), tmp_path)


def test_another_network_is_refused(tmp_path: Path, small: None) -> None:
    held = checkpoint()
    held["G_ema"].__class__ = type("DualDiscriminator", (Persistent,), {})
    with pytest.raises(InputError, match="holds a DualDiscriminator; a TriPlaneGenerator is wanted"):
        conversion.ffhq(write(tmp_path / "official.pkl", held), tmp_path)
    held = checkpoint()
    del held["G_ema"].decoder.net[0]._parameters["weight"]
    with pytest.raises(InputError, match=r"decoder\.net\.0\.weight is missing"):
        conversion.ffhq(write(tmp_path / "official.pkl", held), tmp_path)
    assert not list(tmp_path.glob("generator.*"))


def test_a_file_that_wants_more_than_tensors_is_refused(tmp_path: Path, small: None) -> None:
    held = checkpoint(hook=print)
    card = cards()["eg3d/ffhq"]
    registry = Registry({card.name: card}, tmp_path / "cache")
    with pytest.raises(Refused, match=r"asks for builtins\.print.*Nothing in it was executed"):
        registry.import_file("eg3d/ffhq", write(tmp_path / "official.pkl", held))
    assert not registry.present(card)
