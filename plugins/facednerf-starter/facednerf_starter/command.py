"""fdn starter: the synthetic world on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from facednerf_core.cli.console import console, escaped, print_json, print_table
from facednerf_core.cli.groups import Group

app = typer.Typer(cls=Group, no_args_is_help=True, rich_markup_mode=None, add_completion=False)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
VIEWS_AROUND = 8


@app.callback()
def starter() -> None:
    """The synthetic world of heads that the starter was trained on."""


@app.command()
def render(
    out: Annotated[Path, typer.Option(help="The PNG; its facts go beside it, as .json.")] = Path("sheet.png"),
    heads: Annotated[int, typer.Option(help="How many heads.")] = 12,
    first: Annotated[int, typer.Option(help="The number of the first head.")] = 0,
    seed: Annotated[int, typer.Option(help="Another seed is other people.")] = 0,
    size: Annotated[int, typer.Option(help="Pixels across each picture.")] = 256,
    views: Annotated[int | None, typer.Option(help="Views of each head, from left to right.")] = None,
    around: Annotated[bool, typer.Option("--round", help="Views from all round; 8 unless --views says.")] = False,
    changes: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="NAME=VALUE", help="An attribute of every head: see fdn starter attributes."),
    ] = None,
    light: Annotated[str, typer.Option(help="own, soft, left, right, above or below.")] = "own",
    captions: Annotated[bool, typer.Option("--captions", help="A sentence below each head.")] = False,
    maps: Annotated[bool, typer.Option("--maps", help="Normals, albedo, depth and mask too.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
    as_json: AsJson = False,
) -> None:
    """Draw a sheet of heads of the synthetic world, with the truth about them in a file beside."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from facednerf_starter.world.changes import read
    from facednerf_starter.world.sheet import Order, render_sheet

    count = views if views is not None else VIEWS_AROUND if around else 1
    order = Order(heads, first, seed, size, count, around, read(changes or ()), light, captions, maps)
    err = Console(stderr=True)
    columns = (TextColumn("heads"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=as_json or not err.is_terminal) as bar:
        task = bar.add_task("heads", total=heads)
        sheet = render_sheet(out, order, device=device, force=force, progress=lambda done: bar.update(task, completed=done))
    each = sum(sheet.seconds) / len(sheet.seconds)
    if as_json:
        print_json({"picture": str(sheet.picture), "facts": str(sheet.facts), "seconds_per_head": each})
        return
    print(f"{sheet.picture}: {heads} {'head' if heads == 1 else 'heads'}, {each:.1f} s each")
    print(f"{sheet.facts}: attributes, captions and cameras")


@app.command()
def attributes(as_json: AsJson = False) -> None:
    """List what heads of the world have, and which values --with takes."""
    from facednerf_starter.world.attributes import LABELS, SHAPE, UNIT
    from facednerf_starter.world.changes import REACH, offered

    if as_json:
        print_json({name: list(values) for name, values in offered().items()})
        return
    print_table(("name", "values"), [(name, escaped(", ".join(words))) for name, words in LABELS.items()])
    console().print(f"numbers from 0 to 1: {', '.join(UNIT)}\n")
    console().print(f"numbers from -{REACH} to {REACH}, about standard normal: {', '.join(SHAPE)}")
