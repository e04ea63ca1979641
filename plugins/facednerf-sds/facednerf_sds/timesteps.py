"""Which time step of the diffusion process is looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from torch import Tensor

WINDOW = 0.1  # of the whole range, either side of an annealed time


class Times(Protocol):
    """Chooses time steps."""

    def draw(self, count: int, progress: float, rng: torch.Generator) -> Tensor:
        """`count` time steps, integers, on the CPU; `progress` is how far the stage is, 0 to 1."""
        ...


@dataclass(frozen=True)
class Uniform:
    """Uniform over the time steps from `low` to `high`, both included (the official ones are 20 and 980)."""

    low: int
    high: int

    def draw(self, count: int, progress: float, rng: torch.Generator) -> Tensor:
        """`count` time steps, whatever the progress."""
        return torch.randint(self.low, self.high + 1, (count,), generator=rng)


@dataclass(frozen=True)
class Annealed:
    """From `high` to `low` as the stage goes on, uniform in a window around the moving middle: first the large shapes,
    then the details (Huang et al. 2023, "DreamTime")."""

    low: int
    high: int

    def draw(self, count: int, progress: float, rng: torch.Generator) -> Tensor:
        """`count` time steps around high - progress (high - low)."""
        reach = WINDOW * (self.high - self.low)
        middle = self.high - progress * (self.high - self.low)
        draws = middle + reach * (2 * torch.rand(count, generator=rng) - 1)
        return draws.round().long().clamp(self.low, self.high)


def between(t_min: float, t_max: float, steps: int, kind: str) -> Times:
    """The times between two fractions of a process of so many steps."""
    low, high = (min(steps - 1, round(fraction * steps)) for fraction in (t_min, t_max))
    return Annealed(low, high) if kind == "annealed" else Uniform(low, high)


def parted(t_min: float, t_max: float, steps: int, kind: str, draws: int) -> tuple[Times, ...]:
    """The times of several draws at once: annealed ones are of one mind, uniform ones share the range, an equal part each,
    so that every step hears of what is large and of what is small."""
    if kind == "annealed":
        return (between(t_min, t_max, steps, kind),) * draws
    size = (t_max - t_min) / draws
    return tuple(between(t_min + size * k, t_min + size * (k + 1), steps, kind) for k in range(draws))
