"""What the functions that a checkpoint may name are replaced by: they build records, and import nothing."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from typing import Any

from facednerf_core.unpickle.stored import DTYPES, Node, Storage, StoredTensor, refuse

CODES = {"f8": "<d", "f4": "<f", "i8": "<q", "i4": "<i", "i2": "<h", "i1": "<b", "u1": "<B", "b1": "<?"}
"""numpy's names of numbers, and struct's."""


class Dtype:
    """numpy's description of a number."""

    __slots__ = ("code", "order")

    def __init__(self, code: str, order: str = "<") -> None:
        self.code, self.order = code, order


class Array:
    """An array of numpy, empty until its state comes."""

    __slots__ = ("tensor",)

    def __init__(self) -> None:
        self.tensor: StoredTensor | None = None


def key(value: Any) -> Any:
    """A key of a dictionary or an item of a set: text, number or nothing, which are quick to compare."""
    if value is not None and type(value) not in (str, int, float, bool, bytes):
        refuse(f"it has a {type(value).__name__} for a key")
    return value


def persistent(meta: Any) -> Node:
    """A network whose source came with it; the source is not kept."""
    if type(meta) is not dict or meta.get("type") != "class" or type(meta.get("state")) is not dict:
        refuse("one of its networks is not written as official checkpoints do")
    source = hashlib.sha256(str(meta.get("module_src", "")).encode("utf-8", "surrogatepass")).hexdigest()
    return Node("", str(meta.get("class_name")), meta["state"], source)


def tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> StoredTensor:
    """A tensor; whether it wanted a gradient does not matter."""
    if type(storage) is not Storage or type(size) is not tuple or type(stride) is not tuple:
        refuse("one of its tensors has no storage, size or stride")
    return StoredTensor(storage, offset, size, stride)


def parameter(data: Any, *_: Any) -> StoredTensor:
    """A parameter is its tensor."""
    if type(data) is not StoredTensor:
        refuse("one of its parameters is no tensor")
    return data


def size(*given: Any) -> tuple[Any, ...]:
    """torch.Size."""
    return tuple(given[0]) if given and type(given[0]) is tuple else ()


def mapping(*given: Any) -> dict[Any, Any]:
    """A dictionary, of pairs where the file gives them."""
    pairs = given[0] if given else []
    if type(pairs) is not list or any(type(pair) not in (tuple, list) or len(pair) != 2 for pair in pairs):
        refuse("one of its dictionaries is not made of pairs")
    return {key(name): value for name, value in pairs}


def collection(*given: Any) -> set[Any]:
    """A set."""
    items = given[0] if given else []
    if type(items) is not list:
        refuse("one of its sets is not made of a list")
    return {key(item) for item in items}


def encoded(text: Any, encoding: Any = "latin1") -> bytes:
    """Bytes, as protocol 2 writes them."""
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        refuse(f"it encodes bytes as {encoding!r:.40}; only latin1 is known")
    return text.encode("latin1")


def dtype(code: Any, *_: Any) -> Dtype:
    """numpy's description of a number."""
    if code not in CODES:
        refuse(f"it has numbers of numpy's type {code!r:.40}; these are known: {', '.join(CODES)}")
    return Dtype(code)


def scalar(kind: Any, data: Any) -> Any:
    """A number of numpy, as Python's."""
    if type(kind) is not Dtype or type(data) is not bytes:
        refuse("one of its numbers has no type")
    (value,) = struct.unpack((">" if kind.order == ">" else "<") + CODES[kind.code][1:], data)
    return value


def reconstructed(*_: Any) -> Array:
    """An array of numpy; its state follows."""
    return Array()


def array(_: Any, shape: Any, kind: Any, columns: Any, data: Any) -> StoredTensor:
    """The state of an array of numpy, row by row or column by column."""
    kinds = {"f8": "DoubleStorage", "f4": "FloatStorage", "i8": "LongStorage", "i4": "IntStorage", "u1": "ByteStorage"}
    if (
        type(kind) is not Dtype
        or kind.order == ">"
        or kind.code not in kinds
        or type(data) is not bytes
        or type(shape) is not tuple
    ):
        refuse("one of its arrays is of a kind that is not known")
    storage = Storage(kinds[kind.code], len(data) // DTYPES[kinds[kind.code]][1], data)
    stride, step = [0] * len(shape), 1
    for axis in range(len(shape)) if columns else reversed(range(len(shape))):
        stride[axis], step = step, step * shape[axis]
    return StoredTensor(storage, 0, shape, tuple(stride))


LOAD = "torch.storage._load_from_bytes"
MAPPINGS = {"collections.OrderedDict", "dnnlib.util.EasyDict", "dnnlib.EasyDict"}
NAMES = {f"torch.{kind}" for kind in DTYPES} | {"numpy.ndarray"}
"""What may be named, but not called."""
CALLS: dict[str, Callable[..., Any]] = {
    "torch_utils.persistence._reconstruct_persistent_obj": persistent,
    **dict.fromkeys(MAPPINGS, mapping),
    "torch._utils._rebuild_tensor_v2": tensor,
    "torch._utils._rebuild_parameter": parameter,
    "torch._utils._rebuild_parameter_with_state": parameter,
    LOAD: refuse,  # the machine does this itself
    "torch.Size": size,
    "builtins.set": collection,
    "__builtin__.set": collection,
    "_codecs.encode": encoded,
    "numpy.dtype": dtype,
    **{f"{module}.multiarray.scalar": scalar for module in ("numpy.core", "numpy._core")},
    **{f"{module}.multiarray._reconstruct": reconstructed for module in ("numpy.core", "numpy._core")},
}
"""What may be called, and what is done instead."""
