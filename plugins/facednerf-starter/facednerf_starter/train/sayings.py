"""What is said of every head of some shards, as token numbers: sentences, sentences as users phrase them, single attributes.

A single attribute is what an edit asks for ("glasses", "a person with blue hair"), or denies ("a man without a hat").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from facednerf_starter.train import draws, phrasing, tokenizer
from facednerf_starter.train.shards import Shards
from facednerf_starter.world.attributes import decode
from facednerf_starter.world.captions import article, caption, facts

Said = Mapping[str, Sequence[str]]
"""Wordings by topic, as `world.captions.facts` tells them."""

SENTENCES = 4
"""Sentences of every head; as many again are dressed, and as many name a single attribute."""
DENIED: dict[str, str] = {
    "glasses": "glasses", "beard": "a beard", "moustache": "a mustache", "hat": "a hat", "lipstick": "lipstick",
    "hair color": "hair",
}  # fmt: skip
"""By topic of `facts`, what a head lacks of which that topic does not speak."""
OFTEN: Mapping[str, float] = {"eyes": 0.5, "skin": 0.5, "clothes": 0.5, "hair style": 0.5}
"""How often a single attribute is of a topic, beside the topics that are not listed, which count 1."""


@dataclass(frozen=True)
class Sayings:
    """N texts about each of M heads; the first SENTENCES are whole sentences, as they are."""

    tokens: Tensor  # (M, N, TOKENS) int16
    numbers: Tensor  # (M, N) int64, equal where the texts are equal

    def to(self, device: torch.device) -> Sayings:
        """The same on a device."""
        return Sayings(self.tokens.to(device), self.numbers.to(device))

    def take(self, heads: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Token numbers (B, TOKENS) int64 and numbers of the texts (B,), of heads (B,) and columns (B,)."""
        return self.tokens[heads, columns].long(), self.numbers[heads, columns]


def sayings(
    shards: Shards, words: tokenizer.CLIPTokenizer, seed: int, *, fresh: bool = False, often: Mapping[str, float] = OFTEN
) -> Sayings:
    """What is said of the heads of shards: sentences, dressed sentences, single attributes.

    The sentences are the shards' captions; with `fresh`, others that `seed` draws. `often` as in `OFTEN`.

    Raises:
        VocabularyError: a text holds a word that the vocabulary lacks, or too many words.
    """
    heads = decode(shards.field("z").take(torch.arange(shards.count)))
    captions = shards.captions()
    texts: list[str] = []
    for head in range(shards.count):
        chance = draws.generator(seed, "sayings", head)
        said = facts(heads, head)
        sentences = [caption(heads, head, chance) for _ in range(SENTENCES)] if fresh else captions[head][:SENTENCES]
        texts += sentences
        texts += [phrasing.dressed(sentence, chance) for sentence in sentences]
        texts += [single(said, chance, often) for _ in range(SENTENCES)]
    missing = tokenizer.unknown(" ".join(texts))
    if missing:
        raise tokenizer.VocabularyError(f"texts hold words that the vocabulary lacks: {', '.join(missing)}; make new shards")
    numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    distinct = tokens_of(list(numbers), words)
    which = torch.tensor([numbers[text] for text in texts]).view(shards.count, -1)
    return Sayings(distinct[which], which)


def tokens_of(texts: Sequence[str], words: tokenizer.CLIPTokenizer) -> Tensor:
    """Token numbers (N, TOKENS) int16 of texts.

    Raises:
        VocabularyError: a text is too long.
    """
    longest = max(texts, key=lambda text: len(tokenizer.split(text)))
    if len(tokenizer.split(longest)) > tokenizer.TOKENS - 2:
        raise tokenizer.VocabularyError(f"'{longest}' has more than the {tokenizer.TOKENS - 2} words that are read")
    parts = []
    for at in range(0, len(texts), 4096):
        some = list(texts[at : at + 4096])
        cut = words(some, padding="max_length", truncation=True, max_length=tokenizer.TOKENS, return_tensors="pt")
        parts.append(cut.input_ids.short())
    return torch.cat(parts)


def single(said: Said, chance: np.random.Generator, often: Mapping[str, float] = OFTEN) -> str:
    """One thing that is true of a head: bare, or of a person who has it, is it, or lacks it; `often` as in `OFTEN`."""

    def pick(wordings: Sequence[str]) -> str:
        return wordings[int(chance.integers(len(wordings)))]

    noun = pick(said["noun"]) if chance.random() < 0.5 else "person"
    lacks = [thing for topic, thing in DENIED.items() if topic not in said]
    if lacks and chance.random() < 0.2:
        without = f"without {pick(lacks)}"
        return without if chance.random() < 0.3 else f"{article(noun)} {without}"
    topics = [topic for topic in said if topic != "no glasses"]
    weights = np.array([often.get(topic, 1.0) for topic in topics])
    topic = topics[int(chance.choice(len(topics), p=weights / weights.sum()))]
    phrase = pick(said[topic])
    if topic == "noun":
        return article(phrase)
    if topic == "hair color" and chance.random() < 0.15:
        phrase = "hair"
    bare = chance.random() < 0.5
    thing = phrase.removeprefix("with ")
    if topic == "age" or phrase == "bald" or (topic == "expression" and thing == phrase):
        return phrase if bare else article(f"{phrase} {noun}")
    if bare:
        return thing
    worn = topic in ("glasses", "hat", "clothes") and chance.random() < 0.5
    return f"{article(noun)} {'wearing' if worn else 'with'} {thing}"
