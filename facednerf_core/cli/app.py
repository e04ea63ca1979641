"""fdn's group of commands. What its commands do lies in the files beside this one; `groups.OWN` lists them."""

from __future__ import annotations

from typing import Annotated

import typer

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
