"""Groups of commands: one that starts quickly, and fdn's own, to which plugins add."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from facednerf_core.cli.console import print_failure

MISUSE: Any = typer.BadParameter.__mro__[1]  # click's UsageError, of the click that typer brings


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


class Commands(Group):
    """The commands of fdn and those that plugins add: the latter are listed from metadata and loaded when called."""

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
        from facednerf_core.plugins import commands, load_command, unusable

        point = commands().get(cmd_name)
        if point is None:
            return None
        target = load_command(point)
        try:
            if not isinstance(target, typer.Typer):
                function, target = target, typer.Typer(rich_markup_mode=None, add_completion=False)
                target.command(cmd_name)(function)
            command = typer.main.get_command(target)
        except Exception as error:  # an application without commands, an argument that typer does not understand
            raise unusable(point, error) from error
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Writes the commands, then those of plugins, which are not loaded: a distribution's own words describe them."""
        super().format_commands(ctx, formatter)
        from facednerf_core.plugins import commands, refused_commands, summary

        rows = [(name, summary(point)) for name, point in commands().items()]
        rows += [(item.name, f"(not used) of {item.distribution}: {item.reason}") for item in refused_commands()]
        if rows:
            with formatter.section("Commands of plugins"):
                formatter.write_dl(rows)
