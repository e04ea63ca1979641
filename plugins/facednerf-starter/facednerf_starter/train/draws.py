"""Random draws that are a pure function of (seed, names, counter), the same on every device.

A draw of a billion numbers must neither wait for the CPU nor depend on the device, so numbers come from an
integer hash of a counter (two rounds of a 32-bit finaliser with low bias) computed in 64-bit integers without
overflow: integers are bitwise equal on a CPU and on a GPU, uniforms too, normals up to the rounding of `log` and `cos`.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
# Multipliers of a 32-bit finaliser, the second as a negative number that is equal modulo 2^32, so that
# |word * multiplier| stays below 2^63.
_FIRST = 0x7FEB352D
_SECOND = 0x846CA68B - (1 << 32)

Key = tuple[int, int]


def key(seed: int, *names: str | int) -> Key:
    """Two 32-bit words for a seed and any names or indices."""
    digest = hashlib.sha256("/".join(map(str, (seed, *names))).encode()).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """A numpy generator for a seed and any names or indices, for draws of a few numbers on the CPU."""
    return np.random.Generator(np.random.Philox(key=np.array(key(seed, *names), dtype=np.uint64)))


def _finalise(word: Tensor) -> Tensor:
    word = ((word ^ (word >> 16)) * _FIRST) & _WORD
    word = ((word ^ (word >> 15)) * _SECOND) & _WORD
    return word ^ (word >> 16)


def words(shape: tuple[int, ...], at: Key, device: torch.device | str = "cpu") -> Tensor:
    """Uniform 32-bit integers as int64 of the given shape, in [0, 2^32)."""
    counter = torch.arange(math.prod(shape), dtype=torch.int64, device=device)
    word = _finalise((counter + at[0]) & _WORD)
    return _finalise((word + at[1]) & _WORD).reshape(shape)


def integers(shape: tuple[int, ...], high: int, at: Key, device: torch.device | str = "cpu") -> Tensor:
    """Integers in [0, high) as int64, high below 2^31 (Lemire's multiplication, its bias below high / 2^32)."""
    if not 0 < high < 1 << 31:
        raise ValueError(f"high must be in [1, 2^31), not {high}")
    return (words(shape, at, device) * high) >> 32


def uniform(shape: tuple[int, ...], at: Key, device: torch.device | str = "cpu") -> Tensor:
    """Float32 in [0, 1), with 24 bits."""
    return (words(shape, at, device) >> 8).to(torch.float32) * 2.0**-24


def normal(shape: tuple[int, ...], at: Key, device: torch.device | str = "cpu") -> Tensor:
    """Standard normal float32 (Box and Muller, 1958)."""
    count = math.prod(shape)
    pairs = (words((2, (count + 1) // 2), at, device) >> 8).to(torch.float32) * 2.0**-24
    radius = (-2.0 * torch.log1p(-pairs[0])).sqrt()  # 1 - u is in (0, 1]
    angle = pairs[1] * (2.0 * math.pi)
    return torch.cat([radius * angle.cos(), radius * angle.sin()])[:count].reshape(shape)
