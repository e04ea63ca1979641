"""A measure: a number with its goal, and how far it may be off by the choice of heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Unit = Literal["", "%", "dB", "s"]


@dataclass(frozen=True)
class Goal:
    """What a number has to reach: at least `limit`, or at most."""

    limit: float
    most: bool = False

    def reached(self, value: float) -> bool:
        """Whether a value is good enough."""
        return value <= self.limit if self.most else value >= self.limit


@dataclass(frozen=True)
class Measure:
    """One number of a section. Shares and relative errors are parts of 1, and shown in percent."""

    section: str
    name: str
    goal: Goal | None  # None: stated for orientation, nothing is asked of it
    value: float | None  # None: it could not be measured
    low: float | None = None  # 95 % interval over heads
    high: float | None = None
    unit: Unit = ""
    about: str = ""  # over what; or why it could not be measured

    @property
    def passed(self) -> bool:
        """Whether its goal is reached; what could not be measured is missed."""
        return self.value is not None and (self.goal is None or self.goal.reached(self.value))

    def as_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        goal = None if self.goal is None else {"at_most" if self.goal.most else "at_least": self.goal.limit}
        return {
            "section": self.section, "name": self.name, "goal": goal, "value": self.value, "low": self.low,
            "high": self.high, "unit": self.unit, "passed": self.passed, "about": self.about,
        }  # fmt: skip


def at_least(limit: float) -> Goal:
    """A goal to reach or go beyond."""
    return Goal(limit)


def at_most(limit: float) -> Goal:
    """A goal not to go beyond."""
    return Goal(limit, most=True)


def bootstrapped(values: Sequence[Sequence[float]], *, draws: int = 2000, seed: int = 0) -> tuple[float, float, float]:
    """The mean of all numbers and its 95 % interval, the heads drawn anew with replacement (Efron 1979).

    `values` holds the numbers of each head; heads without a number do not count. What comes of one head stays together:
    twelve heads with eight sentences each are twelve independent things, not ninety-six. Where every number is 1, or every
    number 0, drawing anew shows nothing: the exact binomial bound over heads stands in (Clopper and Pearson 1934).

    Raises:
        ValueError: there is no number at all.
    """
    full = [np.asarray(own, float) for own in values if len(own)]
    if not full:
        raise ValueError("no head has a number to take the mean of")
    sums, counts = np.array([own.sum() for own in full]), np.array([len(own) for own in full])
    chosen = np.random.default_rng(seed).integers(len(full), size=(draws, len(full)))
    means = sums[chosen].sum(1) / counts[chosen].sum(1)
    low, high = np.quantile(means, (0.025, 0.975))
    value, doubt = float(sums.sum() / counts.sum()), float(0.025 ** (1 / len(full)))
    if all((own == 1).all() for own in full):
        return value, doubt, 1.0
    if all((own == 0).all() for own in full):
        return value, 0.0, 1 - doubt
    return value, float(low), float(high)


def counted(count: int, noun: str) -> str:
    """A number of things in words: "1 head", "12 heads"; "people" are people already."""
    return f"{count} {noun}" if count == 1 or noun == "people" else f"{count} {noun}s"


def averaged(
    section: str, name: str, goal: Goal | None, values: Sequence[Sequence[float]], *, unit: Unit = "", about: str = ""
) -> Measure:
    """The mean over heads of their numbers, with its interval; one that could not be measured where there is no number."""
    count = sum(bool(len(own)) for own in values)
    if not count:
        return Measure(section, name, goal, None, unit=unit, about=about or "no head asks it")
    value, low, high = bootstrapped(values)
    if count == 1:  # one head has no interval
        return Measure(section, name, goal, value, unit=unit, about=about or "1 head")
    return Measure(section, name, goal, value, low, high, unit, about or counted(count, "head"))


def missing(section: str, goals: dict[str, Goal], why: str, *, unit: Unit = "") -> list[Measure]:
    """The measures of a section that could not be made, and why."""
    return [Measure(section, name, goal, None, unit=unit, about=why) for name, goal in goals.items()]
