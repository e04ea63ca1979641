"""Pseudo-random tensors that are a pure function of a name: weights for golden tests without storing weights.

The FNV-1a hash of the name seeds a SplitMix64 sequence; element `i` of the flattened tensor is its `i`-th output, mapped
to [-1, 1). Only 64-bit integer arithmetic is used, so that every platform gives the same float64 numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_WORD = 2**64
_FNV_OFFSET, _FNV_PRIME = 0xCBF29CE484222325, 0x100000001B3
_STEP, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def values(name: str, shape: Sequence[int]) -> NDArray[np.float64]:
    """Numbers in [-1, 1) of the given shape, keyed by `name`."""
    seed = _FNV_OFFSET
    for byte in name.encode("utf-8"):
        seed = ((seed ^ byte) * _FNV_PRIME) % _WORD
    with np.errstate(over="ignore"):
        counter = np.arange(1, math.prod(shape) + 1, dtype=np.uint64)
        state = np.uint64(seed) + counter * np.uint64(_STEP)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(_MIX_1)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(_MIX_2)
        state ^= state >> np.uint64(31)
    unit = (state >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return (2.0 * unit - 1.0).reshape(tuple(shape))


def tensors(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, NDArray[np.float32]]:
    """`{name: {"shape", "mul", "add"}}` -> `{name: float32(add + mul * values)}`; entries without `mul` are left out."""
    return {
        name: (entry["add"] + entry["mul"] * values(name, entry["shape"])).astype(np.float32)
        for name, entry in entries.items()
        if "mul" in entry
    }
