"""The starter's CLIP: what is said of a head, the contrast, and a folder that open_clip itself reads."""

from __future__ import annotations

import json
from functools import partialmethod
from pathlib import Path

import numpy as np
import pytest
import torch
from facednerf_starter.judges.questions import HIDDEN
from facednerf_starter.train import openclip, tokenizer
from facednerf_starter.train.__main__ import main
from facednerf_starter.train.asking import PROMPTS, asked, zero_shot
from facednerf_starter.train.clip import PairReader, contrast, rivals, weighed
from facednerf_starter.train.pieces import Piece
from facednerf_starter.train.sayings import SENTENCES, sayings, single, tokens_of
from facednerf_starter.train.shards import Shards
from facednerf_starter.world.attributes import LABELS, decode, draw
from facednerf_starter.world.captions import facts
from safetensors.torch import load_file

open_clip = pytest.importorskip("open_clip")

CPU = torch.device("cpu")
TINY = ["--device", "cpu", "--tiny", "--batch", "8", "--held", "3"]


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> tokenizer.CLIPTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.write(folder)
    return tokenizer.load(folder)


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders that a run of either kind leaves."""
    root = tmp_path_factory.mktemp("clip")
    for more in ([], ["--judge"]):
        main(["clip", "--data", str(data), "--out", str(root), "--steps", "2", *TINY, *more])
    return {name: root / name for name in ("clip", "clip-judge")}


@pytest.mark.parametrize("name", ["clip", "clip-judge"])
def test_open_clip_reads_the_folder_and_its_tokenizer(trained: dict[str, Path], name: str) -> None:
    where = f"local-dir:{trained[name]}"
    network, _, preprocess = open_clip.create_model_and_transforms(where)
    assert preprocess.transforms[-1].mean == [0.5, 0.5, 0.5]
    tokens = open_clip.get_tokenizer(where)(["glasses", "a person with blue hair"])
    assert tokens.shape == (2, tokenizer.TOKENS)
    network.eval()
    assert torch.allclose(network.encode_text(tokens, normalize=True), openclip.worded(network, tokens))
    kept = load_file(trained[name] / openclip.MODEL)
    assert {value.dtype for value in kept.values()} <= {torch.float16, torch.int64}
    own = network.state_dict()
    assert all(torch.equal(own[key], value.to(own[key].dtype)) for key, value in kept.items())
    assert isinstance(network.visual, open_clip.transformer.VisionTransformer) == (name == "clip")


@pytest.mark.parametrize("name", ["clip", "clip-judge"])
def test_a_card_lies_in_the_folder(trained: dict[str, Path], name: str) -> None:
    card = json.loads((trained[name] / "card.json").read_text())
    assert card["steps"] == 2
    assert card["finished"]
    found = card["measured_on_held_out_heads"]
    assert set(found["zero_shot_world"]) <= set(PROMPTS)
    assert found["retrieval"]["pairs"] == 2
    assert (trained[name] / "vocabulary.txt").exists()
    assert not [path for path in trained[name].iterdir() if path.suffix in (".part", ".bin", ".pt")]


def test_a_resumed_run_equals_an_uninterrupted_one(
    data: Path, trained: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Piece, "run", partialmethod(Piece.run, at_most=1))
    for _ in range(2):
        main(["clip", "--data", str(data), "--out", str(tmp_path), "--steps", "2", *TINY])
    whole, halves = (load_file(folder / openclip.MODEL) for folder in (trained["clip"], tmp_path / "clip"))
    assert all(torch.equal(whole[key], halves[key]) for key in whole)


def test_both_networks_of_the_default_size_fit_into_three_megabytes(words: tokenizer.CLIPTokenizer) -> None:
    for judge in (False, True):
        network = openclip.build(openclip.architecture(len(words), judge=judge))
        assert 1e6 < sum(value.numel() for value in network.parameters()) < 1.35e6


def test_the_judge_hears_other_sentences_from_another_seed(data: Path, words: tokenizer.CLIPTokenizer) -> None:
    shards = Shards(data, held_every=3)
    one, other = sayings(shards, words, 1), sayings(shards, words, 2, fresh=True)
    assert one.tokens.shape == other.tokens.shape == (6, 3 * SENTENCES, tokenizer.TOKENS)
    plain = tokens_of([caption for four in shards.captions() for caption in four], words)
    assert torch.equal(one.tokens[:, :SENTENCES].flatten(0, 1), plain)
    assert not torch.equal(other.tokens[:, :SENTENCES].flatten(0, 1), plain)
    again = sayings(shards, words, 1)
    assert torch.equal(again.tokens, one.tokens)
    same = (one.tokens.flatten(0, 1)[:, None] == one.tokens.flatten(0, 1)[None]).all(-1)
    assert torch.equal(same, one.numbers.flatten()[:, None] == one.numbers.flatten()[None])


def test_a_single_attribute_is_true_and_in_the_vocabulary() -> None:
    heads = decode(draw(3, 0, 40))
    chance = np.random.default_rng(0)
    texts = [(head, single(facts(heads, head), chance)) for head in range(40) for _ in range(20)]
    assert not tokenizer.unknown(" ".join(text for _, text in texts))
    for name, word in (("glasses", "glasses"), ("hat", "hat")):
        told = [(int(getattr(heads, name)[head]), "without" not in text) for head, text in texts if word in text.split()]
        assert told
        assert all(bool(has) == said for has, said in told)
    assert max(len(text.split()) for _, text in texts) < 12


def test_heads_without_an_answer_are_not_asked() -> None:
    heads = decode(draw(3, 0, 8)).replace(hat=0, hair_style="bald", beard="goatee", age=0.5, expression="angry")
    targets = asked(heads)
    assert set(targets) == set(PROMPTS)
    for name in ("hair_color", "hair_length", "beard", "old", "smile"):
        assert (targets[name] == HIDDEN).all()
    assert (targets["bald"] == 1).all()
    assert (asked(heads.replace(hair_style="long"))["hair_length"] == 1).all()


def test_rare_answers_count_as_much(words: tokenizer.CLIPTokenizer) -> None:
    """Who finds the first sentence always is right half of the time, however seldom the second is true."""
    network = openclip.build(openclip.architecture(len(words), tiny=True)).eval()
    people = decode(draw(3, 0, 10)).replace(glasses=0)
    column = people.category.clone()
    column[0, list(LABELS).index("glasses")] = 1
    people = type(people)(people.unit, people.shape, column, people.light)
    without = openclip.worded(network, tokens_of(PROMPTS["glasses"], words))[:1].detach()
    assert zero_shot(network, without.expand(20, -1), people, words)["glasses"] == 0.5


def test_equal_texts_and_equal_heads_do_not_compete() -> None:
    compete = rivals(torch.tensor([0, 1, 0, 3]), torch.tensor([5, 6, 7, 6]))
    assert compete.diagonal().all()
    assert not compete[0, 2]
    assert not compete[1, 3]
    assert compete.sum() == 12
    vectors = torch.eye(4)[[0, 1, 0, 1]]
    loss, right = contrast(vectors, vectors, torch.tensor(50.0), compete)
    assert loss < 1e-3
    assert right == 1
    assert contrast(vectors, vectors, torch.tensor(50.0), torch.ones(4, 4, dtype=torch.bool))[0] > 0.5


def test_held_out_heads_are_never_learned_from(data: Path, words: tokenizer.CLIPTokenizer) -> None:
    shards = Shards(data, held_every=3)
    pairs = PairReader(shards, CPU, sayings(shards, words, 1), 1)
    image, heads, tokens, texts = pairs.read(32, 5)
    assert image.shape == (32, 3, 64, 64)
    assert image.abs().max() <= 1
    assert torch.isin(heads, shards.training).all()
    rows = pairs.said.tokens[heads].long()
    assert (rows == tokens[:, None]).all(-1).any(1).all()
    assert torch.equal(image, pairs.read(32, 5)[0])
    assert len(texts) == 32


def test_scales_and_positions_do_not_decay(words: tokenizer.CLIPTokenizer) -> None:
    network = openclip.build(openclip.architecture(len(words), tiny=True))
    decaying, free = weighed(network, 0.1)
    assert (decaying["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    assert any(p is network.logit_scale for p in free["params"])
    assert all(p.ndim > 1 for p in decaying["params"])
    assert len(decaying["params"]) + len(free["params"]) == len(list(network.parameters()))
