"""Edits of held-out heads by sentences: is it there, did anything else change, is it still the same person."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from facednerf_core.compute import device as chosen_device
from facednerf_starter.judges.listener import Listener
from facednerf_starter.judges.panel import Judges
from facednerf_starter.measures.effort import Effort
from facednerf_starter.measures.inversions import edited
from facednerf_starter.measures.measure import Goal, Measure, at_least, at_most, averaged, counted
from facednerf_starter.measures.people import drawn, held_out
from facednerf_starter.measures.sentences import Sentence, edits
from facednerf_starter.measures.sitters import Sitters
from facednerf_starter.measures.verdicts import changed, obeyed, together
from facednerf_starter.world.attributes import Attributes

SECTION = "edits"
OTHERS, VERIFIED, FIRST = "other attributes changed", "the person verified", "the person first among distractors"
NEARER = "nearer to the sentence than the inversion, by the judge of sentences"
CHANGE, KEPT, RANKED = at_most(0.05), at_least(0.90), at_least(0.80)
STRANGERS = 1 << 20
"""The number from which on distractors are drawn."""


@dataclass(frozen=True)
class Verdicts:
    """What was found of one head's edits: a number for each sentence, and for each attribute not spoken of."""

    other: list[float] = field(default_factory=list)  # 1 where an attribute changed
    verified: list[float] = field(default_factory=list)
    ranked: list[float] = field(default_factory=list)
    nearer: list[float] = field(default_factory=list)


def measured(effort: Effort, judges: Judges, listener: Listener, sitters: Sitters) -> list[Measure]:
    """The measures of edits: default settings, pictures from the portrait's camera and from both sides judged together."""
    chosen = edits()[: effort.sentences]
    wanted: dict[str, list[list[float]]] = {one.text: [] for one in chosen}
    found = [_one(head, chosen, effort, judges, listener, sitters, wanted) for head in range(effort.edited)]
    about = f"{counted(effort.edited, 'head')}, {counted(len(chosen), 'sentence')}"
    among = counted(effort.distractors, "distractor")
    rows = [averaged(SECTION, one.text, at_least(one.goal), wanted[one.text], unit="%") for one in chosen]
    return [
        *rows,
        averaged(SECTION, OTHERS, CHANGE, [one.other for one in found], unit="%", about=about),
        averaged(SECTION, VERIFIED, KEPT, [one.verified for one in found], unit="%", about=about),
        averaged(SECTION, FIRST, RANKED, [one.ranked for one in found], unit="%", about=f"{about}, {among}"),
        averaged(SECTION, NEARER, None, [one.nearer for one in found], unit="%", about=about),
    ]


def _one(
    head: int,
    chosen: tuple[Sentence, ...],
    effort: Effort,
    judges: Judges,
    listener: Listener,
    sitters: Sitters,
    wanted: dict[str, list[list[float]]],
) -> Verdicts:
    """Of one head: what else changed in each edit, whether it is verified, comes first, and is nearer to the sentence."""
    inversion = sitters.inversion(head)
    start = inversion.pictures(inversion.latent)
    before = together(judges.tell(start))
    true = judges.embed(sitters.truth(head).image[0, :1])[0]
    others = strangers(sitters.heads[[head]], sitters.cameras[head], head, effort, judges)
    found = Verdicts()
    for one in chosen:
        pictures = inversion.pictures(edited(inversion, one.text, effort))
        after = together(judges.tell(pictures))
        wanted[one.text].append([obeyed(after, one.asks)])
        moved = changed(before, after, {*one.asks, *one.frees})
        found.other.extend(float(value) for value in moved.values())
        known = judges.embed(pictures[:1])[0]
        found.verified.append(float(known @ true > judges.threshold))
        found.ranked.append(float(known @ true > (others @ known).max()))
        found.nearer.append(float(listener.agreement(pictures, one.text) > listener.agreement(start, one.text)))
    return found


def strangers(head: Attributes, camera: Tensor, number: int, effort: Effort, judges: Judges) -> Tensor:
    """Embeddings (D', D) of other people with the head's hair, clothes, expression, age and light, from its camera."""
    count = effort.distractors
    people = held_out(count, first=STRANGERS + 1024 * number)
    dressed = people.dressed_as(Attributes.cat([head] * count))
    album = drawn(dressed, camera.expand(count, 1, -1), chosen_device(effort.device))
    return judges.embed(album.image.float().cpu() / 127.5 - 1)


def goals(effort: Effort) -> dict[str, Goal]:
    """What is asked of edits, by name, where they cannot be judged."""
    found = {one.text: at_least(one.goal) for one in edits()[: effort.sentences]}
    return found | {OTHERS: CHANGE, VERIFIED: KEPT, FIRST: RANKED}
