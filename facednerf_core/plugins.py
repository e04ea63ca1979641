"""Which plugins are installed, what they put on the shelves, and which of them are broken and why.

Entry points of the group `facednerf` are loaded one by one and their hooks are called plugin by plugin: a plugin that
raises, misses a library, misspells a hook or speaks another API version is written into the ledger and everything else
works. Only metadata and cards are touched here, so nothing imports torch.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from difflib import get_close_matches
from importlib import metadata
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import pluggy

from facednerf_core import hookspecs
from facednerf_core.cards import API_VERSION, Card, WeightsCard
from facednerf_core.entrypoints import (
    ALLOWED,
    COMMANDS,
    PLUGINS,
    Broken,
    Origin,
    allowed,
    claimed,
    entry_points,
    home,
    origin,
)
from facednerf_core.errors import InputError, UnknownName, Unsupported

if TYPE_CHECKING:
    from facednerf_core.interfaces import Detector, Generator, Guidance, Identity, Inverter, Metric, Relighter

Kind = Literal["generator", "guidance", "identity", "relighter", "inverter", "detector", "metric", "observer"]
HOOKS: Mapping[str, Kind] = {
    "register_generators": "generator",
    "register_guidances": "guidance",
    "register_identities": "identity",
    "register_relighters": "relighter",
    "register_inverters": "inverter",
    "register_detectors": "detector",
    "register_metrics": "metric",
    "register_observers": "observer",
}
Product = TypeVar("Product")


class BrokenPlugin(Exception):
    """What is wrong with a plugin that raised nothing itself."""


@dataclass(frozen=True)
class Shelf(Generic[Product]):
    """The cards of one kind, by name."""

    kind: Kind
    broken: Sequence[Broken] = ()
    cards: dict[str, Card[Product]] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Card[Product]:
        """The card of this name.

        Raises:
            UnknownName: no installed plugin carries it; the message names the nearest one.
        """
        if name not in self.cards:
            hint = next((f"The plugin {name!r} is broken: {item.reason}." for item in self.broken if item.name == name), "")
            raise UnknownName("backbone" if self.kind == "generator" else self.kind, name, self.cards, hint)
        return self.cards[name]

    def __contains__(self, name: object) -> bool:
        return name in self.cards

    def __iter__(self) -> Iterator[str]:
        return iter(self.cards)

    def __len__(self) -> int:
        return len(self.cards)


class Shelves:
    """What the plugins have registered: a shelf for each kind, the weights cards, and the ledger of broken plugins.

    `Shelves(sds=facednerf_sds.plugin, mine=my_module)` takes modules or objects with hooks in this process, for tests
    and notebooks; `installed()` finds what is installed.
    """

    def __init__(self, **plugins: object) -> None:
        self.broken: list[Broken] = []
        self.weights: dict[str, WeightsCard] = {}
        self.origins: dict[tuple[str, str], Origin] = {}  # (kind or "weights", card name) -> whence
        self.plugins: list[Origin] = []  # those that work, in the order of loading
        self.generators: Shelf[Generator] = Shelf("generator", self.broken)
        self.guidances: Shelf[Guidance] = Shelf("guidance", self.broken)
        self.identities: Shelf[Identity] = Shelf("identity", self.broken)
        self.relighters: Shelf[Relighter] = Shelf("relighter", self.broken)
        self.inverters: Shelf[Inverter] = Shelf("inverter", self.broken)
        self.detectors: Shelf[Detector] = Shelf("detector", self.broken)
        self.metrics: Shelf[Metric] = Shelf("metric", self.broken)
        self.observers: Shelf[Any] = Shelf("observer", self.broken)
        for name, plugin in plugins.items():
            self.add(Origin(name), lambda plugin=plugin: plugin)  # type: ignore[misc]

    def shelf(self, kind: Kind) -> Shelf[Any]:
        """The shelf of a kind."""
        return next(shelf for shelf in self.shelves() if shelf.kind == kind)

    def shelves(self) -> tuple[Shelf[Any], ...]:
        """All shelves, in the order of the hooks."""
        return (
            self.generators,
            self.guidances,
            self.identities,
            self.relighters,
            self.inverters,
            self.detectors,
            self.metrics,
            self.observers,
        )

    def add(self, origin: Origin, load: Callable[[], object]) -> None:
        """Loads one plugin and puts its cards on the shelves; whatever goes wrong goes into the ledger instead."""
        try:
            with contextlib.redirect_stdout(sys.stderr):  # a plugin that prints must not spoil --json
                cards = registered(load(), origin.plugin)
        except (Exception, SystemExit) as error:
            trace = "" if isinstance(error, BrokenPlugin) else "".join(traceback.format_exception(error))
            self.broken.append(Broken(origin.plugin, _reason(error), trace, origin.distribution))
            return
        self.plugins.append(origin)
        for kind, card in cards:
            self._shelve(kind, card, origin)

    def _shelve(self, kind: Kind | Literal["weights"], card: Any, origin: Origin) -> None:
        names: dict[str, Any] = self.weights if kind == "weights" else self.shelf(kind).cards
        if card.name in names:
            first = self.origins[kind, card.name].plugin
            what = "weights card" if kind == "weights" else kind
            reason = f"its {what} {card.name!r} is not used: the plugin {first!r} has registered that name before"
            self.broken.append(Broken(origin.plugin, reason, distribution=origin.distribution))
            return
        names[card.name] = card
        self.origins[kind, card.name] = origin


def registered(plugin: object, name: str) -> list[tuple[Any, Any]]:
    """What a plugin's hooks register, as pairs of kind (or "weights") and card.

    Raises:
        BrokenPlugin: no hook or an unknown one, something that is not a card, or another API version.
        Exception: whatever the plugin's own hooks raise.
    """
    manager = pluggy.PluginManager(PLUGINS)  # one for each plugin: none can harm another
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(plugin, name)
    except pluggy.PluginValidationError as error:
        raise BrokenPlugin(f"a hook takes other arguments than facednerf gives it: {str(error).splitlines()[-1]}") from error
    hooks = [caller.name for caller in manager.get_hookcallers(plugin) or ()]
    if not hooks:
        raise BrokenPlugin("it has no hooks; mark them with facednerf_core.hookspecs.hookimpl")
    known = [*HOOKS, "register_weights"]
    for hook in hooks:
        if hook not in known:
            close = get_close_matches(hook, known, n=1)
            meant = f"; did you mean {close[0]!r}?" if close else f"; there are: {', '.join(known)}"
            raise BrokenPlugin(f"it has an unknown hook {hook!r}{meant}")
    found: list[tuple[Any, Any]] = []
    for hook in hooks:
        kind = HOOKS.get(hook, "weights")
        getattr(manager.hook, hook)(register=lambda card, kind=kind: found.append((kind, _checked(kind, card))))
    return found


def _checked(kind: str, card: Any) -> Any:
    wanted = WeightsCard if kind == "weights" else Card
    if not isinstance(card, wanted):
        raise BrokenPlugin(f"it registers {card!r} among the {kind} cards, which is not a {wanted.__name__}")
    if not card.name or card.name != card.name.strip() or " " in card.name:
        raise BrokenPlugin(f"the name {card.name!r} of a {kind} card is empty or has spaces")
    if isinstance(card, Card):
        if card.api != API_VERSION:
            raise BrokenPlugin(f"{card.name} speaks API version {card.api}, this core speaks {API_VERSION}")
        if not (isinstance(card.options, type) and is_dataclass(card.options)):
            raise BrokenPlugin(f"the options of {card.name} are not a dataclass")
    return card


def _reason(error: BaseException) -> str:
    if isinstance(error, BrokenPlugin):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"it misses the module {error.name!r}"
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0]}" if said else type(error).__name__


def load_command(point: metadata.EntryPoint) -> Any:
    """What a command's entry point names: a Typer application or a function.

    Raises:
        Unsupported: it cannot be loaded, or is neither.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr):  # as in `Shelves.add`
            target = point.load()
        if not callable(target):
            raise BrokenPlugin(f"{point.value} is a {type(target).__name__}, not a Typer application or a function")
    except (Exception, SystemExit) as error:
        raise unusable(point, error) from error
    return target


