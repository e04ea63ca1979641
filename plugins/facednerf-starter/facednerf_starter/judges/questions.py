"""What the attribute judge is asked, and what of it a picture of a head can answer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from facednerf_starter.world.attributes import LABELS, Attributes

CHOICES: tuple[str, ...] = ("hair_style", "hair_color", "beard", "moustache", "glasses", "hat", "lipstick", "expression")
"""Attributes of which the judge picks one of the words in `world.attributes.LABELS`."""
NUMBERS: tuple[str, ...] = ("age", "femininity", "skin")
"""Attributes that the judge tells as numbers in [0, 1]."""
OUTPUTS: int = sum(len(LABELS[name]) for name in CHOICES) + len(NUMBERS)
HIDDEN = -100
"""Stands for a choice that the picture cannot answer (`torch.nn.functional.cross_entropy` passes over it)."""


@dataclass(frozen=True)
class Bound:
    """A yes or no told by a number: no up to `low`, yes from `high` on, between them neither."""

    number: str
    low: float
    high: float

    @property
    def middle(self) -> float:
        """Where the judge's own number turns from no to yes."""
        return (self.low + self.high) / 2


BOUNDS: dict[str, Bound] = {
    "old": Bound("age", 0.55, 0.72),
    "feminine": Bound("femininity", 0.4, 0.6),
    "dark_skin": Bound("skin", 0.5, 0.72),
}
"""As the captions draw the lines (`world.captions`), with a margin in which both answers are right."""


@dataclass(frozen=True)
class Truth:
    """The right answers for N heads."""

    choices: Tensor  # (N, len(CHOICES)) int64, HIDDEN where it cannot be seen
    numbers: Tensor  # (N, len(NUMBERS)) in [0, 1]

    def __getitem__(self, heads: Tensor) -> Truth:
        return Truth(self.choices[heads], self.numbers[heads])

    @staticmethod
    def cat(parts: list[Truth]) -> Truth:
        """Several as one."""
        return Truth(torch.cat([p.choices for p in parts]), torch.cat([p.numbers for p in parts]))


@dataclass(frozen=True)
class Answers:
    """What the judge says of N pictures."""

    logits: dict[str, Tensor]  # for each of CHOICES (N, number of its words)
    numbers: dict[str, Tensor]  # for each of NUMBERS (N,)

    def choice(self, name: str) -> Tensor:
        """The picked word's number (N,)."""
        return self.logits[name].argmax(-1)

    def words(self, name: str) -> list[str]:
        """The picked words."""
        return [LABELS[name][int(number)] for number in self.choice(name)]

    def says(self, name: str) -> Tensor:
        """Yes or no (N,) to one of BOUNDS."""
        bound = BOUNDS[name]
        return self.numbers[bound.number] > bound.middle


def answers(outputs: Tensor) -> Answers:
    """The judge's outputs (N, OUTPUTS) by name."""
    if outputs.shape[-1] != OUTPUTS:
        raise ValueError(f"{outputs.shape[-1]} outputs; the attribute judge has {OUTPUTS}: {', '.join(CHOICES + NUMBERS)}")
    parts = outputs.float().split([*(len(LABELS[name]) for name in CHOICES), *(1 for _ in NUMBERS)], dim=-1)
    return Answers(
        logits=dict(zip(CHOICES, parts[: len(CHOICES)], strict=True)),
        numbers={name: part[..., 0] for name, part in zip(NUMBERS, parts[len(CHOICES) :], strict=True)},
    )


def truth(heads: Attributes) -> Truth:
    """The right answers, hidden where a hat or baldness hides them.

    A bald head has no colour of hair. A hat covers short hair but for a few pixels, unless it is a bob that falls over the
    ears (see `world.anatomy`): then neither colour nor style is asked; a bald head under a hat still shows its bare sides.
    """
    choices = torch.stack([getattr(heads, name) for name in CHOICES], dim=1).clone()
    bald = heads.hair_style == LABELS["hair_style"].index("bald")
    short = heads.hair_style == LABELS["hair_style"].index("short")
    bob = (heads.femininity > 0.55) & (heads.hair_length > 0.35)
    covered = (heads.hat > 0) & short & ~bob
    for name, hidden in (("hair_color", bald | covered), ("hair_style", covered)):
        column = CHOICES.index(name)
        choices[:, column] = torch.where(hidden, HIDDEN, choices[:, column])
    return Truth(choices, torch.stack([getattr(heads, name) for name in NUMBERS], dim=1))


def right(found: Answers, wanted: Truth) -> dict[str, tuple[Tensor, Tensor]]:
    """For every choice and bound, whether each of N answers is right and whether it was asked, (N,) booleans."""
    told: dict[str, tuple[Tensor, Tensor]] = {}
    for column, name in enumerate(CHOICES):
        target = wanted.choices[:, column]
        told[name] = (found.choice(name) == target, target != HIDDEN)
    for name, bound in BOUNDS.items():
        number = wanted.numbers[:, NUMBERS.index(bound.number)]
        told[name] = (found.says(name) == (number >= bound.high), (number <= bound.low) | (number >= bound.high))
    return told


def shares(told: dict[str, tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Of what `right` told, the share of right answers by name; a question that was never asked is left out."""
    return {name: round(float(good[asked].float().mean()), 4) for name, (good, asked) in told.items() if bool(asked.any())}
