"""What a checkpoint is made of, as it lies in the file."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from facednerf_core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

DTYPES = {  # by storage class: the name of the type, and its bytes
    "FloatStorage": ("float32", 4),
    "DoubleStorage": ("float64", 8),
    "HalfStorage": ("float16", 2),
    "BFloat16Storage": ("bfloat16", 2),
    "LongStorage": ("int64", 8),
    "IntStorage": ("int32", 4),
    "ShortStorage": ("int16", 2),
    "CharStorage": ("int8", 1),
    "ByteStorage": ("uint8", 1),
    "BoolStorage": ("bool", 1),
}


class Refused(InputError):
    """A checkpoint asks for what is not on the allow-list, or is damaged; nothing in it was executed."""


def refuse(what: str) -> NoReturn:
    """Stops reading; whoever opened the file adds its name and what to do."""
    raise Refused(what)


@dataclass(eq=False)
class Node:
    """An object of a checkpoint that was not made: what it was called, and what it held."""

    module: str  # where its class was to be found; empty if its source came with it
    name: str
    state: dict[str, Any] = field(default_factory=dict)
    source: str = ""  # SHA-256 of the source that came with it, which is not kept


@dataclass(eq=False)
class Storage:
    """Numbers of one type, of which tensors are parts."""

    kind: str  # the storage class, of DTYPES
    count: int
    data: bytes | None = None  # little-endian

    def __post_init__(self) -> None:
        if type(self.count) is not int or self.count < 0:
            refuse(f"a storage has {self.count!r} numbers")

    @property
    def size(self) -> int:
        """Bytes."""
        return self.count * DTYPES[self.kind][1]

    def fill(self, data: bytes) -> None:
        """Takes its numbers."""
        if len(data) != self.size:
            refuse(f"a {self.kind} of {self.count} numbers has {len(data)} bytes instead of {self.size}")
        self.data = data


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor as a part of a storage."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def __post_init__(self) -> None:
        numbers = (self.offset, *self.size, *self.stride)
        if len(self.size) != len(self.stride) or any(type(n) is not int or n < 0 for n in numbers):
            refuse(f"a tensor has size {self.size}, stride {self.stride} and offset {self.offset!r}")

    def tensor(self) -> Tensor:
        """The numbers, contiguous, in memory of their own, on the CPU wherever they once were.

        Raises:
            Refused: the storage does not have them.
        """
        import torch

        kind: torch.dtype = getattr(torch, DTYPES[self.storage.kind][0])
        count = math.prod(self.size)
        if count == 0:
            return torch.empty(self.size, dtype=kind)
        last = self.offset + sum((extent - 1) * step for extent, step in zip(self.size, self.stride, strict=True))
        if self.storage.data is None or max(count, last + 1) > self.storage.count:
            refuse(f"a tensor of size {self.size} reaches beyond its storage of {self.storage.count} numbers")
        flat = torch.frombuffer(bytearray(self.storage.data), dtype=kind)
        return flat.as_strided(self.size, self.stride, self.offset).clone(memory_format=torch.contiguous_format)
