"""The sixteen parts that EVA3D divides a body into (Hong et al. 2023, section 3.1), each with a network of its own.

Joints carry SMPL's 24 indices. A canonical box bounds the part in the template's pose, metres, its margin of 3.5 cm
included; networks are trained inside it, so that it is a constant of the generator, whatever body wears it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from facednerf_core.errors import InputError

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Part:
    """A part of the body: where it is, what it follows, and how deep its network is."""

    joint: int  # the joint that names it
    name: str
    attached: int  # its posed box moves with this joint
    searched: tuple[int, ...]  # vertices that mostly follow one of these joints carry its points
    depth: int  # FiLM layers before the view layer
    low: Triple  # canonical box, metres
    high: Triple


PARTS = (
    Part(3, "lower torso", 0, (3, 0, 1, 2, 6), 4, (-0.2238, -0.3497, -0.1574), (0.2202, -0.0794, 0.2029)),
    Part(4, "left upper leg", 1, (0, 1, 4), 3, (-0.0350, -0.7249, -0.1199), (0.2243, -0.2797, 0.1685)),
    Part(5, "right upper leg", 2, (0, 2, 5), 3, (-0.2285, -0.7314, -0.1233), (0.0350, -0.2797, 0.1649)),
    Part(6, "middle torso", 3, (3, 6, 0, 9), 4, (-0.1919, -0.1494, -0.1445), (0.1881, 0.0558, 0.2024)),
    Part(7, "left lower leg", 4, (4, 1, 7), 3, (-0.0082, -1.1229, -0.1241), (0.1920, -0.6549, 0.1041)),
    Part(8, "right lower leg", 5, (2, 5, 8), 3, (-0.1961, -1.1298, -0.1261), (0.0049, -0.6614, 0.0999)),
    Part(10, "left foot", 7, (7, 10, 4), 2, (0.0275, -1.2341, -0.1226), (0.1950, -1.0329, 0.2019)),
    Part(11, "right foot", 8, (8, 11, 5), 2, (-0.1964, -1.2368, -0.1232), (-0.0282, -1.0398, 0.2030)),
    Part(12, "upper torso", 6, (9, 13, 14, 6, 16, 17, 12, 15), 4, (-0.2102, -0.0142, -0.1548), (0.2074, 0.3226, 0.1741)),
    Part(15, "head", 15, (15,), 8, (-0.1751, 0.2026, -0.1741), (0.1766, 0.6805, 0.2240)),
    Part(18, "left upper arm", 16, (13, 18, 16), 3, (0.1374, 0.1100, -0.1100), (0.4671, 0.3108, 0.0756)),
    Part(19, "right upper arm", 17, (14, 17, 19), 3, (-0.4639, 0.1076, -0.1135), (-0.1402, 0.3104, 0.0810)),
    Part(20, "left forearm", 18, (16, 20, 18), 3, (0.3971, 0.1371, -0.1103), (0.7163, 0.3018, 0.0414)),
    Part(21, "right forearm", 19, (17, 19, 21), 3, (-0.7192, 0.1355, -0.1130), (-0.3939, 0.3009, 0.0409)),
    Part(22, "left hand", 20, (22, 20, 18), 2, (0.6463, 0.1532, -0.1530), (0.9081, 0.2795, 0.0811)),
    Part(23, "right hand", 21, (23, 21, 19), 2, (-0.9070, 0.1489, -0.1545), (-0.6492, 0.2770, 0.0815)),
)
"""In the order of their networks, which is that of their joints; depths as trained on DeepFashion, SHHQ and UBCFashion."""

AIST_DEPTHS = {3: 3, 6: 3, 12: 3, 15: 6}
"""Joints whose networks are less deep in the release that was trained on AIST."""


def with_depths(depths: Sequence[int], parts: Sequence[Part] = PARTS) -> tuple[Part, ...]:
    """The parts with networks of other depths, one for each.

    Raises:
        InputError: there are not as many depths as parts, or one is below 1.
    """
    if len(depths) != len(parts) or min(depths, default=0) < 1:
        raise InputError(f"{len(parts)} parts want a depth of at least 1 each, not {list(depths)}.")
    return tuple(replace(part, depth=int(depth)) for part, depth in zip(parts, depths, strict=True))


def aist(parts: Sequence[Part] = PARTS) -> tuple[Part, ...]:
    """The parts as the AIST release has them."""
    return with_depths([AIST_DEPTHS.get(part.joint, part.depth) for part in parts], parts)


def listed(table: Iterable[Mapping[str, Any]]) -> tuple[Part, ...]:
    """The parts of a table whose entries have `joint`, `depth`, `canonical_min` and `canonical_max` (metres).

    Raises:
        InputError: an entry names no part of the body, or lacks something.
    """
    known = {part.joint: part for part in PARTS}
    found = []
    for entry in table:
        try:
            part = known[int(entry["joint"])]
            low, high = (_triple(entry[name]) for name in ("canonical_min", "canonical_max"))
            found.append(replace(part, depth=int(entry["depth"]), low=low, high=high))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{dict(entry)} describes no part: it needs joint (one of {', '.join(map(str, known))}), depth, "
                f"canonical_min and canonical_max (three numbers each)."
            ) from error
        if any(a >= b for a, b in zip(low, high, strict=True)):
            raise InputError(f"the box of joint {part.joint} is empty: from {low} to {high}.")
    if not found:
        raise InputError("the table of parts is empty.")
    return tuple(found)


def _triple(values: Iterable[float]) -> Triple:
    x, y, z = (float(value) for value in values)
    return x, y, z
