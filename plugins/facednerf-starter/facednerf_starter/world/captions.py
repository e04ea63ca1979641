"""What one may say of a head: varied wording, and nothing that is not true of it."""

from __future__ import annotations

import numpy as np

from facednerf_starter.world.attributes import LABELS, Attributes

Words = tuple[str, ...]

CAPTIONS = 4
"""Sentences about each head in the data of the recipes."""

_OLD, _YOUNG = 0.72, 0.30
_EYES = {name: (f"{name} eyes",) for name in ("brown", "blue", "green", "grey")}
_STYLE: dict[str, Words] = {
    "short": ("short {} hair", "a short {} haircut", "short cropped {} hair"),
    "long": ("long {} hair", "long flowing {} hair", "long {} hair"),
    "curly": ("curly {} hair", "{} curls", "frizzy {} hair"),
}
_HAIR: dict[str, Words] = {
    "black": ("black", "dark"), "brown": ("brown", "brunette"), "blond": ("blond", "blonde", "golden"),
    "red": ("red", "ginger"), "grey": ("grey", "gray"), "white": ("white",), "blue": ("blue",),
    "green": ("green",), "pink": ("pink",), "purple": ("purple", "violet"),
}  # fmt: skip
_FACE: dict[str, Words] = {
    "smile": ("smiling", "with a smile", "happy", "with a happy smile"),
    "frown": ("sad", "frowning", "with a frown"),
    "angry": ("angry", "with an angry look"),
    "surprised": ("surprised", "with a surprised look"),
    "open mouth": ("with an open mouth", "with mouth open", "talking"),
    "neutral": ("serious", "with a neutral expression"),
}
_HATS: dict[str, Words] = {
    "beanie": ("hat", "beanie", "knitted hat"),
    "cap": ("hat", "cap", "baseball cap"),
    "brimmed": ("hat", "brimmed hat"),
}
_CLOTHES: dict[str, Words] = {
    "crew neck": ("shirt", "t-shirt", "sweater"),
    "collar": ("shirt", "shirt with a collar"),
    "v-neck": ("shirt", "sweater"),
    "turtleneck": ("turtleneck", "sweater"),
}
_OPENINGS: Words = ("", "", "", "a photo of ", "a picture of ", "a portrait of ", "the face of ")


def article(words: str) -> str:
    """The words with "a" or "an" before them."""
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def facts(a: Attributes, i: int) -> dict[str, list[str]]:
    """Everything that may be said of head i, by topic: each topic holds wordings of the same truth."""
    word = {name: a.named(name, i) for name in ("hair_style", "hair_color", "beard", "moustache", "expression", "eye_color")}
    said: dict[str, list[str]] = {}
    age, femininity, skin = float(a.age[i]), float(a.femininity[i]), float(a.skin[i])
    adjective: list[str] = []
    if age > _OLD:
        adjective = ["old", "elderly", "aged", "old"]
    elif age < _YOUNG:
        adjective = ["young"]
    elif 0.45 < age < 0.65:
        adjective = ["middle-aged"]
    said["age"] = adjective
    said["noun"] = (
        ["woman", "lady", "female person"]
        if femininity > 0.6
        else ["man", "guy", "male person"]
        if femininity < 0.4
        else ["person"]
    )
    colours = list(_HAIR[word["hair_color"]])
    if word["hair_style"] == "bald":
        said["hair"] = ["bald"]
    else:
        said["hair"] = [s.format(c) for c in colours for s in _STYLE[word["hair_style"]]]
        said["hair color"] = [f"{c} hair" for c in colours]
        said["hair style"] = [s.format("").replace("  ", " ").strip() for s in _STYLE[word["hair_style"]]]
    thick = float(a.beard_length[i])
    size = ["thick ", "full ", ""] if thick > 0.6 else ["short ", "trimmed ", ""] if thick < 0.35 else [""]
    if word["beard"] == "beard":
        said["beard"] = [f"a {s}beard" for s in size] + (["a long beard"] if thick > 0.8 else [])
    elif word["beard"] == "goatee":
        said["beard"] = ["a goatee"]
    if word["moustache"] == "yes":
        heavy = ["thick ", ""] if thick > 0.5 else [""]
        said["moustache"] = [f"a {s}{m}" for s in heavy for m in ("mustache", "moustache")]
    if not a.glasses[i]:
        said["no glasses"] = ["without glasses"]
    else:
        frame = a.named("glasses_color", i)
        said["glasses"] = ["glasses", "eyeglasses", "glasses", f"{frame} glasses", "spectacles"]
        if float(a.glasses_round[i]) > 0.7:
            said["glasses"].append("round glasses")
    if a.hat[i]:
        colour = a.named("hat_color", i)
        kinds = _HATS[a.named("hat_kind", i)]
        said["hat"] = [article(f"{colour} {k}") for k in kinds] + [article(k) for k in kinds]
    if a.lipstick[i]:
        said["lipstick"] = ["lipstick", "red lipstick" if float(a.makeup[i]) < 0.4 else "lipstick", "makeup"]
    said["expression"] = list(_FACE[word["expression"]])
    said["eyes"] = list(_EYES[word["eye_color"]])
    if age > 0.8:
        said["wrinkles"] = ["wrinkles", "a wrinkled face"]
    if skin < 0.22:
        said["skin"] = ["pale skin", "fair skin", "light skin"]
    elif skin > 0.72:
        said["skin"] = ["dark skin", "black skin"]
    shirt = _CLOTHES[a.named("clothes", i)]
    said["clothes"] = [article(f"{a.named('clothes_color', i)} {s}") for s in shirt]
    return {topic: wordings for topic, wordings in said.items() if wordings}


