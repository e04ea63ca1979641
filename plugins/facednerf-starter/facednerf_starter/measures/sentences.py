"""What the benchmark asks for: sentences of edits, and captions, half written freely and half by the world's grammar."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from facednerf_starter.measures.people import SEED, held_out
from facednerf_starter.world.captions import caption, facts

FILE = Path(__file__).with_name("sentences.toml")
TOPICS = ("glasses", "beard", "bald", "hat", "hair colour", "hair length", "smile", "age")


@dataclass(frozen=True)
class Sentence:
    """A sentence, and what the attribute judge must say of what it makes."""

    text: str
    asks: Mapping[str, str]
    topic: str = ""
    free: bool = True  # written freely, not by the world's grammar
    frees: tuple[str, ...] = ()  # what may change with it
    goal: float = 0.9


@cache
def _file() -> dict[str, Any]:
    return tomllib.loads(FILE.read_text(encoding="utf-8"))


def edits() -> tuple[Sentence, ...]:
    """The sentences by which held-out heads are edited."""
    return tuple(
        Sentence(entry["sentence"], entry["asks"], frees=tuple(entry.get("frees", ())), goal=entry["goal"])
        for entry in _file()["edit"]
    )


def portrait_edits() -> tuple[Sentence, ...]:
    """The sentences by which real photos are edited."""
    return tuple(Sentence(entry["sentence"], entry["asks"]) for entry in _file()["portrait"])


def captions(each: int) -> tuple[Sentence, ...]:
    """For every topic `each` captions written freely and as many by the world's grammar."""
    free = [Sentence(entry["text"], entry["asks"], entry["topic"]) for entry in _file()["caption"]]
    grammar = _by_grammar(each)
    return tuple(
        sentence
        for topic in TOPICS
        for pool in (free, grammar)
        for sentence in [one for one in pool if one.topic == topic][:each]
    )


def _by_grammar(each: int) -> list[Sentence]:
    """True sentences about held-out heads that say something on a topic, `each` for every topic."""
    found: list[Sentence] = []
    first = 4096  # other heads than those that are inverted
    while any(sum(one.topic == topic for one in found) < each for topic in TOPICS):
        heads = held_out(64, first=first)
        for head in range(len(heads)):
            rng = np.random.Generator(np.random.Philox(key=[SEED, first + head]))
            text, said = caption(heads, head, rng), facts(heads, head)
            found += [
                Sentence(text, asks, topic, free=False)
                for topic, asks in told(text, said, _words(heads, head)).items()
                if sum(one.topic == topic for one in found) < each
            ]
        first += 64
    return found


def _words(heads: Any, head: int) -> dict[str, str]:
    names = ("hair_style", "hair_color", "beard", "glasses", "hat", "expression")
    return {name: heads.named(name, head) for name in names} | {"age": f"{float(heads.age[head]):.3f}"}


def told(text: str, said: Mapping[str, list[str]], true: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Which topics a caption speaks of, and what it asks the judge there: what is true of its head, if it says so."""

    def says(topic: str) -> bool:
        return any(f" {wording} " in f" {text.replace(',', ' ')} " for wording in said.get(topic, ()))

    found: dict[str, dict[str, str]] = {}
    for topic in ("glasses", "hat"):
        if says(topic):
            found[topic] = {topic: "yes"}
    if says("beard"):
        found["beard"] = {"beard": true["beard"]}
    if true["hair_style"] == "bald":
        if says("hair"):
            found["bald"] = {"hair_style": "bald"}
    else:
        if says("hair") or says("hair color"):
            found["hair colour"] = {"hair_color": true["hair_color"]}
        if (says("hair") or says("hair style")) and true["hair_style"] in ("short", "long"):
            found["hair length"] = {"hair_style": true["hair_style"]}
    if true["expression"] == "smile" and any(word in text.split() for word in ("smile", "smiling", "happy")):
        found["smile"] = {"expression": "smile"}
    age = said.get("age", [])
    if says("age") and age[0] in ("old", "young"):
        found["age"] = {"old": "yes" if age[0] == "old" else "no"}
    return found
