"""What is said before a run: of words and of turned photos."""

from __future__ import annotations

import math
from typing import Any

import pytest

from facednerf_core import caveats
from facednerf_core.cards import Card
from facednerf_core.errors import InputError
from facednerf_core.interfaces import Guidance
from facednerf_core.recipe import Recipe

RECIPE = Recipe(prompt="a woman, blue hair", guidance="words")


class FewWords(Guidance):
    """A guidance that knows few words and reads six at most."""

    def aim(self, *given: Any, **named: Any):
        raise NotImplementedError

    def unknown_words(self, prompt: str) -> tuple[str, ...]:
        words = prompt.lower().replace(",", " ").split()
        return tuple(dict.fromkeys(word for word in words if word not in ("a", "hair", "blue", "woman")))

    def longest_prompt(self, prompt: str) -> tuple[int, int]:
        return len(prompt.split()), 6


def test_words_are_said_and_never_cut() -> None:
    assert caveats.word_notes(FewWords(), RECIPE) == []
    notes = caveats.word_notes(FewWords(), RECIPE.changed(prompt="a zorp woman", negative="blue blick"))
    assert ["zorp" in note for note in notes] == [True, False]
    assert ["blick" in note for note in notes] == [False, True]
    with pytest.raises(InputError, match=r"knows none of the words of the negative prompt.*fdn plugins show words"):
        caveats.word_notes(FewWords(), RECIPE.changed(negative="blick"))
    with pytest.raises(InputError, match="takes 7 tokens and words reads 6"):
        caveats.word_notes(FewWords(), RECIPE.changed(prompt="a woman a woman a blue woman"))


def test_who_cannot_judge_a_turned_photo_is_named() -> None:
    judges = {"identity": Card("faces", "Faces.", print, sees=0.7), "guidance": Card("all", "All.", print)}
    assert caveats.sight_notes(judges, 0.7) == caveats.sight_notes(judges, -0.2) == []
    (note,) = caveats.sight_notes(judges, -1.2)
    assert "identity faces" in note
    assert "40 degrees" in note
    assert "69" in note
    assert caveats.sight_notes(judges, 2 * math.pi - 0.2) == []
    assert len(caveats.sight_notes(judges, math.pi)) == 1, "a card's 3.2 rad are all round"
