"""What a user should know before a run begins: words that nobody understands, a photo that nobody can judge."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from facednerf_core.errors import InputError

if TYPE_CHECKING:
    from facednerf_core.cards import Card
    from facednerf_core.interfaces import Guidance
    from facednerf_core.recipe import Recipe


def word_notes(guidance: Guidance, recipe: Recipe) -> list[str]:
    """What the guidance's text encoder cannot take in, said before the run.

    Raises:
        InputError: it knows none of the words, or there are too many.
    """
    notes = []
    prompts = {"sentence": recipe.prompt, "source prompt": recipe.source_prompt, "negative prompt": recipe.negative}
    for what, text in prompts.items():
        if not text:
            continue
        taken, room = guidance.longest_prompt(text)
        if room and taken > room:
            raise InputError(
                f"the {what} takes {taken} tokens and {recipe.guidance} reads {room}; say it in fewer words, nothing is cut."
            )
        unknown = guidance.unknown_words(text)
        if not unknown:
            continue
        listed = ", ".join(repr(word) for word in unknown)
        if set(_words(text)) <= set(unknown):
            raise InputError(
                f"{recipe.guidance}'s text encoder knows none of the words of the {what}: {listed}. "
                f"Say it in other words (`fdn plugins show {recipe.guidance}` tells which), or choose another --guidance."
            )
        notes.append(f"the {what} has words that {recipe.guidance}'s text encoder never learnt: {listed}; they do nothing.")
    return notes


def _words(text: str) -> list[str]:
    """The words of a sentence: runs of letters, a letter alone aside."""
    return re.findall(r"[^\W\d_]{2,}", text.lower())


def sight_notes(judges: Mapping[str, Card[Any]], yaw: float) -> list[str]:
    """Which judges, by kind, cannot judge a photo that is turned by `yaw` radians: the loop skips what they do not see."""
    turned = abs(math.remainder(yaw, 2 * math.pi))
    return [
        f"the {kind} {card.name} can judge turns of up to {math.degrees(card.sees):.0f} degrees; the photo is turned "
        f"by {math.degrees(turned):.0f}, so it has no say there."
        for kind, card in judges.items()
        if turned > card.sees
    ]
