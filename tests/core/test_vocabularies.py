"""The words of closed vocabularies, and which words of a text they lack."""

from __future__ import annotations

from pathlib import Path

import pytest

from facednerf_core.vocabularies import FILE, read, unknown

WORDS = frozenset({"a", "man", "glasses", "with"})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a man with glasses", ()),
        ("A MAN, with Glasses!", ()),
        ("a sombrero, with Sombrero and glasses", ("sombrero", "and")),
        ("a man's glasses", ()),
        ("they've 2 men_with hats.", ("they", "men", "hats")),
        ("ein Mädchen", ("ein", "mädchen")),
        ("12 !", ()),
        ("", ()),
    ],
)
def test_the_words_that_a_vocabulary_lacks_are_named_once_and_in_order(text: str, words: tuple[str, ...]) -> None:
    assert unknown(text, WORDS) == words


def test_an_open_vocabulary_lacks_no_word() -> None:
    assert unknown("a sombrero", frozenset()) == ()


def test_a_folder_that_states_no_words_has_an_open_vocabulary(tmp_path: Path) -> None:
    assert read(tmp_path) == frozenset()
    (tmp_path / FILE).write_text("a\nman\nmädchen\n", encoding="utf-8")
    assert read(tmp_path) == {"a", "man", "mädchen"}
