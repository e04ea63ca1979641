"""Terms at the weights that an inverter gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from facednerf_core.terms import Constant, Term


@dataclass(frozen=True)
class EveryNth:
    """`value` on average: `every` times that at one step of so many, nothing at the others, which then cost nothing."""

    value: float
    every: int
    steps: int  # of the stage
    first: int = 0  # the step at which it is first heard

    def __call__(self, progress: float) -> float:
        return self.value * self.every if round(progress * self.steps) % self.every == self.first % self.every else 0.0


def weighed(terms: Mapping[str, Term], weights: Mapping[str, float]) -> Sequence[Term]:
    """Those of the terms that are offered and have a weight, each at its weight."""
    return [replace(terms[name], weight=Constant(weight)) for name, weight in weights.items() if name in terms and weight]
