"""The networks of a checkpoint: their tensors by name, what they were constructed with, and their plain attributes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facednerf_core.errors import InputError
from facednerf_core.unpickle.containers import naming, read
from facednerf_core.unpickle.records import Array
from facednerf_core.unpickle.stored import Node, StoredTensor, refuse

if TYPE_CHECKING:
    from torch import Tensor

DEEPEST, MOST = 64, 100_000
"""How deeply modules and plain data are nested at most, and how many parts they have: no checkpoint comes near."""


@dataclass(frozen=True)
class Network:
    """What a checkpoint says of one network."""

    name: str  # of its class; empty where the file holds tensors by name and no network
    tensors: dict[str, Tensor]  # as its state dict had them, in that order
    arguments: dict[str, Any]  # of its constructor
    attributes: dict[str, Any]  # plain data and tensors of it and its modules, by dotted name ('renderer.plane_axes')
    source: str = ""  # SHA-256 of the source that came with it


def network(path: Path, name: str = "G_ema") -> Network:
    """A network of an official checkpoint; or, of a file of torch.save, the tensors that it holds under a name or at all.

    Raises:
        Refused: the file asks for something that reading tensors does not need, or is damaged.
        InputError: there is no such file, or no such network in it.
    """
    found = read(path)
    if type(found) is dict and _named(found):
        return _tensors_only(path, found)
    if type(found) is not dict or name not in found:
        there = ", ".join(map(str, found)) if type(found) is dict else f"a {type(found).__name__}"
        raise InputError(f"'{path}' holds no network {name!r}; it holds: {there or 'nothing'}.")
    chosen = found[name]
    if type(chosen) is dict and _named(chosen):
        return _tensors_only(path, chosen)
    if type(chosen) is not Node:
        raise InputError(f"{name!r} in '{path}' is a {type(chosen).__name__}; a network, or tensors by name, are wanted.")
    with naming(path):
        parts = _Parts()
        arguments = parts.plain(chosen.state.get("_init_kwargs", {}))
        if type(arguments) is not dict:
            refuse(f"the arguments of {chosen.name} are a {type(arguments).__name__} instead of a dictionary")
        tensors = {path: stored.tensor() for path, stored in parts.tensors(chosen)}
        return Network(chosen.name, tensors, arguments, dict(parts.attributes(chosen)), chosen.source)


def _named(found: dict[Any, Any]) -> bool:
    return bool(found) and all(type(key) is str and type(value) is StoredTensor for key, value in found.items())


def _tensors_only(path: Path, found: dict[str, StoredTensor]) -> Network:
    with naming(path):
        return Network("", {key: value.tensor() for key, value in found.items()}, {}, {})


class _Parts:
    """Walks through what a file holds, so far and no farther: what is shared, or holds itself, could go on for ever."""

    def __init__(self) -> None:
        self.seen = 0

    def count(self, depth: int) -> None:
        self.seen += 1
        if depth > DEEPEST or self.seen > MOST:
            refuse(f"its parts are nested more than {DEEPEST} deep, or more than {MOST}")

    def modules(self, node: Node, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Node]]:
        """A module and all below it, with the beginnings of their tensors' names, in the order of a state dict."""
        self.count(depth)
        yield prefix, node
        for name, child in _table(node, "_modules").items():
            if child is not None:
                if type(child) is not Node:
                    refuse(f"{prefix}{name} is a {type(child).__name__} instead of a module")
                yield from self.modules(child, f"{prefix}{name}.", depth + 1)

    def tensors(self, node: Node) -> Iterator[tuple[str, StoredTensor]]:
        """The tensors of a state dict: of each module its parameters, then its buffers that are to be kept."""
        for prefix, module in self.modules(node):
            left_out = module.state.get("_non_persistent_buffers_set") or ()
            for group in ("_parameters", "_buffers"):
                for name, value in _table(module, group).items():
                    if value is None or (group == "_buffers" and name in left_out):
                        continue
                    if type(value) is not StoredTensor:
                        refuse(f"{prefix}{name} is a {type(value).__name__} instead of a tensor")
                    self.count(0)
                    yield f"{prefix}{name}", value

    def attributes(self, node: Node) -> Iterator[tuple[str, Any]]:
        """What the modules know beside their tensors, as far as it is plain; names that begin with _ are their own."""
        for prefix, module in self.modules(node):
            for name, value in module.state.items():
                if not name.startswith("_") and name != "training" and self.is_plain(value):
                    yield f"{prefix}{name}", self.plain(value)

    def is_plain(self, value: Any, depth: int = 0) -> bool:
        """Whether `plain` can make it."""
        self.count(depth)
        if type(value) is dict:
            return all(type(key) is str and self.is_plain(part, depth + 1) for key, part in value.items())
        if type(value) in (list, tuple):
            return all(self.is_plain(part, depth + 1) for part in value)
        return value is None or type(value) in (bool, int, float, str, StoredTensor, Array)

    def plain(self, value: Any, depth: int = 0) -> Any:
        """Dictionaries, lists, tuples, numbers, text, nothing and tensors, copied; an array of numpy becomes a tensor."""
        self.count(depth)
        if type(value) is dict:
            return {str(key): self.plain(part, depth + 1) for key, part in value.items()}
        if type(value) in (list, tuple):
            return type(value)(self.plain(part, depth + 1) for part in value)
        stored = value.tensor if type(value) is Array else value
        if type(stored) is StoredTensor:
            return stored.tensor()
        if stored is None or type(stored) in (bool, int, float, str):
            return stored
        return refuse(f"a {type(value).__name__} stands where a number, text or tensor is wanted")


def _table(node: Node, name: str) -> dict[str, Any]:
    found = node.state.get(name, {})
    if type(found) is not dict or any(type(key) is not str for key in found):
        refuse(f"{name} of a {node.name} is no dictionary of names")
    return found
