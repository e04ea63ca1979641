"""Which plugins and commands distributions bring, read from their metadata alone: nothing of theirs is imported."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import metadata

PLUGINS = "facednerf"  # the group of entry points that are plugins
COMMANDS = "facednerf.commands"  # the group of commands that plugins add to fdn
OWN_COMMANDS = ("edit", "invert", "resume", "plugins", "weights")  # fdn's own, which no plugin can replace
ALLOWED = "FACEDNERF_PLUGINS"  # comma-separated names of the only plugins to be loaded; empty: none


@dataclass(frozen=True)
class Origin:
    """Where a card comes from: the plugin's entry point, its distribution and that distribution's version."""

    plugin: str
    distribution: str = ""
    version: str = ""


@dataclass(frozen=True)
class Broken:
    """A plugin, or one of its cards or commands, that cannot be used."""

    name: str  # of the plugin
    reason: str  # one line
    trace: str = ""  # the traceback, if something was raised
    distribution: str = ""


def allowed() -> frozenset[str] | None:
    """The names that FACEDNERF_PLUGINS allows; None where it is not set and all are."""
    value = os.environ.get(ALLOWED)
    return None if value is None else frozenset(part.strip() for part in value.split(",") if part.strip())


def entry_points(group: str) -> list[metadata.EntryPoint]:
    """The entry points of a group that are installed, whether allowed or not, by name."""
    return sorted(metadata.entry_points(group=group), key=lambda point: (point.name, point.value))


def commands() -> dict[str, metadata.EntryPoint]:
    """The commands that allowed plugins add to fdn, by name."""
    return claimed()[0]


def claimed() -> tuple[dict[str, metadata.EntryPoint], list[Broken]]:
    """The commands that allowed plugins add to fdn, by name, and those whose names are taken, by fdn or by another
    distribution, which are not used.

    A command is allowed with any plugin of its distribution, or by its own name.
    """
    allow = allowed()
    origins = [(point, origin(point)) for point in metadata.entry_points(group=COMMANDS)]
    if allow is not None:
        homes = {origin(point).distribution for point in entry_points(PLUGINS) if point.name in allow}
        origins = [(point, whence) for point, whence in origins if point.name in allow or whence.distribution in homes]
    found: dict[str, metadata.EntryPoint] = {}
    refused: list[Broken] = []
    for point, whence in sorted(origins, key=lambda pair: (pair[0].name, pair[1].distribution)):
        holder = "fdn" if point.name in OWN_COMMANDS else home(found[point.name]) if point.name in found else ""
        if holder:
            reason = f"its command {point.name!r} is not used: {holder} has a command of that name"
            refused.append(Broken(point.name, reason, distribution=whence.distribution))
        else:
            found[point.name] = point
    return found, refused


def origin(point: metadata.EntryPoint) -> Origin:
    """Where an entry point comes from."""
    if point.dist is None:
        return Origin(point.name)
    about = point.dist.metadata  # read anew whenever it is asked for
    return Origin(point.name, about["Name"], about["Version"])


def home(point: metadata.EntryPoint) -> str:
    """Whose an entry point is: its distribution, or what it leads to where that is not known."""
    return origin(point).distribution or point.value


def summary(point: metadata.EntryPoint) -> str:
    """One line about an entry point, from the metadata of its distribution."""
    if point.dist is None:
        return f"from {point.value}"
    about = point.dist.metadata
    said = about["Summary"] or ""
    return f"{said} ({about['Name']})" if said else f"from {about['Name']}"
