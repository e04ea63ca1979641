"""An ONNX file read as data: the nodes of its graph and its constant tensors. Nothing is executed, no library is needed.

The file is a protocol buffer: a message is a sequence of fields, each a key (field number and wire type) and a value
(protobuf's "Encoding"). Field numbers below are those of ONNX's public `onnx.proto`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from facednerf_core.errors import InputError

Value = int | float | bytes | np.ndarray | list[int] | list[float]
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5  # wire types
BFLOAT16, EXTERNAL = 16, 1
DTYPES: Mapping[int, np.dtype] = {
    1: np.dtype("<f4"), 2: np.dtype("u1"), 3: np.dtype("i1"), 4: np.dtype("<u2"), 5: np.dtype("<i2"), 6: np.dtype("<i4"),
    7: np.dtype("<i8"), 9: np.dtype("?"), 10: np.dtype("<f2"), 11: np.dtype("<f8"), 12: np.dtype("<u4"),
    13: np.dtype("<u8"), BFLOAT16: np.dtype("<u2"),
}  # fmt: skip
"""numpy's types by TensorProto.DataType; bfloat16 is read as its bits first."""


@dataclass(frozen=True)
class Node:
    """One operation of a graph."""

    op: str  # such as Conv; with its domain before a dot where it is not ONNX's own
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Value] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.op} of {', '.join(repr(name) for name in self.inputs)}"


@dataclass(frozen=True)
class Graph:
    """What an ONNX file computes: nodes in the order in which they run, and constants by name."""

    nodes: tuple[Node, ...]
    constants: Mapping[str, np.ndarray]
    inputs: tuple[str, ...]  # those without a constant of their name
    outputs: tuple[str, ...]


