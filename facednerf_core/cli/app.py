"""The commands of fdn, put together. A new command is a file beside this one and a line below."""

from __future__ import annotations

from typing import Annotated

import typer

from facednerf_core.cli import edit, plugins, weights
from facednerf_core.cli.groups import Commands

app = typer.Typer(
    cls=Commands, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False
)


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
