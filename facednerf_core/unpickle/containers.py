"""The files that checkpoints come in: a plain pickle, torch.save's zip archive, torch.save's older stream."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from facednerf_core.errors import InputError
from facednerf_core.unpickle.machine import Machine
from facednerf_core.unpickle.stored import Refused, Storage, refuse

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
"""The two numbers with which the older torch.save begins."""


def read(path: Path) -> Any:
    """What a checkpoint holds: dictionaries, lists, tuples, sets, numbers, text, bytes, `Node`s and `StoredTensor`s.

    Raises:
        Refused: the file asks for something that reading tensors does not need, or is damaged.
        InputError: there is no such file.
    """
    with naming(path), path.open("rb") as file:
        if zipfile.is_zipfile(path):
            return _archive(path)
        return _stream(Bounded(file, path.stat().st_size))


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Says of which file something is wrong, and what to do; what damaged bytes make Python raise is one of those things."""
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot read '{path}': {error.strerror or error}.") from error
    except (ImportError, KeyboardInterrupt):
        raise
    except Exception as error:
        what = (
            str(error)
            if isinstance(error, Refused)
            else f"it is damaged, or no checkpoint ({type(error).__name__}: {error})"
        )
        raise Refused(
            f"'{path}' is not read: {what}. Nothing in it was executed. Get it from its authors again; if it is as they "
            "published it, this version does not know its kind."
        ) from error


class Bounded:
    """A file that is not asked for more than it has."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size = file, size

    def read(self, count: int, /) -> bytes:
        """Exactly `count` bytes."""
        if count > self.size - self.file.tell():
            refuse(f"it ends after {self.size} bytes, and announces more")
        return self.file.read(count)

    def readline(self) -> bytes:
        """The rest of a line."""
        return self.file.readline()

    def tell(self) -> int:
        """How much was read."""
        return self.file.tell()


def _stream(file: Bounded, *, single: bool = False) -> Any:
    """A plain pickle; or of the older torch.save: five pickles, then the numbers of each storage.

    `single`: only the latter will do, as one storage that was saved by itself.
    """
    first = Machine(nested=None if single else _single).run(file)
    if type(first) is not int or first != MAGIC:
        if single:
            refuse("one of its storages is not written as torch.save does")
        return first
    protocol, system = Machine().run(file), Machine().run(file)
    if protocol != PROTOCOL or type(system) is not dict or system.get("little_endian") is not True:
        refuse(f"it is of torch.save's protocol {protocol!r:.40}, or not little-endian")
    storages: dict[str, Storage] = {}

    def stored(place: str, kind: str, count: int) -> Storage:
        return storages.setdefault(place, Storage(kind, count))

    content, places = Machine(stored).run(file), Machine().run(file)
    if type(places) is not list or sorted(map(str, places)) != sorted(storages):
        refuse("the storages that it has are not those that its tensors need")
    for place in places:
        count = int.from_bytes(file.read(8), "little", signed=True)
        if count != storages[place].count:
            refuse(f"a storage of {storages[place].count} numbers says that it has {count}")
        storages[place].fill(file.read(storages[place].size))
    return content


def _single(data: Any) -> Storage:
    if type(data) is not bytes:
        refuse("one of its storages is no sequence of bytes")
    found = _stream(Bounded(BytesIO(data), len(data)), single=True)
    if type(found) is not Storage:
        refuse(f"a storage is wanted where it has a {type(found).__name__}")
    return found


def _archive(path: Path) -> Any:
    """A zip archive of one pickle and a file for each storage, none of them compressed."""
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        roots = [name.removesuffix("data.pkl") for name in entries if name.endswith("/data.pkl")]
        if len(roots) != 1:
            refuse(f"it is a zip archive with {len(roots)} files data.pkl, and torch.save writes one")
        root = roots[0]
        if any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in entries.values()):
            refuse("it is a zip archive that is compressed or locked, and torch.save does neither")
        if f"{root}byteorder" in entries and archive.read(f"{root}byteorder") != b"little":
            refuse("its numbers are not little-endian")
        storages: dict[str, Storage] = {}

        def stored(place: str, kind: str, count: int) -> Storage:
            if place not in storages:
                storages[place] = Storage(kind, count)
                if f"{root}data/{place}" not in entries:
                    refuse(f"it has no storage {place!r:.40}")
                storages[place].fill(archive.read(f"{root}data/{place}"))
            return storages[place]

        content = archive.read(f"{root}data.pkl")
        return Machine(stored, _single).run(Bounded(BytesIO(content), len(content)))
