"""The judges: how often they are right about people whom nobody has seen."""

from __future__ import annotations

import torch
from torch import Tensor

from facednerf_core.compute import device as chosen_device
from facednerf_starter.judges.panel import Judges
from facednerf_starter.judges.questions import BOUNDS, CHOICES, Answers, Truth, right, truth
from facednerf_starter.measures.effort import Effort
from facednerf_starter.measures.measure import Goal, Measure, Unit, at_least, averaged
from facednerf_starter.measures.people import SEED, SIZE, drawn, held_out
from facednerf_starter.plugin import FOLDER
from facednerf_starter.train.albums import Album, Portraitist, drawn_by_generator, restyled, seen_from
from facednerf_starter.world.attributes import draw

SECTION = "judges"
WORLD, GENERATOR = at_least(0.98), at_least(0.95)
SAME = at_least(0.80)
FALSE = 0.01
"""Share of pairs of different people that may pass for one."""
FIRST = 1 << 16
"""The number from which on these heads are drawn: no other section looks at them."""


def measured(effort: Effort, judges: Judges) -> list[Measure]:
    """The measures of the judges: each attribute on the world's and the generator's pictures, and people in two styles."""
    device = chosen_device(effort.device)
    painter = Portraitist.from_file(FOLDER / "generator.safetensors", device)
    heads = held_out(effort.judged, first=FIRST)
    cameras = seen_from(SEED, "judged", len(heads))
    told = truth(heads)
    world = drawn(heads, cameras, device)
    painted = drawn_by_generator(painter.network, painter.latents(heads), cameras, SIZE, device)
    found = attributes("of the world", WORLD, answered(judges, world), told)
    found += attributes("of the generator", GENERATOR, answered(judges, painted), told)
    return found + people(effort, judges, painter, device)


def attributes(whose: str, goal: Goal, found: Answers, wanted: Truth) -> list[Measure]:
    """The share of right answers to every question, over the pictures that can answer it."""
    unit: Unit = "%"
    return [
        averaged(SECTION, f"{name}, pictures {whose}", goal, [[float(one)] for one in good[asked]], unit=unit)
        for name, (good, asked) in right(found, wanted).items()
    ]


def answered(judges: Judges, album: Album) -> Answers:
    """The judge's answers about an album's pictures, on the CPU."""
    parts = [judges.tell(image) for image in _pictures(album)]
    return Answers(
        {name: torch.cat([part.logits[name] for part in parts]).cpu() for name in CHOICES},
        {name: torch.cat([part.numbers[name] for part in parts]).cpu() for name in parts[0].numbers},
    )


def _pictures(album: Album) -> list[Tensor]:
    rows = torch.arange(len(album), device=album.image.device)
    return [album.take(part)[0].cpu() for part in rows.split(64)]  # where the judges are


def people(effort: Effort, judges: Judges, painter: Portraitist, device: torch.device) -> list[Measure]:
    """True positives at 1 % false accepts of people in two styles, ages and lights."""
    numbers = torch.arange(effort.people)
    z = draw(SEED, 2 * FIRST, effort.people)
    known: dict[str, Tensor] = {}
    for style in ("one", "another"):
        heads = restyled(z, SEED, style, numbers=numbers)
        cameras = seen_from(SEED, style, len(heads))
        painted = drawn_by_generator(painter.network, painter.latents(heads), cameras, SIZE, device)
        true = drawn(heads, cameras, device)
        for whose, album in (("world", true), ("generator", painted)):
            known[f"{whose}, {style}"] = torch.cat([judges.embed(image) for image in _pictures(album)]).cpu()
    pairs = {
        "the world's pictures": ("world, one", "world, another"),
        "the generator's pictures": ("generator, one", "generator, another"),
        "a picture of each": ("world, one", "generator, another"),
    }
    return [
        averaged(
            SECTION,
            f"the same person in another style and light, {whose}",
            SAME,
            accepted(known[one] @ known[other].T),
            unit="%",
            about=f"{effort.people} people, {FALSE:.0%} false accepts",
        )
        for whose, (one, other) in pairs.items()
    ]


def accepted(similar: Tensor) -> list[list[float]]:
    """For each of P people, whether the diagonal of similarities (P, P) is above what different people reach in 1 %."""
    off = ~torch.eye(len(similar), dtype=torch.bool)
    different = similar[off].sort().values
    threshold = different[int((1 - FALSE) * (len(different) - 1))]
    return [[float(one)] for one in similar.diagonal() > threshold]


def goals() -> dict[str, Goal]:
    """What is asked of the judges, by name, where they cannot be heard."""
    names = {f"{name}, pictures of the world": WORLD for name in (*CHOICES, *BOUNDS)}
    names |= {f"{name}, pictures of the generator": GENERATOR for name in (*CHOICES, *BOUNDS)}
    return names | {"the same person in another style and light": SAME}
