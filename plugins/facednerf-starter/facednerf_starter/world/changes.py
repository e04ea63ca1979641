"""Attributes that a user sets by name, with the words and numbers that the world has for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

import torch

from facednerf_core.errors import InputError
from facednerf_starter.world.attributes import LABELS, SHAPE, UNIT, Attributes

REACH = 2.2
"""The largest absolute value of a shape attribute."""
ROUNDING = 1e-6
"""By which a limit may be passed: numbers of a sheet's facts are float32."""


def offered() -> dict[str, tuple[str, ...] | tuple[float, float]]:
    """What each attribute may be: its words, or its least and its greatest number."""
    numbers = dict.fromkeys(UNIT, (0.0, 1.0)) | dict.fromkeys(SHAPE, (-REACH, REACH))
    return {**LABELS, **numbers}


def read(texts: Iterable[str]) -> dict[str, str | float]:
    """Changes by attribute from texts such as "glasses=yes", "hair_colour=blue", "open mouth" with dashes, or "age=0.9".

    Raises:
        InputError: no such attribute or value, or an attribute given twice.
    """
    found: dict[str, str | float] = {}
    for text in texts:
        asked, equals, value = (part.strip() for part in text.partition("="))
        if not (asked and equals and value):
            raise InputError(f"{text!r}: say NAME=VALUE, such as glasses=yes or age=0.9.")
        name = attribute(asked)
        if name in found:
            raise InputError(f"{name} is given twice: as {found[name]} and as {value}.")
        found[name] = _value(name, value)
    return found


def changed(heads: Attributes, changes: Mapping[str, str | float]) -> Attributes:
    """The same heads with `changes` to each of them; nothing else about them changes.

    Raises:
        InputError: no such attribute or value.
    """
    return heads.replace(**checked(changes))


def checked(changes: Mapping[str, str | float]) -> dict[str, str | float]:
    """The same changes with the names and words that the world has for them.

    Raises:
        InputError: no such attribute or value.
    """
    return {attribute(name): _value(attribute(name), value) for name, value in changes.items()}


def described(heads: Attributes, number: int) -> dict[str, str | float]:
    """Every attribute of one of the heads, by name: words of categories, and numbers as they are."""
    words: dict[str, str | float] = {name: heads.named(name, number) for name in LABELS}
    return words | {name: float(getattr(heads, name)[number]) for name in (*UNIT, *SHAPE)}


def attribute(asked: str) -> str:
    """The attribute that a name means, dashes and British spelling allowed.

    Raises:
        InputError: there is none; the message offers the nearest.
    """
    name = asked.lower().replace("-", "_").replace(" ", "_").replace("colour", "color")
    if name in offered():
        return name
    numbers = len(UNIT) + len(SHAPE)
    raise InputError(
        f"no attribute {asked!r}; there are {', '.join(LABELS)}, and {numbers} numbers (fdn starter attributes)."
        + _nearest(name, tuple(offered()))
    )


def _value(name: str, asked: str | float) -> str | float:
    values = offered()[name]
    if name in LABELS:
        word = _plain(str(asked))
        for value in LABELS[name]:
            if _plain(value) == word:
                return value
        raise InputError(f"{name} cannot be {asked!r}; it can be {', '.join(LABELS[name])}.{_nearest(word, LABELS[name])}")
    low, high = values
    try:
        number = float(asked)
    except ValueError as error:
        raise InputError(f"{name} must be a number within {low} and {high}, not {asked!r}.") from error
    if not float(low) - ROUNDING <= number <= float(high) + ROUNDING:
        raise InputError(f"{name} must be within {low} and {high}, not {number:g}.")
    return float(torch.tensor(number, dtype=torch.float32))


def _plain(word: str) -> str:
    return word.lower().replace("-", " ").replace("_", " ")


def _nearest(asked: str, known: Sequence[str]) -> str:
    close = get_close_matches(asked, known, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