def unusable(point: metadata.EntryPoint, error: BaseException) -> Unsupported:
    """The message to a user who calls a command that does not load."""
    return Unsupported(f"the command {point.name!r} of {home(point)} cannot be loaded: {_reason(error)}.")


def installed() -> Shelves:
    """The cards of all installed and allowed plugins."""
    allow = allowed()
    shelves = Shelves()
    points = entry_points(PLUGINS)
    for point in points:
        if allow is None or point.name in allow:
            shelves.add(origin(point), point.load)
    brought, refused = claimed()
    shelves.broken += refused
    gone = (allow or frozenset()) - {point.name for point in points} - set(brought) - {item.name for item in refused}
    for name in sorted(gone):
        shelves.broken.append(Broken(name, f"{ALLOWED} names it, but it is not installed"))
    return shelves


@dataclass(frozen=True)
class Diagnosis:
    """What a plugin, with the commands of its distribution, did when it was loaded alone, in a process of its own."""

    name: str
    healthy: bool
    reason: str  # what is wrong; empty if healthy
    trace: str = ""
    seconds: float = 0.0  # to import it and to call its hooks
    cards: Sequence[str] = ()  # "kind name", or "command name"
    imports_torch: bool = False  # when listed: it makes every command slow


def doctor(name: str, limit: float = 20.0) -> Diagnosis:
    """Loads one plugin and its commands in a subprocess, so that a crash, a hang or an exit harms nobody.

    Args:
        name: of the plugin's entry point, allowed or not, or of a command of a plugin.
        limit: seconds after which it is stopped.

    Raises:
        UnknownName: no such plugin is installed.
    """
    import json
    import subprocess

    names = {point.name for point in (*entry_points(PLUGINS), *entry_points(COMMANDS))}
    if name not in names:
        raise UnknownName("plugin", name, names)
    if limit <= 0:
        raise InputError(f"the time limit must be above 0 seconds, not {limit:g}.")
    command = [sys.executable, "-c", f"from facednerf_core.plugins import probe; probe({name!r})"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return Diagnosis(name, False, f"it was not loaded within {limit:g} seconds", seconds=limit)
    report = done.stdout.strip().splitlines()[-1:]
    if done.returncode or not report:
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        return Diagnosis(name, False, f"it ended the process with {how}", done.stderr)
    return Diagnosis(**json.loads(report[0]))


def probe(name: str) -> None:
    """Loads one installed plugin here and then its commands, and prints its diagnosis as one line of JSON, for `doctor`."""
    import json
    import time

    os.environ.pop(ALLOWED, None)
    shelves = Shelves()
    begin = time.perf_counter()
    for point in entry_points(PLUGINS):
        if point.name == name:
            shelves.add(origin(point), point.load)
    seconds = time.perf_counter() - begin
    imports_torch = "torch" in sys.modules
    homes = {origin.distribution for origin in shelves.plugins} - {""}
    found, refused = claimed()
    shelves.broken += [item for item in refused if item.name == name or item.distribution in homes]
    loaded = []
    for point in found.values():
        if point.name == name or origin(point).distribution in homes:
            try:
                load_command(point)
                loaded.append(f"command {point.name}")
            except Unsupported as error:
                trace = "".join(traceback.format_exception(error.__cause__)) if error.__cause__ else ""
                shelves.broken.append(Broken(name, str(error).rstrip("."), trace))
    first = shelves.broken[0] if shelves.broken else Broken(name, "")
    print(
        json.dumps(
            {
                "name": name,
                "healthy": not shelves.broken,
                "reason": first.reason,
                "trace": first.trace,
                "seconds": seconds,
                "cards": [f"{kind} {card}" for kind, card in shelves.origins] + loaded,
                "imports_torch": imports_torch,
            }
        )
    )
