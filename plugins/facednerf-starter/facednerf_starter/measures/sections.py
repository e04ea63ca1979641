"""The benchmark's sections by name, and what each needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from facednerf_core.errors import FacednerfError, MissingWeights, UnknownName
from facednerf_starter.judges.listener import Listener
from facednerf_starter.judges.panel import Judges
from facednerf_starter.measures import diffusion, edits, hearing, portraits, reconstruction
from facednerf_starter.measures.effort import Effort
from facednerf_starter.measures.measure import Goal, Measure, missing
from facednerf_starter.measures.sentences import TOPICS
from facednerf_starter.measures.sitters import Sitters
from facednerf_starter.plugin import FOLDER

ORDER = ("judges", "diffusion", "generator", "edits", "portraits")


@dataclass
class Bench:
    """What sections share: the judges, if they are there, and the heads that are inverted."""

    effort: Effort
    judges: Judges | None = None
    listener: Listener | None = None
    without: str = ""  # why there are no judges
    _sitters: list[Sitters] = field(default_factory=list)

    @classmethod
    def of(cls, effort: Effort) -> Bench:
        """With the judges of the effort's folder, or of the starter."""
        try:
            folder = effort.weights or FOLDER
            return cls(effort, Judges.from_files(folder), Listener.from_folder(folder))
        except MissingWeights as error:
            return cls(effort, without=str(error))

    @property
    def sitters(self) -> Sitters:
        """The heads that are inverted, drawn when they are first asked for."""
        if not self._sitters:
            self._sitters.append(Sitters.of(self.effort))
        return self._sitters[0]


def chosen(names: Sequence[str], effort: Effort) -> tuple[str, ...]:
    """Sections by name, in their order; none named means all that the effort looks at.

    Raises:
        UnknownName: there is no such section.
    """
    for name in names:
        if name not in ORDER:
            raise UnknownName("section", name, ORDER)
    usual = [name for name in ORDER if name != portraits.SECTION or effort.portrayed or effort.photos]
    return tuple(name for name in ORDER if name in (names or usual))


def measured(name: str, bench: Bench) -> list[Measure]:
    """The measures of one section. One that lacks the judges says so, and its measures count as missed."""
    effort, judges, listener = bench.effort, bench.judges, bench.listener
    if name == "generator":
        return _or_reason(name, {}, lambda: reconstruction.measured(effort, bench.sitters))
    if name == "portraits":
        return portraits.measured(effort, judges, bench.without)
    goals: dict[str, Goal]
    if name == "judges":
        goals = hearing.goals()
    elif name == "diffusion":
        goals = {f"captions on {topic}": diffusion.GOAL for topic in TOPICS}
        goals |= {diffusion.FREELY: diffusion.GOAL, diffusion.BY_GRAMMAR: diffusion.GOAL}
    else:
        goals = edits.goals(effort)
    if judges is None or listener is None:
        return missing(name, goals, bench.without, unit="%")
    make: dict[str, Callable[[], list[Measure]]] = {
        "judges": lambda: hearing.measured(effort, judges),
        "diffusion": lambda: diffusion.measured(effort, judges),
        "edits": lambda: edits.measured(effort, judges, listener, bench.sitters),
    }
    return _or_reason(name, goals, make[name])


def _or_reason(name: str, goals: dict[str, Goal], make: Callable[[], list[Measure]]) -> list[Measure]:
    """The measures, or why a section could not be measured: it must not take the others with it."""
    try:
        return make()
    except FacednerfError as error:
        return missing(name, goals or {"all of it": Goal(0.0)}, str(error))