def caption(attributes: Attributes, i: int, rng: np.random.Generator) -> str:
    """One true sentence about head i: a short phrase, or a person with some of its attributes."""
    said = facts(attributes, i)

    def pick(topic: str) -> str:
        return said[topic][int(rng.integers(len(said[topic])))]

    telling = [t for t in said if t not in ("age", "noun", "eyes", "skin", "clothes", "expression", "no glasses")]
    rare = [t for t in said if t in ("eyes", "skin", "clothes")]
    if rng.random() < 0.15:  # a single attribute
        topics = [t for t in telling if t not in ("hair style",)] + (["expression"] if rng.random() < 0.5 else [])
        if topics:
            phrase = pick(topics[int(rng.integers(len(topics)))])
            if not phrase.startswith(("with ", "bald", "a ", "an ")) or phrase.startswith(("a ", "an ")):
                return phrase
            return f"{phrase} face" if not phrase.startswith("with ") else phrase.removeprefix("with ")
    adjectives: list[str] = []
    ending: list[str] = []
    if "age" in said and rng.random() < 0.6:
        adjectives.append(pick("age"))
    if rng.random() < 0.6:
        look = pick("expression")
        if attributes.named("expression", i) == "neutral" and rng.random() < 0.6:
            look = ""
        if look.startswith("with "):
            ending.append(look.removeprefix("with "))
        elif look == "talking":
            ending.append("an open mouth")
        elif look:
            adjectives.append(look)
    keep = 0.45 + 0.5 * rng.random()
    for topic in telling:
        if topic in ("hair color", "hair style") or rng.random() > keep:
            continue
        if topic == "hair":
            topic = ("hair", "hair", "hair color", "hair style")[int(rng.integers(4))] if "hair color" in said else "hair"
        phrase = pick(topic)
        if phrase == "bald":
            adjectives.append(phrase)
        else:
            ending.append(phrase)
    ending += [pick(t) for t in rare if rng.random() < 0.15]
    rng.shuffle(adjectives)
    rng.shuffle(ending)
    noun = pick("noun") if rng.random() < 0.85 else "person"
    sentence = article(" ".join([*adjectives, noun]))
    if ending:
        wearing = all(e.endswith(("glasses", "hat", "cap", "beanie", "spectacles", "shirt")) for e in ending)
        joint = "wearing" if wearing and rng.random() < 0.6 else "with"
        listed = ending[0] if len(ending) == 1 else f"{', '.join(ending[:-1])} and {ending[-1]}"
        sentence = f"{sentence} {joint} {listed}"
    if "no glasses" in said and rng.random() < 0.04:
        sentence = f"{sentence} without glasses"
    return _OPENINGS[int(rng.integers(len(_OPENINGS)))] + sentence


def captions(attributes: Attributes, seed: int, first: int) -> list[list[str]]:
    """`CAPTIONS` true sentences about each head; those of head i are a function of (seed, first + i) and what it is."""
    drawn = []
    for i in range(len(attributes)):
        rng = np.random.Generator(np.random.Philox(key=[seed, first + i], counter=[0, 0, 0, 2]))
        drawn.append([caption(attributes, i, rng) for _ in range(CAPTIONS)])
    return drawn


def vocabulary() -> tuple[str, ...]:
    """Every word that a caption can hold, sorted."""
    wordings: list[str] = [*_OPENINGS, "a an and with wearing without person face glasses eyeglasses spectacles round"]
    for table in (_EYES, _STYLE, _HAIR, _FACE, _HATS, _CLOTHES):
        wordings += [w for words in table.values() for w in words]
    wordings += [
        "old elderly aged young middle-aged woman lady female man guy male bald hair beard goatee mustache moustache"
    ]
    wordings += ["thick full short trimmed long lipstick red makeup wrinkles wrinkled pale fair light dark black skin eyes"]
    for name in ("glasses_color", "hat_color", "clothes_color", "eye_color"):
        wordings += LABELS[name]
    return tuple(sorted({w.strip(",") for text in wordings for w in text.split() if w != "{}"}))
