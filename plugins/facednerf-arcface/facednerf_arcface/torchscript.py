"""A TorchScript archive read as data: its tensors, and nothing of its code.

The archive is a zip file: `data.pkl` pickles the module's attributes, `constants.pkl` the constants of its code, and the
numbers of each tensor lie in a file of their own. Both pickles are read by a list of what may stand in them.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from facednerf_core.errors import InputError

CONSTANTS = "constants."  # before the names of tensors that are the code's, not the module's


def is_archive(source: Path) -> bool:
    """Whether a file is a TorchScript archive: what torch saves without code has no constants."""
    if not source.is_file() or not zipfile.is_zipfile(source):
        return False
    with zipfile.ZipFile(source) as opened:
        return any(PurePosixPath(name).parts[1:] == ("constants.pkl",) for name in opened.namelist())


def read(source: Path) -> dict[str, Tensor]:
    """The tensors of a TorchScript archive by their attributes' paths, in the archive's order; its code is left alone.

    Raises:
        InputError: the file is not such an archive, or holds something that is not data.
    """
    try:
        with zipfile.ZipFile(source) as opened:
            found: dict[str, Tensor] = {}
            for part in ("data", "constants"):
                (name,) = (item for item in opened.namelist() if PurePosixPath(item).parts[1:] == (f"{part}.pkl",))
                with opened.open(name) as pickled:
                    tree = _DataOnly(pickled, opened, name.removesuffix(".pkl")).load()
                found |= dict(_walked(tree, "" if part == "data" else CONSTANTS))
            return found
    except (OSError, ValueError, KeyError, RuntimeError, EOFError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        raise InputError(f"{source} is not a TorchScript archive that can be read as data: {error}.") from error


class _Object:
    """What stands for an object of the archive's own classes: its attributes, and no behaviour."""

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)


class _DataOnly(pickle.Unpickler):
    """Reads the pickles of a TorchScript archive; whatever is not on its list is refused."""

    STORAGES: Mapping[str, torch.dtype] = {
        "FloatStorage": torch.float32, "DoubleStorage": torch.float64, "HalfStorage": torch.float16,
        "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32, "BoolStorage": torch.bool,
    }  # fmt: skip

    def __init__(self, pickled: Any, opened: zipfile.ZipFile, folder: str) -> None:
        super().__init__(pickled)
        self.opened, self.folder = opened, folder

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return _Object
        if module == "torch" and name in self.STORAGES:
            return self.STORAGES[name]
        if module == "torch.jit._pickle" and re.fullmatch("build_(int|double|bool|tensor)list|restore_type_tag", name):
            return _first
        known = {"collections.OrderedDict": OrderedDict, "torch._utils._rebuild_tensor_v2": _view}
        if f"{module}.{name}" not in known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return known[f"{module}.{name}"]

    def persistent_load(self, pid: Any) -> Tensor:
        _, dtype, key, _, count = pid  # 'storage', dtype, key, device, number of elements
        flat = torch.frombuffer(bytearray(self.opened.read(f"{self.folder}/{key}")), dtype=dtype)
        if flat.numel() != count:
            raise ValueError(f"its storage {key} holds {flat.numel()} numbers instead of {count}")
        return flat


def _first(value: Any, *_: Any) -> Any:
    """A list or dictionary without the tag of its type."""
    return value


def _view(flat: Tensor, offset: int, shape: Sequence[int], strides: Sequence[int], *_: Any) -> Tensor:
    return torch.as_strided(flat, tuple(shape), tuple(strides), offset).clone()


def _walked(tree: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors of nested objects, lists and dictionaries, by their paths."""
    if isinstance(tree, Tensor):
        yield name.removesuffix("."), tree
        return
    if isinstance(tree, _Object):
        tree = vars(tree)
    parts = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list | tuple) else ()
    for key, value in parts:
        yield from _walked(value, f"{name}{key}.")
