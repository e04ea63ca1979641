"""What a CLIP is asked after training: which sentence belongs to a head, and which of two or more is true of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from facednerf_starter.judges.questions import BOUNDS, CHOICES, HIDDEN, truth
from facednerf_starter.train import tokenizer
from facednerf_starter.train.albums import PITCH, YAW, Portraitist, drawn_by_generator
from facednerf_starter.train.exposures import exposed
from facednerf_starter.train.openclip import pictured, worded
from facednerf_starter.train.sayings import SENTENCES, Sayings, tokens_of
from facednerf_starter.train.sights import SightReader
from facednerf_starter.world.attributes import COLORS, LABELS, Attributes, decode
from facednerf_starter.world.cameras import draw_cameras

PROMPTS: dict[str, tuple[str, ...]] = {
    "glasses": ("a person without glasses", "a person with glasses"),
    "beard": ("a person without a beard", "a person with a beard"),
    "moustache": ("a person without a mustache", "a person with a mustache"),
    "bald": ("a person with hair", "a bald person"),
    "hat": ("a person without a hat", "a person with a hat"),
    "hair_color": tuple(f"a person with {colour} hair" for colour in COLORS),
    "hair_length": ("a person with short hair", "a person with long hair"),
    "smile": ("a serious person", "a smiling person"),
    "old": ("a young person", "an old person"),
    "feminine": ("a man", "a woman"),
    "dark_skin": ("a person with pale skin", "a person with dark skin"),
}
"""By question, the sentences of which one is true."""
PAIRS = 500
"""Pictures among which a sentence is looked for, at most."""


def asked(heads: Attributes) -> dict[str, Tensor]:
    """By question, the number of the true sentence for N heads, (N,) int64, HIDDEN where none or both would do."""
    told = truth(heads)
    choice = {name: told.choices[:, column] for column, name in enumerate(CHOICES)}
    found = {name: choice[name] for name in ("glasses", "moustache", "hat", "hair_color")}
    found["beard"] = choice["beard"].masked_fill(heads.beard == LABELS["beard"].index("goatee"), HIDDEN)
    style, face = choice["hair_style"], choice["expression"]
    found["bald"] = torch.where(style == HIDDEN, HIDDEN, (style == LABELS["hair_style"].index("bald")).long())
    found["hair_length"] = either(style, LABELS["hair_style"].index("short"), LABELS["hair_style"].index("long"))
    found["smile"] = either(face, LABELS["expression"].index("neutral"), LABELS["expression"].index("smile"))
    for name, bound in BOUNDS.items():
        number = getattr(heads, bound.number)
        low = 0.3 if name == "old" else 0.22 if name == "dark_skin" else bound.low  # where captions say the contrary
        found[name] = torch.where(number >= bound.high, 1, torch.where(number <= low, 0, HIDDEN))
    return {name: found[name] for name in PROMPTS}


def either(value: Tensor, no: int, yes: int) -> Tensor:
    """0 where `value` (N,) is `no`, 1 where it is `yes`, HIDDEN elsewhere."""
    return torch.where(value == yes, 1, torch.where(value == no, 0, HIDDEN))


@torch.no_grad()
def measured(
    network: nn.Module,
    reader: SightReader,
    said: Sayings,
    words: tokenizer.CLIPTokenizer,
    seed: int,
    painter: Portraitist | None = None,
) -> dict[str, Any]:
    """Zero-shot accuracy and retrieval on held-out heads, as the world draws them, disguised, and as a generator does."""
    device = reader.device
    heads = reader.shards.held
    people = decode(reader.shards.field("z").take(heads))
    plain, disguised, drawn = [], [], []
    for view in range(reader.shards.views):
        for part in heads.to(device).split(64):
            sights = reader.read(part, torch.full_like(part, view))
            plain.append(pictured(network, sights.image))
            shown = exposed(sights.image, sights.mask, seed, ("clip-held", view, int(part[0])))
            disguised.append(pictured(network, shown))
    found: dict[str, Any] = {
        "zero_shot_world": zero_shot(network, torch.cat(plain), people, words),
        "zero_shot_world_disguised": zero_shot(network, torch.cat(disguised), people, words),
        "retrieval": retrieval(network, torch.cat(plain)[: len(heads)], said.tokens[heads.to(device)]),
    }
    if painter is not None:
        cameras = draw_cameras(seed + 2, 0, len(heads), 1, YAW, PITCH, jitter=0.02)
        album = drawn_by_generator(painter.network, painter.latents(people), cameras, reader.shards.size, device)
        for part in torch.arange(len(album), device=device).split(64):
            drawn.append(pictured(network, album.take(part)[0]))
        found["zero_shot_generator"] = zero_shot(network, torch.cat(drawn), people, words)
    return found


def zero_shot(network: nn.Module, seen: Tensor, people: Attributes, words: tokenizer.CLIPTokenizer) -> dict[str, float]:
    """Of pictures' unit vectors (V N, D) of N people, view after view: how often the nearest sentence is the true one,
    the mean over the sentences, so that the rare ones count as much."""
    shares = {}
    for name, target in asked(people).items():
        wanted = target.repeat(len(seen) // len(target)).to(seen.device)
        told = (seen @ worded(network, tokens_of(PROMPTS[name], words).to(seen.device)).T).argmax(1)
        recalls = [
            (told[wanted == one] == one).float().mean() for one in range(len(PROMPTS[name])) if bool((wanted == one).any())
        ]
        if recalls:
            shares[name] = round(float(torch.stack(recalls).mean()), 4)
    return shares


def retrieval(network: nn.Module, seen: Tensor, tokens: Tensor) -> Mapping[str, float]:
    """Of unit vectors (N, D) of one picture each of N heads and their texts (N, T, TOKENS): how often a head's longest
    sentence finds its picture among the first 1, 5 and 10 of all, and the picture the sentence."""
    sentences = tokens[:PAIRS, :SENTENCES]
    length = (sentences != sentences.amax((1, 2), keepdim=True)).sum(-1)  # the last token number ends and fills a text
    longest = sentences[torch.arange(len(sentences), device=sentences.device), length.argmax(1)]
    similar = worded(network, longest.to(seen.device)) @ seen[:PAIRS].T  # (texts, pictures)
    found: dict[str, float] = {"pairs": len(longest)}
    for name, matrix in (("picture_of_text", similar), ("text_of_picture", similar.T)):
        rank = (matrix > matrix.diagonal()[:, None]).sum(1)
        found |= {f"{name}_at_{most}": round(float((rank < most).float().mean()), 4) for most in (1, 5, 10)}
    return found
