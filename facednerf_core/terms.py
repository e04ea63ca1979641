"""What is minimised: terms that score renderings, and the stages that say what to move."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from facednerf_core.scene import Latent, Rendering
    from facednerf_core.views import Look

Schedule = Callable[[float], float]  # progress through the stage, 0 to 1 -> factor
Variable = Literal["latent", "noise", "camera", "weights"]
Against = Literal["source", "untuned", "nearby"]


@dataclass(frozen=True)
class Constant:
    """The same factor throughout."""

    value: float = 1.0

    def __call__(self, progress: float) -> float:
        return self.value


@dataclass(frozen=True)
class Ramp:
    """Up linearly over the first `rise` of the stage and down by a half cosine over the last `fall`.

    The official learning-rate schedule (StyleGAN2's projector) is Ramp(0.01, rise=0.05, fall=0.25).
    """

    value: float = 1.0
    rise: float = 0.05
    fall: float = 0.25

    def __call__(self, progress: float) -> float:
        up = min(1.0, progress / self.rise) if self.rise else 1.0
        down = 0.5 - 0.5 * math.cos(math.pi * min(1.0, (1.0 - progress) / self.fall)) if self.fall else 1.0
        return self.value * up * down


@dataclass(frozen=True)
class Fade:
    """value * max(0, 1 - progress / until)^power: the official noise on w is Fade(0.05, 0.75, 2)."""

    value: float = 1.0
    until: float = 0.75
    power: float = 2.0

    def __call__(self, progress: float) -> float:
        return self.value * max(0.0, 1.0 - progress / self.until) ** self.power


@dataclass(frozen=True)
class Loss:
    """A term's verdict: a value for each subject, and numbers worth showing."""

    value: Tensor  # (N,)
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """What a term may know of the step it scores."""

    index: int
    total: int
    rng: torch.Generator  # this term's own draws for this step, on the CPU
    latent: Latent
    reference: Rendering | None = None  # what Term.against asked for, at the same views, without gradient
    origin: Latent | None = None  # the latent as the stage began

    @property
    def progress(self) -> float:
        """How far the stage is, 0 to 1."""
        return self.index / max(1, self.total)


LossFn = Callable[["Rendering | None", Step], Loss]


@dataclass(frozen=True)
class Term:
    """A loss, from where it looks, and how much it counts: a stage sets `weight`, `scale` multiplies it in all stages."""

    name: str
    look: Look | None  # None: a term on the latent alone
    loss: LossFn
    weight: Schedule = field(default_factory=Constant)
    against: Against | None = None
    sees: float = math.inf  # views whose |yaw| is larger are skipped, radians
    scale: float = 1.0  # by the plugin's card and the user; an inverter that weighs an offered term leaves it alone

    def counts(self, progress: float) -> float:
        """How much it counts at this point of a stage."""
        return self.scale * self.weight(progress)


class Opening(Protocol):
    """What a stage does before its first step."""

    @property
    def says(self) -> str:
        """That, to the user, where it takes a while; else nothing."""
        ...

    def begin(self, w: Tensor) -> Tensor:
        """From w (N, L, C) as the stage is entered, the w it begins at."""
        ...

    def look(self, w: Tensor, draw: Callable[[Tensor], Tensor]) -> None:
        """Called before a first step, whether the stage is entered or gone on with. `w` (N, L, C) is where it began, and
        `draw` shows latents as the photo was taken, without gradient: pictures (N, 3, S, S)."""
        ...


@dataclass(frozen=True)
class Stage:
    """Some steps of gradient descent on some variables under some terms.

    Learning rates: `latent` in units of W's deviation, `camera` in radians (and world units, and logarithm of focal
    length), `noise` and `weights` in the tensor's own units.
    """

    name: str
    solve_for: frozenset[Variable]
    terms: Sequence[Term]
    steps: int
    lr: Mapping[Variable, float]
    schedule: Schedule = field(default_factory=Ramp)  # factor on every learning rate
    tied: bool = False  # all rows of w move together: the search stays in W
    principal: bool = False  # w moves along W's principal axes (`Generator.axes`), not along its dimensions
    reach: float | None = None  # how far each row of w may go from where the stage began, in W's radius
    opening: Opening | None = None  # what is done before the first step
    wander: Schedule | None = None  # random noise on w, in units of W's deviation; reaches every look
    size: int | None = None  # rendering size, None for the generator's own
    renormalise_noise: bool = True  # after each step noise maps return to zero mean and unit deviation

    def __post_init__(self) -> None:
        names = [term.name for term in self.terms]
        if len(set(names)) != len(names):
            raise ValueError(f"stage {self.name!r} has two terms of one name: {names}")
