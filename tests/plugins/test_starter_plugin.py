"""The starter's weights cards: names, hashes of what is shipped, and the words of its text encoder."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import facednerf_starter.plugin
import pytest
from facednerf_starter.plugin import FOLDER, HASHES
from facednerf_starter.train import exports

from facednerf_core.cards import WeightsCard
from facednerf_core.errors import MissingWeights
from facednerf_core.plugins import Shelves
from facednerf_core.weights import Registry, digest

AGAIN = "a shipped file was replaced: run python -m facednerf_starter.train.exports"


@pytest.fixture(scope="module")
def cards() -> dict[str, WeightsCard]:
    shelves = Shelves(starter=facednerf_starter.plugin)
    assert not shelves.broken
    return shelves.weights


def test_the_names_of_its_weights(cards: dict[str, WeightsCard]) -> None:
    backbones, guides = ["eg3d/starter", "panohead/starter"], ["sds/starter", "clip/starter"]
    judges = ["arcface/starter", "dpr/starter", "vgg16/starter", "starter/detector"]
    assert list(cards) == [*backbones, *guides, *judges]


def test_every_shipped_file_is_the_one_of_its_card(cards: dict[str, WeightsCard], tmp_path: Path) -> None:
    registry = Registry(cards, tmp_path)
    for card in cards.values():
        assert card.sha256.keys() == card.files.keys()
        assert registry.hashes(card) == card.sha256, AGAIN


def test_a_file_that_is_not_the_shipped_one_is_refused(cards: dict[str, WeightsCard], tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "weights")
    for name, changed in (("vgg16/starter", "perceptual.safetensors"), ("sds/starter", "diffusion/unet/config.json")):
        card = replace(cards[name], folder=tmp_path / "weights")
        Registry({name: card}, tmp_path / "cache").local(card)
        file = tmp_path / "weights" / changed
        file.write_bytes(file.read_bytes()[:-1] + b" ")
        with pytest.raises(MissingWeights, match="is damaged"):
            Registry({name: card}, tmp_path / "cache").local(card)


def test_its_pack_has_a_relighter_and_no_gap(cards: dict[str, WeightsCard], tmp_path: Path) -> None:
    pack = Registry(cards, tmp_path).packs()["starter"]
    assert "relighter" in {card.kind for card in pack.present}
    assert pack.complete
    without = {name: replace(card, folder=tmp_path) if card.kind == "relighter" else card for name, card in cards.items()}
    assert Registry(without, tmp_path).packs()["starter"].gaps == {"relighter": ("face", "head")}


def test_the_hashes_are_written_anew_by_one_command(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "weights")
    sealed = exports.seal(tmp_path / "weights")
    assert sealed == json.loads(HASHES.read_text()), AGAIN
    other = tmp_path / "weights" / "generator.safetensors"
    other.write_bytes(b"trained better")
    (tmp_path / "weights" / "diffusion" / "card.json").write_text("{}")
    again = exports.seal(tmp_path / "weights")
    assert again == {**sealed, other.name: digest(other), "diffusion": digest(tmp_path / "weights" / "diffusion")}
    assert again["diffusion"] != sealed["diffusion"]
    assert json.loads((tmp_path / "weights" / HASHES.name).read_text()) == again


def test_a_card_without_a_hash_says_what_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facednerf_starter.plugin, "_hashes", dict)
    (broken,) = Shelves(starter=facednerf_starter.plugin).broken
    assert "run: python -m facednerf_starter.train.exports" in broken.reason


def test_model_cards_are_of_the_files_beside_them() -> None:
    cards = sorted(FOLDER.glob("*.card.json"))
    assert len(cards) == 8
    for path in cards:
        file = path.with_name(path.name.removesuffix(".card.json") + ".safetensors")
        assert json.loads(path.read_text())["bytes"] == file.stat().st_size, path.name


def test_a_model_card_of_a_run_that_was_closed_early_says_so() -> None:
    for path in FOLDER.rglob("*card.json"):
        card = json.loads(path.read_text())
        if "origin" not in card:
            assert card["finished"] or card["ended"].startswith("closed early"), path


def test_one_network_is_anothers_and_says_whose_and_under_which_licence() -> None:
    known = {path.name: json.loads(path.read_text()) for path in FOLDER.rglob("*card.json")}
    others = {name: card for name, card in known.items() if "origin" in card}
    assert set(others) == {"segmenter.card.json"}
    assert "Google" in others["segmenter.card.json"]["origin"]
    assert others["segmenter.card.json"]["licence"] == "Apache-2.0"


def test_the_words_are_those_of_the_tokenizer(cards: dict[str, WeightsCard]) -> None:
    tokenizer = FOLDER / "diffusion" / "tokenizer"
    known = cards["sds/starter"].vocabulary
    assert known == tuple((tokenizer / "vocabulary.txt").read_text().split())
    tokens = json.loads((tokenizer / "vocab.json").read_text())
    assert all(f"{word}</w>" in tokens for word in known)
    assert cards["clip/starter"].vocabulary == known
    assert not any(card.vocabulary for name, card in cards.items() if name not in ("sds/starter", "clip/starter"))