def read(path: Path) -> Graph:
    """The graph of an ONNX file.

    Raises:
        InputError: it cannot be read, is not an ONNX file, or has tensors that are missing or of unknown types.
    """
    try:
        content = memoryview(path.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}.") from error
    try:
        graphs = [value for number, value in _fields(content) if number == 7]
        if len(graphs) != 1:
            raise ValueError("it holds no graph")
        return _graph(_bytes(graphs[0]), path.parent)
    except (ValueError, struct.error, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not an ONNX file that can be read: {error}.") from error


def _graph(message: memoryview, folder: Path) -> Graph:
    nodes: list[Node] = []
    constants: dict[str, np.ndarray] = {}
    inputs: list[str] = []
    outputs: list[str] = []
    for number, value in _fields(message):
        if number == 1:
            nodes.append(_node(_bytes(value), folder))
        elif number == 5:
            name, tensor = _tensor(_bytes(value), folder)
            constants[name] = tensor
        elif number in (11, 12):
            (inputs if number == 11 else outputs).append(_text(_only(_bytes(value), 1)))
        elif number == 15:
            raise ValueError("it has sparse tensors")
    return Graph(tuple(nodes), constants, tuple(name for name in inputs if name not in constants), tuple(outputs))


def _node(message: memoryview, folder: Path) -> Node:
    inputs: list[str] = []
    outputs: list[str] = []
    op = domain = ""
    attributes: dict[str, Value] = {}
    for number, value in _fields(message):
        if number == 1:
            inputs.append(_text(value))
        elif number == 2:
            outputs.append(_text(value))
        elif number == 4:
            op = _text(value)
        elif number == 5:
            name, content = _attribute(_bytes(value), folder)
            attributes[name] = content
        elif number == 7:
            domain = _text(value)
    named = op if domain in ("", "ai.onnx") else f"{domain}.{op}"
    return Node(named, tuple(inputs), tuple(outputs), attributes)


def _attribute(message: memoryview, folder: Path) -> tuple[str, Value]:
    name = ""
    found: Value | None = None
    floats: list[float] = []
    ints: list[int] = []
    for number, value in _fields(message):
        if number == 1:
            name = _text(value)
        elif number == 2:
            found = _float(value)
        elif number == 3:
            found = _signed(value)
        elif number == 4:
            found = bytes(_bytes(value))
        elif number == 5:
            found = _tensor(_bytes(value), folder)[1]
        elif number == 7:
            floats += _packed(value, np.dtype("<f4")).tolist() if isinstance(value, memoryview) else [_float(value)]
        elif number == 8:
            ints += _integers(value)
    return name, found if found is not None else floats or ints


def _tensor(message: memoryview, folder: Path) -> tuple[str, np.ndarray]:
    """Name and content of a tensor, bfloat16 as float32."""
    name, kind, shape = "", 0, []
    raw: memoryview | None = None
    typed: list[np.ndarray] = []
    outside: dict[str, str] = {}
    external = False
    for number, value in _fields(message):
        if number == 1:
            shape += _integers(value)
        elif number == 2:
            kind = _signed(value)
        elif number in (4, 10):
            width = np.dtype("<f4" if number == 4 else "<f8")
            alone = value if isinstance(value, memoryview) else memoryview(value.to_bytes(width.itemsize, "little"))
            typed.append(_packed(alone, width))
        elif number in (5, 7, 11):
            typed.append(np.array(_integers(value), np.int64))
        elif number == 8:
            name = _text(value)
        elif number == 9:
            raw = _bytes(value)
        elif number == 13:
            outside[_text(_only(_bytes(value), 1))] = _text(_only(_bytes(value), 2))
        elif number == 14:
            external = _signed(value) == EXTERNAL
    if kind not in DTYPES:
        raise ValueError(f"its tensor {name!r} is of a type that is not read here (number {kind})")
    dtype = DTYPES[kind]
    if external:
        raw = _outside(outside, folder, name)
    if raw is not None:
        if len(raw) % dtype.itemsize:
            raise ValueError(f"its tensor {name!r} is cut off")
        flat = np.frombuffer(raw, dtype)
    else:
        flat = np.concatenate(typed) if typed else np.zeros(0)
        # half precision that is not raw lies in integers, as bits
        flat = flat.astype("<u2").view(dtype) if kind in (10, BFLOAT16) else flat.astype(dtype)
    if kind == BFLOAT16:
        flat = (flat.astype("<u4") << 16).view("<f4")
    if flat.size != int(np.prod(shape, dtype=np.int64)):
        raise ValueError(f"its tensor {name!r} has {flat.size} numbers, which do not fill its shape {tuple(shape)}")
    return name, flat.reshape(shape)


def _outside(entries: Mapping[str, str], folder: Path, name: str) -> memoryview:
    """The bytes of a tensor that lie in another file of the same folder."""
    place = entries.get("location", "")
    file = folder / place
    if not place or Path(place).is_absolute() or ".." in Path(place).parts:
        raise ValueError(f"its tensor {name!r} lies in {place!r}, which is no file beside it")
    if not file.is_file():
        raise ValueError(f"its tensor {name!r} lies in {file}, which is missing; keep both files together")
    offset, length = int(entries.get("offset", "0")), int(entries.get("length", "-1"))
    with file.open("rb") as opened:
        opened.seek(offset)
        found = opened.read(length)
    if length >= 0 and len(found) != length:
        raise ValueError(f"{file} is cut off")
    return memoryview(found)


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a message: their numbers, and a number or the bytes that they hold."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire == LENGTH:
            size, at = _varint(message, at)
        elif wire in (FIXED32, FIXED64):
            size = 4 if wire == FIXED32 else 8
        else:
            raise ValueError(f"it has a field of wire type {wire}")
        if at + size > len(message):
            raise ValueError("it is cut off")
        part = message[at : at + size]
        at += size
        yield number, part if wire == LENGTH else int.from_bytes(part, "little")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """The number that begins at a place, seven bits a byte, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("it is cut off")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("it has a number that does not end")


def _bytes(value: int | memoryview) -> memoryview:
    if not isinstance(value, memoryview):
        raise ValueError("it has a number where a message should be")
    return value


def _text(value: int | memoryview) -> str:
    return str(_bytes(value), "utf-8")


def _signed(value: int | memoryview) -> int:
    if isinstance(value, memoryview):
        raise ValueError("it has a message where a number should be")
    return value - 2**64 if value >= 2**63 else value


def _float(value: int | memoryview) -> float:
    return float(struct.unpack("<f", struct.pack("<I", _signed(value) & 0xFFFFFFFF))[0])


def _integers(value: int | memoryview) -> list[int]:
    """A repeated whole number, packed or alone."""
    if not isinstance(value, memoryview):
        return [_signed(value)]
    found, at = [], 0
    while at < len(value):
        item, at = _varint(value, at)
        found.append(_signed(item))
    return found


def _packed(value: memoryview, dtype: np.dtype) -> np.ndarray:
    if len(value) % dtype.itemsize:
        raise ValueError("it is cut off")
    return np.frombuffer(value, dtype)


def _only(message: memoryview, number: int) -> int | memoryview:
    """The last value of a field."""
    found = [value for key, value in _fields(message) if key == number]
    if not found:
        raise ValueError(f"it lacks field {number} of a message")
    return found[-1]
