"""Groups of commands: one that starts quickly, and fdn's own, to which plugins add."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from facednerf_core.cli.console import print_failure

MISUSE: Any = typer.BadParameter.__mro__[1]  # click's UsageError, of the click that typer brings
OWN = {
    "edit": ("facednerf_core.cli.edit:edit", "Edit the head in PHOTO so that it follows SENTENCE, in 3D."),
    "invert": ("facednerf_core.cli.edit:invert", "Bring the generator to PHOTO, and show it from all sides."),
    "resume": ("facednerf_core.cli.edit:resume", "Go on with a stopped run, or export a finished one again."),
    "plugins": ("facednerf_core.cli.plugins:app", "List the plugins, show one, or examine a broken one."),
    "weights": ("facednerf_core.cli.weights:app", "List the weights, import or fetch some, read their licence."),
}
"""The commands of fdn: where each lies, and what `fdn --help` says of it. A new command is a file and a line here."""


@contextmanager
def _told() -> Iterator[None]:
    """Says a misuse of the command line to scripts; typer says it to people."""
    try:
        yield
    except MISUSE as error:
        print_failure(error.format_message())
        raise


class Group(TyperGroup):
    """A group whose --help flag has a default: typer validates an absent flag by importing pydantic, a tenth of a second."""

    def get_help_option(self, ctx: Any) -> Any:
        option = super().get_help_option(ctx)
        if option is not None:
            option.default = False
        return option


def group(said: str) -> typer.Typer:
    """A group of fdn's commands, which does something of its own when it is called alone."""
    return typer.Typer(cls=Group, invoke_without_command=True, help=said, rich_markup_mode=None, add_completion=False)


class Own(Mapping[str, Any]):
    """The commands of fdn by name, each imported and built when it is asked for: `fdn --help` needs none of them."""

    def __getitem__(self, name: str) -> Any:
        module, _, attribute = OWN[name][0].partition(":")
        return built(getattr(import_module(module), attribute), name)

    def __iter__(self) -> Iterator[str]:
        return iter(OWN)

    def __len__(self) -> int:
        return len(OWN)


def built(target: Any, name: str) -> Any:
    """The command of this name that a Typer application or a function describes."""
    if not isinstance(target, typer.Typer):
        function, target = target, typer.Typer(rich_markup_mode=None, add_completion=False)
        target.command(name)(function)
    command = typer.main.get_command(target)
    command.name = name
    return command


class Commands(Group):
    """The commands of fdn and those that plugins add: the latter are listed from metadata and loaded when called."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.commands: Any = Own()

    def make_context(self, *words: Any, **more: Any) -> Any:
        with _told():
            return super().make_context(*words, **more)

    def invoke(self, ctx: Any) -> Any:
        with _told():
            return super().invoke(ctx)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of this name; None if neither fdn nor a plugin has it. Fdn's own come first."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        from facednerf_core.entrypoints import commands
        from facednerf_core.plugins import load_command, unusable

        point = commands().get(cmd_name)
        if point is None:
            return None
        target = load_command(point)
        try:
            return built(target, cmd_name)
        except Exception as error:  # an application without commands, an argument that typer does not understand
            raise unusable(point, error) from error

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Writes the commands, then those of plugins; none is loaded: a distribution's own words describe a plugin's."""
        from facednerf_core.entrypoints import claimed, summary

        with formatter.section("Commands"):
            formatter.write_dl([(name, said) for name, (_, said) in OWN.items()])
        found, refused = claimed()
        rows = [(name, summary(point)) for name, point in found.items()]
        rows += [(item.name, f"(not used) of {item.distribution}: {item.reason}") for item in refused]
        if rows:
            with formatter.section("Commands of plugins"):
                formatter.write_dl(rows)
