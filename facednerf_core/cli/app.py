"""The commands of fdn, put together. A new command is a file beside this one and a line below."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from facednerf_core.cli import edit, plugins, weights


class Commands(TyperGroup):
    """The commands of fdn and those that plugins add: the latter are listed from metadata and loaded when called."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of this name; None if neither fdn nor a plugin has it. Fdn's own come first."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        from facednerf_core.plugins import commands, load_command

        point = commands().get(cmd_name)
        if point is None:
            return None
        target = load_command(point)
        if not isinstance(target, typer.Typer):
            function, target = target, typer.Typer(rich_markup_mode=None, add_completion=False)
            target.command(cmd_name)(function)
        command = typer.main.get_command(target)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Writes the commands, then those of plugins, which are not loaded."""
        super().format_commands(ctx, formatter)
        from facednerf_core.plugins import commands

        found = {name: point for name, point in commands().items() if name not in self.commands}
        if found:
            with formatter.section("Commands of plugins"):
                formatter.write_dl([(name, f"from {p.dist.name if p.dist else p.value}") for name, p in found.items()])


app = typer.Typer(cls=Commands, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)


def _version(wanted: bool) -> None:
    if wanted:
        from facednerf_core import __version__

        typer.echo(f"facednerf {__version__}")
        raise typer.Exit


@app.callback()
def fdn(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Edit, invert and turn 3D heads from one photo and a sentence."""


app.command("edit")(edit.edit)
app.command("invert")(edit.invert)
app.command("resume")(edit.resume)
app.add_typer(plugins.app, name="plugins")
app.add_typer(weights.app, name="weights")
