"""Arrays out of a Python pickle, of which nothing is executed: an allow-list, and stand-ins for everything on it.

SMPL's files name classes of numpy, scipy and chumpy. None of them is imported or called for it: what a file says of an
array is kept as data, and turned into an array here, where it makes sense. Any other name is refused.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from facednerf_core.errors import InputError

NUMBERS = "fiub"  # kinds of numpy's dtypes that are read: floats, whole numbers, truth
FOREIGN = ("chumpy.", "scipy.sparse.")  # classes of these packages become stand-ins
PLAIN = {"set": set, "frozenset": frozenset, "OrderedDict": OrderedDict}


class Foreign:
    """An object of a class that is not imported: which class, and its state."""

    origin = ""
    state: Mapping[str, Any] = MappingProxyType({})

    def __new__(cls, *_: Any) -> Self:
        """Whatever the class's own constructor would have wanted is let go."""
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None:
        """Pickle calls it for some kinds of objects, and not for others."""

    def __setstate__(self, state: Any) -> None:
        # an object with slots is unpickled as a pair of its attributes and its slots
        parts = state if isinstance(state, tuple) else (state,)
        self.state = {name: value for part in parts if isinstance(part, dict) for name, value in part.items()}


class Dtype:
    """A number format, by its code and byte order; others may be named, as long as no array of them is wanted."""

    def __init__(self, code: Any = None, *_: Any) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1:
            self.order = state[1]

    @property
    def real(self) -> np.dtype[Any]:
        """numpy's own; '=' (the writing machine's order) is taken for little-endian.

        Raises:
            InputError: it is not a format of numbers.
        """
        known = isinstance(self.code, str) and self.code[:1] in NUMBERS and self.code[1:] in ("1", "2", "4", "8")
        if not known or self.order not in ("<", ">", "|", "="):
            raise InputError(f"the file holds an array of {self.code!r}, which is not of numbers.")
        return np.dtype(self.order.replace("=", "<") + self.code)


