"""How a user may say what a caption says: synonyms, frames, and plain words that say nothing about a head."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_PLAIN = """
a an the and with of in on at to by for from as is are was be has have having had it its this that these those
who whose which he she they them their his her him i you your my me we us our one some any same other also but
or only very quite rather really now then here there while into onto just so all both each who
make makes made making give gives given giving add adds added adding put puts turn turns turned change changes
changed let please want would should can will could show shows shown draw render keep keeps kept become becomes
set get gets got go let wear wears wearing dressed sporting hairstyle style
photo photos photograph photographs picture pictures image images portrait portraits headshot closeup shot
snapshot rendering studio face faces head heads person people human individual subject someone somebody
character looking look looks facing seen camera background front color colour colored coloured
"""
PLAIN: tuple[str, ...] = tuple(dict.fromkeys(_PLAIN.split()))
"""Training throws them into captions at random, so that they learn to do nothing."""

SYNONYMS: dict[str, tuple[str, ...]] = {
    "man": ("gentleman", "fellow", "dude", "male"),
    "woman": ("girl", "female"),
    "guy": ("gentleman", "boy"),
    "old": ("elderly", "aged", "senior", "older"),
    "elderly": ("old", "senior"),
    "young": ("youthful", "younger"),
    "bald": ("hairless", "shaved"),
    "glasses": ("eyeglasses", "spectacles", "specs", "eyewear"),
    "eyeglasses": ("specs", "eyewear"),
    "grey": ("gray", "greying"),
    "gray": ("grey", "graying"),
    "blond": ("blonde", "fair"),
    "brown": ("brunette",),
    "red": ("ginger", "redhead"),
    "purple": ("violet",),
    "curly": ("curled", "frizzy", "wavy"),
    "curls": ("ringlets",),
    "hair": ("haired", "hairs"),
    "long": ("longer",),
    "short": ("shorter",),
    "thick": ("heavy", "bushy", "big"),
    "beard": ("beards", "whiskers", "bearded"),
    "mustache": ("moustache", "mustaches", "mustached"),
    "moustache": ("mustache", "moustaches"),
    "hat": ("headwear", "hats"),
    "cap": ("caps",),
    "smiling": ("grinning", "cheerful", "joyful"),
    "smile": ("grin", "smiles"),
    "happy": ("cheerful", "glad"),
    "sad": ("unhappy", "gloomy"),
    "angry": ("mad", "furious"),
    "surprised": ("astonished", "shocked", "amazed"),
    "serious": ("calm",),
    "talking": ("speaking",),
    "pale": ("whitish",),
    "wrinkles": ("wrinkle",),
    "makeup": ("cosmetics",),
    "lipstick": ("lipsticks",),
    "shirt": ("top", "blouse"),
    "sweater": ("jumper", "pullover"),
    "haircut": ("hairdo",),
}
"""Other words for a caption's word, said instead of it now and then; a colour's only when hair follows."""

_HAIR_ONLY = {"blond", "brown", "red", "grey", "gray"}
FRAMES: tuple[str, ...] = (
    "a photo of {}", "a portrait of {}", "a picture of {}", "make it {}", "make them {}", "change to {}", "add {}",
    "now with {}", "the person is {}", "{} please", "turn this person into {}", "the same person with {}", "give them {}",
    "give him {}", "give her {}", "make him {}", "make her {}", "turn him into {}", "turn her into {}", "{}",
)  # fmt: skip


def rephrased(caption: str, chance: np.random.Generator) -> str:
    """A caption with a third of the words that have synonyms replaced by one."""
    words = caption.split()
    for place, word in enumerate(words):
        bare = word.rstrip(",")
        followed = place + 1 < len(words) and words[place + 1].startswith(("hair", "curls"))
        if bare in SYNONYMS and (followed or bare not in _HAIR_ONLY) and chance.random() < 1 / 3:
            words[place] = SYNONYMS[bare][int(chance.integers(len(SYNONYMS[bare])))] + word[len(bare) :]
    return " ".join(words)


def dressed(caption: str, chance: np.random.Generator) -> str:
    """A caption as a user may type it: rephrased, then in a frame or with one to three plain words thrown in."""
    caption = rephrased(caption, chance)
    if chance.random() < 0.5:
        return FRAMES[int(chance.integers(len(FRAMES)))].format(caption)
    words = caption.split()
    for word in chance.choice(PLAIN, size=int(chance.integers(1, 4))):
        words.insert(int(chance.integers(len(words) + 1)), str(word))
    return " ".join(words)


def said(captions: Sequence[str]) -> tuple[str, ...]:
    """All words that captions, synonyms, frames and plain words can say, from the words of captions."""
    others = [word for words in SYNONYMS.values() for word in words]
    frames = " ".join(FRAMES).replace("{}", " ").split()
    return tuple(dict.fromkeys([*captions, *others, *frames, *PLAIN]))
