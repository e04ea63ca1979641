"""The diffusion model: how many captions its samples follow, attribute by attribute."""

from __future__ import annotations

from collections.abc import Sequence

from facednerf_core.compute import device as chosen_device
from facednerf_starter.judges.panel import Judges
from facednerf_starter.measures.effort import Effort
from facednerf_starter.measures.measure import Measure, at_least, averaged
from facednerf_starter.measures.sentences import TOPICS, Sentence, captions
from facednerf_starter.measures.verdicts import follows
from facednerf_starter.plugin import FOLDER

SECTION = "diffusion"
GOAL = at_least(0.9)
FREELY, BY_GRAMMAR = "captions written freely", "captions of the world's grammar"
TOGETHER = 16


def measured(effort: Effort, judges: Judges) -> list[Measure]:
    """The measures of the diffusion model."""
    asked = captions(effort.captions)
    kept = obeyed(asked, effort, judges)
    rows = {f"captions on {topic}": [i for i, one in enumerate(asked) if one.topic == topic] for topic in TOPICS}
    rows |= {
        FREELY: [i for i, one in enumerate(asked) if one.free],
        BY_GRAMMAR: [i for i, one in enumerate(asked) if not one.free],
    }
    return [
        averaged(SECTION, name, GOAL, [[kept[i]] for i in chosen], unit="%", about=f"{len(chosen)} captions")
        for name, chosen in rows.items()
    ]


def obeyed(asked: Sequence[Sentence], effort: Effort, judges: Judges) -> list[float]:
    """1 for every sentence whose sample shows what it asks for, else 0."""
    from facednerf_starter.train.pipeline import sample

    kept: list[float] = []
    for first in range(0, len(asked), TOGETHER):
        part = asked[first : first + TOGETHER]
        texts = [one.text for one in part]
        images = sample(FOLDER / "diffusion", texts, steps=effort.denoising, seed=first, device=chosen_device(effort.device))
        found = judges.tell(images.cpu())
        for place, one in enumerate(part):
            kept.append(float(all(bool(right[place]) for right in follows(found, one.asks).values())))
    return kept