class Array:
    """A numpy array that is being read."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    @property
    def value(self) -> NDArray[Any]:
        """The array itself.

        Raises:
            InputError: it is damaged, or not of numbers.
        """
        try:
            _, shape, dtype, columns_first, raw = self.state
            flat = np.frombuffer(_bytes(raw), dtype.real)
            return flat.reshape(shape, order="F" if columns_first else "C")
        except (TypeError, ValueError, AttributeError) as error:
            raise InputError(f"an array of the file is damaged: {error}.") from error


class _Call:
    """A function that a pickle may name. Pickle may call it, and can change nothing about it."""

    __slots__ = ("_function",)
    _function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "_function", function)

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setattr__(self, name: str, value: Any) -> None:
        raise InputError(f"the file tries to change {name!r} of a function.")

    def __setstate__(self, state: Any) -> None:
        raise InputError("the file tries to change a function.")


class _Reader(pickle.Unpickler):
    def __init__(self, file: Any) -> None:
        super().__init__(file, encoding="latin1")
        self._classes: dict[str, type[Foreign]] = {}  # of this file alone

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            if name == "_reconstruct":
                return _Call(lambda *_: Array())
            if name == "scalar":
                return _Call(_scalar)
        if full == "numpy.ndarray":
            return _Call(lambda *_: Array())
        if full == "numpy.dtype":
            return _Call(Dtype)
        if module in ("copy_reg", "copyreg") and name == "_reconstructor":
            return _Call(self._made)
        if module in ("__builtin__", "builtins") and name == "object":
            return _Call(_no_object)
        if module in ("__builtin__", "builtins", "collections") and name in PLAIN:
            return PLAIN[name]
        if full == "_codecs.encode":
            return _Call(_latin1)
        if full.startswith(FOREIGN) or full == "weakref.WeakKeyDictionary":
            return self._classes.setdefault(full, type("Foreign", (Foreign,), {"origin": full}))
        raise InputError(f"the file names {full!r}, which is not on the list of what a body file may hold; nothing was run.")

    def _made(self, kind: Any, *_: Any) -> Foreign:
        if not (isinstance(kind, type) and issubclass(kind, Foreign)):
            raise InputError(f"the file makes an object of {kind!r}, which is not on the list of what it may hold.")
        return kind()

    def persistent_load(self, pid: Any) -> Any:
        raise InputError(f"the file refers to something outside of itself: {pid!r}.")


def read_pickle(path: Path) -> dict[str, Any]:
    """The dictionary in a pickle file, its foreign objects as stand-ins; `plain` makes arrays of them.

    Raises:
        InputError: the file is damaged, is no dictionary, or names what is not on the allow-list.
    """
    try:
        with path.open("rb") as file:
            found = _Reader(file).load()
    except InputError as error:
        raise InputError(f"'{path}' cannot be read: {error}") from error
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # a damaged pickle raises whatever its bytes amount to
        raise InputError(f"'{path}' is no pickle file, or is damaged: {type(error).__name__}: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"'{path}' holds no dictionary of arrays, but {type(found).__name__}.")
    return found


def plain(value: Any) -> NDArray[Any]:
    """The array of numbers that a value read from a pickle means: numpy's, scipy's sparse ones, chumpy's.

    Raises:
        InputError: it is none of these.
    """
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, Array):
        return value.value
    if isinstance(value, Foreign):
        kind = value.origin.rpartition(".")[2]
        try:
            if value.origin.startswith("scipy.sparse."):
                return _dense(kind, value.state)
            if kind == "Ch":
                return plain(value.state["x"])
            if kind == "Select":
                chosen = plain(value.state["a"]).ravel()[plain(value.state["idxs"]).astype(np.int64).ravel()]
                shape = value.state.get("preferred_shape")
                return chosen if shape is None else chosen.reshape(tuple(int(side) for side in shape))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise InputError(f"an object of {value.origin} lacks or garbles {error}.") from error
        raise InputError(
            f"an array is an expression of {value.origin} that was never evaluated; where chumpy is at hand, save it as "
            f"plain arrays (.npz)."
        )
    raise InputError(f"{type(value).__name__} is no array.")


def _dense(kind: str, state: Mapping[str, Any]) -> NDArray[Any]:
    """A matrix that was stored by columns (csc), by rows (csr), or entry by entry (coo); repeated entries add up."""
    rows, columns = (int(side) for side in state["_shape" if "_shape" in state else "shape"])
    data = plain(state["data"])
    if kind.startswith("coo"):
        first, second = (plain(each) for each in state.get("coords", (state.get("row"), state.get("col"))))
    elif kind.startswith(("csc", "csr")):
        minor, starts = plain(state["indices"]), plain(state["indptr"])
        major = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        first, second = (minor, major) if kind.startswith("csc") else (major, minor)
    else:
        raise InputError(f"sparse matrices of the kind {kind} are not read; csc, csr and coo are.")
    dense = np.zeros((rows, columns), data.dtype)
    np.add.at(dense, (first, second), data)
    return dense


def _scalar(dtype: Any, raw: Any = b"") -> Any:
    if not isinstance(dtype, Dtype):
        raise InputError("a number of the file is damaged.")
    return np.frombuffer(_bytes(raw), dtype.real, count=1)[0]


def _bytes(raw: Any) -> bytes:
    """What Python 2 wrote as text, and Python 3 as bytes."""
    if not isinstance(raw, str | bytes):
        raise InputError(f"an array of the file holds {type(raw).__name__}, not numbers.")
    return raw.encode("latin1") if isinstance(raw, str) else raw


def _latin1(text: Any, coding: Any = "latin1", *_: Any) -> bytes:
    if not isinstance(text, str) or coding not in ("latin1", "latin-1"):
        raise InputError(f"the file wants text encoded as {coding!r}; only latin1 is done.")
    return text.encode("latin1")


def _no_object(*_: Any) -> Any:
    raise InputError("the file makes a bare object.")
