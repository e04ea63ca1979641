"""Trained weights: which card serves a plugin, where its files are, whether they are what they should be.

Files that a distribution ships are used where they lie. Everything else is imported once, converted if it must be, and
kept in a cache under its own content's hash. Packs never mix: a card is looked for in the pack that was asked for.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from urllib.parse import urlparse

from facednerf_core.cards import ANY, LocalWeights, WeightsCard
from facednerf_core.errors import FacednerfError, InputError, MissingWeights, UnknownName

CACHE = "FACEDNERF_CACHE"  # the folder that replaces the user's cache folder
AUTO = "auto"
PREFERENCE = ("official", "starter")  # of packs, where the user names none
SOURCE = "source"  # the role in WeightsCard.sha256 of the official file, before conversion
FETCHABLE = {".bin", ".ckpt", ".onnx", ".pkl", ".pt", ".pth", ".safetensors", ".t7"}
Converter = Callable[[Path, Path], None]  # (official file or folder, folder to write the card's files into)


def cache_folder() -> Path:
    """Where imported weights and verdicts are kept: FACEDNERF_CACHE, or the user's cache folder."""
    given = os.environ.get(CACHE)
    if given:
        return Path(given).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("facednerf")


def digest(path: Path) -> str:
    """The SHA-256 of a file in hex; of a folder, that of the lines 'hash  relative/path' of its files, sorted by path."""
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    lines = [f"{digest(file)}  {file.relative_to(path).as_posix()}\n" for file in _files(path)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def size(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    return sum(file.stat().st_size for file in _files(path))


@dataclass(frozen=True)
class Pack:
    """A set of weights that belong together, which of them are on this machine, and which would fill a gap."""

    name: str
    present: tuple[WeightsCard, ...]
    missing: tuple[WeightsCard, ...]  # not here, and none that is here does the same; any one of alternatives will do

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing

    @property
    def gaps(self) -> dict[str, tuple[str, ...]]:
        """What is missing: kinds, and the domains of the cards that would serve them."""
        kinds = dict.fromkeys(card.kind for card in self.missing)
        return {
            kind: tuple(sorted({domain for card in self.missing if card.kind == kind for domain in card.domains}))
            for kind in kinds
        }


class Registry:
    """The weights cards of all plugins, and the files behind them.

    Args:
        cards: by name, as `Shelves.weights` has them.
        cache: the cache folder; None for the user's.
    """

    def __init__(self, cards: Mapping[str, WeightsCard], cache: Path | None = None) -> None:
        self.cards = dict(cards)
        self.cache = cache or cache_folder()

    def __getitem__(self, name: str) -> WeightsCard:
        """The card of this name.

        Raises:
            UnknownName: there is none.
        """
        if name not in self.cards:
            raise UnknownName("weights card", name, self.cards, "See: fdn weights")
        return self.cards[name]

    def fitting(self, kind: str, plugin: str, domains: Iterable[str] = (ANY,)) -> list[WeightsCard]:
        """The cards for a plugin that know one of the domains, in the order of registration."""
        wanted = set(domains)
        return [
            card
            for card in self.cards.values()
            if (card.kind, card.plugin) == (kind, plugin)
            and (ANY in wanted or ANY in card.domains or wanted & set(card.domains))
        ]

    def choose(self, kind: str, plugin: str, pack: str = AUTO, domains: Iterable[str] = (ANY,)) -> WeightsCard:
        """The card that serves a plugin: of the pack, or with 'auto' of the first pack that is on this machine.

        Raises:
            UnknownName: no card belongs to this pack.
            MissingWeights: the plugin has no fitting card in the pack, or none is on this machine.
        """
        packs = sorted({card.pack for card in self.cards.values()})
        if pack != AUTO and pack not in packs:
            raise UnknownName("weights pack", pack, packs)
        domains = tuple(domains)
        fitting = self.fitting(kind, plugin, domains)
        ranked = sorted(
            fitting, key=lambda card: PREFERENCE.index(card.pack) if card.pack in PREFERENCE else len(PREFERENCE)
        )
        cards = ranked if pack == AUTO else [card for card in fitting if card.pack in (pack, ANY)]
        for card in cards:
            if self.present(card):
                return card
        if cards:
            raise MissingWeights(self.advice(cards[0]))
        others = ", ".join(f"{card.name} (pack {card.pack})" for card in self.fitting(kind, plugin)) or "none"
        where = f" in the pack {pack!r}" if pack != AUTO else ""
        domain = "" if ANY in domains else f" for {' or '.join(domains)}"
        raise MissingWeights(f"no weights{domain} for the {kind} {plugin!r}{where}; there are: {others}. See: fdn weights")

    def resolve(self, kind: str, plugin: str, pack: str = AUTO, domains: Iterable[str] = (ANY,)) -> LocalWeights:
        """The verified files that serve a plugin; see `choose` and `local`."""
        return self.local(self.choose(kind, plugin, pack, domains))

    def pack(self, needs: Iterable[tuple[str, str]], domains: Iterable[str] = (ANY,)) -> str:
        """The pack to use for these (kind, plugin) where the user named none.

        It is the first one, official before starter, of which every need has a fitting card on this machine; if none is
        complete, the first, starter before others, that has a card for every need at all; else 'starter'.
        """
        needs, domains = list(needs), tuple(domains)
        names = {card.pack for card in self.cards.values()} - {ANY}
        ordered = [*(name for name in PREFERENCE if name in names), *sorted(names - set(PREFERENCE))]

        def serves(pack: str, present: bool) -> bool:
            return all(
                any(
                    card.pack in (pack, ANY) and (not present or self.present(card)) for card in self.fitting(*need, domains)
                )
                for need in needs
            )

        complete = (name for name in ordered if serves(name, present=True))
        by_default = sorted(ordered, key=lambda name: name != PREFERENCE[-1])
        possible = (name for name in by_default if serves(name, present=False))
        return next(complete, next(possible, PREFERENCE[-1]))

    def packs(self, domains: Iterable[str] = (ANY,)) -> dict[str, Pack]:
        """The packs, and which of their cards for these domains are on this machine; cards of any pack are in each.

        Cards of one kind are alternatives: where one is here, another that knows nothing more is not missing.
        """
        wanted = frozenset(domains)
        cards = [c for c in self.cards.values() if ANY in wanted or ANY in c.domains or wanted & set(c.domains)]
        found = {}
        for name in sorted({card.pack for card in cards} - {ANY}):
            own = [card for card in cards if card.pack in (name, ANY)]
            present = tuple(card for card in own if self.present(card))
            absent = (card for card in own if card not in present)
            found[name] = Pack(name, present, tuple(card for card in absent if not _replaced(card, present, wanted)))
        return found

    def present(self, card: WeightsCard) -> bool:
        """Whether all files of the card are on this machine; their content is not looked at."""
        return self._paths(card) is not None

    def local(self, card: WeightsCard) -> LocalWeights:
        """The card with the paths of its files, each verified against its hash where the card or the import stated one.

        Raises:
            MissingWeights: files are missing or damaged.
        """
        paths = self._paths(card)
        if paths is None:
            raise MissingWeights(self.advice(card))
        expected = self._expected(card)
        for role, path in paths.items():
            if role in expected and self.fingerprint(path) != expected[role]:
                shipped = card.folder is not None and path == card.folder / card.files[role]
                how = "Install the distribution again." if shipped else self.advice(card)
                raise MissingWeights(f"{card.name}: {path} is damaged, its SHA-256 is not {expected[role]}. {how}")
        return LocalWeights(card, paths)

    def hashes(self, card: WeightsCard) -> dict[str, str]:
        """The SHA-256 of each file that `local` gives, by role; for manifests."""
        return {role: self.fingerprint(path) for role, path in self.local(card).paths.items()}

    def fingerprint(self, path: Path) -> str:
        """`digest`, remembered in the cache until a size or a time of modification changes."""
        stats = [(file.as_posix(), file.stat().st_size, file.stat().st_mtime_ns) for file in _files(path)]
        key = hashlib.sha256(json.dumps(stats).encode()).hexdigest()
        note = self.cache / "verdicts" / key
        with contextlib.suppress(OSError):
            return note.read_text()
        found = digest(path)
        with contextlib.suppress(OSError):  # a cache that cannot be written only costs time
            _write(note, found)
        return found

    def import_file(self, name: str, source: Path) -> LocalWeights:
        """Takes a local file or folder into the cache as the weights of a card, converted if the card says how.

        Raises:
            UnknownName: no such card.
            InputError: the source is missing, is not what the card expects, or the cache cannot be written.
        """
        card = self[name]
        if card.folder is not None:
            raise InputError(f"{name} ships with its distribution; there is nothing to import.")
        if not source.exists():
            raise InputError(f"no file or folder {source}; {name} is made of {', '.join(card.files.values())}.")
        if SOURCE in card.sha256 and digest(source) != card.sha256[SOURCE]:
            raise InputError(f"{source} is not the file that {name} expects: its SHA-256 is not {card.sha256[SOURCE]}.")
        try:
            self.cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.cache, prefix="import-") as folder:
                self._convert(card, source, Path(folder))
                entries = {role: self._keep(card, role, Path(folder) / file) for role, file in card.files.items()}
            record = {"card": name, "source": source.name, "licence": card.licence, "files": entries}
            _write(self._index(card), json.dumps(record, indent=1))
        except OSError as error:
            raise InputError(f"cannot import {source} into {self.cache}: {error.strerror or error}.") from error
        return self.local(card)

    def fetch(self, name: str) -> LocalWeights:
        """Downloads the file of a card whose source is a direct address, and imports it.

        Raises:
            UnknownName: no such card.
            MissingWeights: its source is not a direct address, or cannot be reached.
        """
        card = self[name]
        if self.present(card):
            return self.local(card)
        if not fetchable(card):
            raise MissingWeights(self.advice(card))
        import pooch

        known = f"sha256:{card.sha256[SOURCE]}" if SOURCE in card.sha256 else None
        file = Path(urlparse(card.source).path).name
        with tempfile.TemporaryDirectory(prefix="facednerf-") as folder:
            try:
                got = pooch.retrieve(card.source, known_hash=known, fname=file, path=folder)
            except (OSError, ValueError) as error:
                raise MissingWeights(f"{name} cannot be fetched: {error}. {self.advice(card)}") from error
            return self.import_file(name, Path(got))

    def advice(self, card: WeightsCard) -> str:
        """What is missing, where it is to be had, under which licence, and how it gets here."""
        if card.folder is not None:
            return f"the weights {card.name} should lie in {card.folder} and do not. Install their distribution again."
        where = f" Get it from {card.source}" if card.source else " Get it from its authors"
        how = f"fdn weights fetch {card.name}" if fetchable(card) else f"fdn weights import {card.name} FILE"
        what = f"the weights {card.name} ({card.summary}; licence: {card.licence}) are not on this machine."
        return f"{what}{where}, then: {how}"

    def _paths(self, card: WeightsCard) -> dict[str, Path] | None:
        if card.folder is not None:
            paths = {role: card.folder / file for role, file in card.files.items()}
        else:
            entries = self._record(card)
            if set(entries) != set(card.files):
                return None
            paths = {role: self._object(entry["sha256"], entry["file"]) for role, entry in entries.items()}
        return paths if all(path.exists() for path in paths.values()) else None

    def _expected(self, card: WeightsCard) -> dict[str, str]:
        if card.folder is not None:
            return dict(card.sha256)
        return {role: entry["sha256"] for role, entry in self._record(card).items()}

    def _record(self, card: WeightsCard) -> dict[str, dict[str, str]]:
        index = self._index(card)
        if not index.exists():
            return {}
        try:
            return dict(json.loads(index.read_text(encoding="utf-8"))["files"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{index} is damaged; delete it and import {card.name} again.") from error

    def _index(self, card: WeightsCard) -> Path:
        return self.cache / "imported" / f"{card.name.replace('/', '--')}.json"

    def _object(self, sha256: str, file: str) -> Path:
        return self.cache / "objects" / sha256[:2] / sha256 / file

    def _convert(self, card: WeightsCard, source: Path, folder: Path) -> None:
        if card.converter:
            module, _, function = card.converter.partition(":")
            convert: Converter = getattr(import_module(module), function)
            try:
                convert(source, folder)
            except (FacednerfError, OSError):
                raise
            except Exception as error:
                what = f"{type(error).__name__}: {error}"
                raise InputError(f"{source} is not what {card.name} expects ({card.summary}): {what}") from error
        elif len(card.files) == 1:
            _copy(source, folder / next(iter(card.files.values())))
        elif source.is_dir():
            for file in card.files.values():
                if not (source / file).exists():
                    raise InputError(f"{source} has no {file}; {card.name} is made of {', '.join(card.files.values())}.")
                _copy(source / file, folder / file)
        else:
            raise InputError(f"{card.name} is made of {', '.join(card.files.values())}: give the folder that holds them.")

    def _keep(self, card: WeightsCard, role: str, made: Path) -> dict[str, str]:
        if not made.exists():
            raise InputError(f"the converter {card.converter} of {card.name} did not write {made.name}.")
        found = digest(made)
        if card.sha256.get(role, found) != found:
            raise InputError(
                f"{made.name} is not the file that {card.name} expects: its SHA-256 is not {card.sha256[role]}."
            )
        kept = self._object(found, made.name)
        if kept.exists() and digest(kept) != found:  # damaged: the import mends it
            shutil.rmtree(kept.parent)
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            made.replace(kept)
        return {"sha256": found, "file": made.name}


def fetchable(card: WeightsCard) -> bool:
    """Whether the card's source is the address of a file, not of a page or a form."""
    address = urlparse(card.source)
    return address.scheme in {"http", "https"} and Path(address.path).suffix in FETCHABLE


def _replaced(card: WeightsCard, present: Iterable[WeightsCard], wanted: frozenset[str]) -> bool:
    """Whether others that are present do what the card would, in every domain that is wanted of it.

    Metrics judge side by side, so that none replaces another's.
    """
    needed = set(card.domains)
    if ANY not in wanted:
        needed = set(wanted) if ANY in needed else needed & wanted
    others = [
        other for other in present if other.kind == card.kind and (card.kind != "metric" or other.plugin == card.plugin)
    ]
    known = {domain for other in others for domain in other.domains}
    return ANY in known or needed <= known


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted((file for file in path.rglob("*") if file.is_file()), key=lambda file: file.relative_to(path).as_posix())


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
