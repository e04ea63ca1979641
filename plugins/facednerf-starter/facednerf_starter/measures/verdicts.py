"""Whether pictures show what was asked for, by the attribute judge."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from facednerf_starter.judges.questions import BOUNDS, CHOICES, Answers
from facednerf_starter.world.attributes import LABELS

Asked = Mapping[str, str]
"""By question the word that is asked for: of `LABELS` for a choice, "yes" or "no" for a bound."""
SLACK = 0.25
"""By how much a number may move before its attribute counts as changed."""


def together(found: Answers) -> Answers:
    """One answer (1,) from those about several pictures of one head: logits and numbers are averaged."""
    return Answers(
        {name: value.mean(0, keepdim=True) for name, value in found.logits.items()},
        {name: value.mean(0, keepdim=True) for name, value in found.numbers.items()},
    )


def follows(found: Answers, asked: Asked) -> dict[str, Tensor]:
    """For each question of `asked`, whether the answers (N,) are the word that is asked for.

    Raises:
        KeyError: there is no such question, or it has no such answer.
    """
    told: dict[str, Tensor] = {}
    for name, word in asked.items():
        if name in BOUNDS and word in ("yes", "no"):
            told[name] = found.says(name) == (word == "yes")
        elif name in CHOICES and word in LABELS[name]:
            told[name] = found.choice(name) == LABELS[name].index(word)
        else:
            raise KeyError(f"no judge answers {word!r} to {name!r}; it is asked about {', '.join((*CHOICES, *BOUNDS))}")
    return told


def obeyed(found: Answers, asked: Asked) -> float:
    """1 if the answer about one head (1,) is all that is asked for, else 0."""
    return float(all(bool(right) for right in follows(found, asked).values()))


def changed(before: Answers, after: Answers, free: set[str]) -> dict[str, bool]:
    """For every question but those that are `free` to change, whether the answer about one head is another one.

    A colour of hair is not compared where either picture shows a bald head.
    """
    told: dict[str, bool] = {}
    for name in CHOICES:
        if name not in free:
            told[name] = bool(before.choice(name) != after.choice(name))
    for name, bound in BOUNDS.items():
        if name not in free:
            told[name] = bool((before.numbers[bound.number] - after.numbers[bound.number]).abs() > SLACK)
    if "bald" in (before.words("hair_style")[0], after.words("hair_style")[0]):
        told.pop("hair_color", None)
    return told
