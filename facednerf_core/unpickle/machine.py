"""A machine for the instructions of pickles that makes plain things and inert nodes, and nothing else.

A pickle is a program: it names classes and functions, and calls them. This machine looks names up in a list of its own, and
what it calls are the functions of `records`. No name is imported, no attribute of an object is set.
"""

from __future__ import annotations

from collections.abc import Callable
from pickletools import genops
from typing import Any, Protocol

from facednerf_core.unpickle.records import CALLS, LOAD, MAPPINGS, NAMES, Array, Dtype, array, key
from facednerf_core.unpickle.stored import Node, Storage, refuse

INERT = ("training.", "torch.nn.modules.")
"""Classes under these names become nodes."""
PLAIN = {
    *("NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_SET": set}
Finder = Callable[[str, str, int], Storage]
"""The storage of a key, a storage class and a count."""


class Source(Protocol):
    """Where a pickle is read from."""

    def read(self, count: int, /) -> bytes: ...

    def readline(self) -> bytes: ...

    def tell(self) -> int: ...


class Name:
    """What stands in the file for a class or a function."""

    __slots__ = ("module", "name")

    def __init__(self, module: object, name: object) -> None:
        self.module, self.name = str(module), str(name)

    @property
    def path(self) -> str:
        """Both with a dot."""
        return f"{self.module}.{self.name}"


class Machine:
    """Reads one pickle.

    Args:
        storages: finds the storage that a persistent id names, as in what torch.save writes; None: there are no such ids.
        nested: reads the bytes of a storage that was saved by itself.
    """

    def __init__(self, storages: Finder | None = None, nested: Callable[[bytes], Any] | None = None) -> None:
        self.storages, self.nested = storages, nested
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, source: Source) -> Any:
        """What the pickle makes.

        Raises:
            Refused: it asks for something that is not on the list.
            Exception: the bytes are no pickle (whatever Python raises at such).
        """
        for instruction, argument, _ in genops(source):  # type: ignore[arg-type]
            name = instruction.name
            if name == "STOP":
                break
            if name in PLAIN:
                self.stack.append(CONSTANTS.get(name, argument))
            elif name in EMPTY:
                self.stack.append(EMPTY[name]())
            else:
                handler = getattr(self, f"on_{name.lower()}", None)
                if handler is None:
                    refuse(f"it uses the instruction {name}, which no checkpoint needs")
                handler(argument)
        (made,) = self.stack
        return made

    def above_mark(self) -> list[Any]:
        """Takes what lies on the stack since the last mark."""
        start = self.marks.pop()
        found, self.stack[start:] = self.stack[start:], []
        return found

    def on_proto(self, version: int) -> None:
        if version > 5:
            refuse(f"it is written in protocol {version} of pickle; 2 to 5 are known")

    def on_frame(self, _: int) -> None:
        """Frames only help reading."""

    def on_mark(self, _: None) -> None:
        self.marks.append(len(self.stack))

    def on_pop(self, _: None) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.stack.pop()

    def on_pop_mark(self, _: None) -> None:
        self.above_mark()

    def on_put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    on_binput = on_long_binput = on_put

    def on_memoize(self, _: None) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def on_get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    on_binget = on_long_binget = on_get

    def on_tuple(self, _: None) -> None:
        self.stack.append(tuple(self.above_mark()))

    def on_tuple1(self, _: None) -> None:
        self.stack[-1:] = [(self.stack[-1],)]

    def on_tuple2(self, _: None) -> None:
        self.stack[-2:] = [tuple(self.stack[-2:])]

    def on_tuple3(self, _: None) -> None:
        self.stack[-3:] = [tuple(self.stack[-3:])]

    def on_list(self, _: None) -> None:
        self.stack.append(self.above_mark())

    def on_dict(self, _: None) -> None:
        items = self.above_mark()
        self.stack.append({})
        self.fill(items)

    def on_append(self, _: None) -> None:
        value = self.stack.pop()
        self.container(list).append(value)

    def on_appends(self, _: None) -> None:
        items = self.above_mark()
        self.container(list).extend(items)

    def on_setitem(self, _: None) -> None:
        value, name = self.stack.pop(), self.stack.pop()
        self.fill([name, value])

    def on_setitems(self, _: None) -> None:
        self.fill(self.above_mark())

    def on_additems(self, _: None) -> None:
        items = self.above_mark()
        self.container(set).update(key(item) for item in items)

    def container(self, kind: type) -> Any:
        """What lies on top of the stack, if it is one of Python's own containers."""
        target = self.stack[-1]
        if type(target) is not kind:
            refuse(f"it adds items to a {type(target).__name__} as if that were a {kind.__name__}")
        return target

    def fill(self, items: list[Any]) -> None:
        """Puts names and values, in turn, into the dictionary on top of the stack."""
        target: dict[Any, Any] = self.container(dict)
        for name, value in zip(items[::2], items[1::2], strict=True):
            target[key(name)] = value

    def on_global(self, text: str) -> None:
        module, _, name = text.partition(" ")  # as pickletools has it
        self.push_name(module, name)

    def on_stack_global(self, _: None) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.push_name(module, name)

    def push_name(self, module: object, name: object) -> None:
        """A name of the list."""
        found = Name(module, name)
        if found.path not in CALLS and found.path not in NAMES and not found.module.startswith(INERT):
            refuse(f"it asks for {found.path}, which reading tensors does not need")
        self.stack.append(found)

    def on_reduce(self, _: None) -> None:
        given, called = self.stack.pop(), self.stack.pop()
        if not isinstance(called, Name) or called.path not in CALLS or type(given) is not tuple:
            what = called.path if isinstance(called, Name) else f"a {type(called).__name__}"
            refuse(f"it calls {what}, which is not among the functions that are known")
        if called.path == LOAD:
            if self.nested is None:
                refuse("it has a storage inside a storage")
            (data,) = given
            self.stack.append(self.nested(data))
        else:
            self.stack.append(CALLS[called.path](*given))

    def on_newobj(self, _: None) -> None:
        given, called = self.stack.pop(), self.stack.pop()
        if isinstance(called, Name) and called.path in MAPPINGS and given == ():
            self.stack.append({})
        elif isinstance(called, Name) and called.path not in CALLS and called.module.startswith(INERT) and given == ():
            self.stack.append(Node(called.module, called.name))
        else:
            what = called.path if isinstance(called, Name) else f"a {type(called).__name__}"
            refuse(f"it makes an object of {what} from {len(given)} arguments, which is not known")

    def on_build(self, _: None) -> None:
        """The state of an object. Nothing is ever set on what Python itself looks at."""
        state = self.stack.pop()
        target = self.stack[-1]
        if type(target) is Node and type(state) is dict:
            target.state.update(state)
        elif type(target) is Dtype and type(state) is tuple and len(state) > 1:
            target.order = str(state[1])
        elif type(target) is Array and type(state) is tuple and len(state) == 5:
            target.tensor = array(*state)
        elif type(target) is not dict:  # what torch notes on a state dict, and what an EasyDict has beside its items
            refuse(f"it gives a {type(target).__name__} a state, which only networks have")

    def on_binpersid(self, _: None) -> None:
        found = self.stack.pop()
        if self.storages is None:
            refuse(f"it refers to something outside of the file ({found!r:.80})")
        if type(found) is not tuple or len(found) not in (5, 6) or found[0] != "storage" or any(found[5:]):
            refuse(f"it refers to {found!r:.80} where a storage of its own is wanted")
        _, kind, place, _, count = found[:5]  # what device it was on does not matter
        if not isinstance(kind, Name) or kind.path not in NAMES:
            refuse("it refers to a storage of no known type")
        self.stack.append(self.storages(str(place), kind.name, count))
