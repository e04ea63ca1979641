"""fdn plugins: what is installed, what each plugin takes, and what is wrong with a broken one."""

from __future__ import annotations

from dataclasses import MISSING, Field, asdict, fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from facednerf_core.cli.console import console, escaped, print_json, print_table
from facednerf_core.cli.groups import group

if TYPE_CHECKING:
    from facednerf_core.cards import Card
    from facednerf_core.plugins import Shelves

app = group("List the plugins, show one, or examine a broken one.")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


@app.callback()
def listing(context: typer.Context, as_json: AsJson = False) -> None:
    """List the installed plugins and the broken ones."""
    if context.invoked_subcommand is not None:
        return
    from facednerf_core.entrypoints import commands
    from facednerf_core.plugins import installed

    shelves = installed()
    if as_json:
        cards = [_plain(shelves, kind, card) for kind, card in _cards(shelves)]
        broken = [asdict(item) for item in shelves.broken]
        print_json({"plugins": cards, "broken": broken, "commands": list(commands())})
        return
    rows = []
    for kind, card in _cards(shelves):
        origin = shelves.origins[kind, card.name]
        source = f"{origin.distribution} {origin.version}".strip()
        rows.append((kind, card.name, ", ".join(card.domains), escaped(card.summary), source))
    if rows:
        print_table(("kind", "name", "domains", "what it does", "from"), rows)
    elif not shelves.broken:
        console().print("No plugins. Install one, such as facednerf-eg3d, or unset FACEDNERF_PLUGINS.")
    for item in shelves.broken:
        console().print(f"[bold red]broken: {escaped(item.name)}[/] [red]{escaped(item.reason)}[/]")
    if shelves.broken:
        console().print(f"See: fdn plugins doctor {escaped(shelves.broken[0].name)}")


@app.command()
def show(name: Annotated[str, typer.Argument(help="A name from fdn plugins.")], as_json: AsJson = False) -> None:
    """Show a plugin: its cards, options with their defaults, and weights with their licences."""
    from facednerf_core.errors import UnknownName
    from facednerf_core.plugins import installed

    shelves = installed()
    found = [(kind, card) for kind, card in _cards(shelves) if name in (card.name, shelves.origins[kind, card.name].plugin)]
    broken = [item for item in shelves.broken if item.name == name]
    if not found and not broken:
        names = {card.name for _, card in _cards(shelves)} | {item.name for item in shelves.broken}
        raise UnknownName("plugin", name, names, "See: fdn plugins")
    if as_json:
        print_json({"plugins": [_plain(shelves, *pair) for pair in found], "broken": [asdict(item) for item in broken]})
        return
    for kind, card in found:
        _show_card(shelves, kind, card)
    for item in broken:
        console().print(f"[bold red]broken:[/] [red]{escaped(item.reason)}[/]\n{escaped(item.trace)}")


@app.command()
def doctor(
    name: Annotated[str, typer.Argument(help="The name of a plugin, as fdn plugins shows a broken one.")],
    limit: Annotated[float, typer.Option(help="Seconds after which it is stopped.")] = 20.0,
    as_json: AsJson = False,
) -> None:
    """Load one plugin alone, in a process of its own, and say what happened. Exit code 1 if it is broken."""
    from facednerf_core.plugins import doctor as examine

    diagnosis = examine(name, limit)
    if as_json:
        print_json(asdict(diagnosis))
    else:
        out = console()
        if diagnosis.healthy:
            out.print(f"[green]{escaped(name)} is well[/]: loaded in {diagnosis.seconds:.2f} s.")
        else:
            out.print(f"[bold red]{escaped(name)} is broken[/]: {escaped(diagnosis.reason)}")
        for card in diagnosis.cards:
            out.print(f"  registers {escaped(card)}")
        if diagnosis.imports_torch:
            out.print(
                "[yellow]It imports torch when it is listed, which makes every command slow: import it inside build.[/]"
            )
        if diagnosis.trace:
            out.print(escaped(diagnosis.trace))
    if not diagnosis.healthy:
        raise typer.Exit(1)


def _cards(shelves: Shelves) -> list[tuple[Any, Card[Any]]]:
    return [(shelf.kind, shelf[name]) for shelf in shelves.shelves() for name in shelf]


def _show_card(shelves: Shelves, kind: str, card: Card[Any]) -> None:
    origin = shelves.origins[kind, card.name]
    out = console()
    out.print(f"[bold]{escaped(card.name)}[/], {kind}: {escaped(card.summary)}")
    source = f"{origin.distribution} {origin.version}".strip() or "this process"
    out.print(f"plugin {origin.plugin} from {source}; domains {', '.join(card.domains)}")
    if kind in {"guidance", "identity", "relighter"}:
        out.print(f"judges views up to {card.sees:g} rad of yaw; factor on the weight of its term {card.weight:g}")
    options = fields(card.options)
    if options:
        rows = [(item.name, _type(item), escaped(_default(item))) for item in options]
        print_table(("name", "type", "default"), rows, title="options")
    else:
        out.print("options: none")
    weights = [item for item in shelves.weights.values() if (item.kind, item.plugin) == (kind, card.name)]
    if weights:
        from facednerf_core.weights import Registry

        registry = Registry(shelves.weights)
        places = [
            (item.name, item.pack, ", ".join(item.domains), escaped(item.licence), state(registry.present(item)))
            for item in weights
        ]
        print_table(("name", "pack", "domains", "licence", "state"), places, title="weights")
        for item in weights:
            if item.vocabulary:
                out.print(f"{item.name} knows {len(item.vocabulary)} words and no others: fdn weights words {item.name}")
    elif card.needs_weights:
        out.print("[yellow]weights: it needs some, and no weights card is for it[/]")
    out.print()


def state(present: bool) -> str:
    """Whether weights are on this machine, with colour."""
    return "[green]present[/]" if present else "[yellow]missing[/]"


def _plain(shelves: Shelves, kind: str, card: Card[Any]) -> dict[str, Any]:
    weights = [item for item in shelves.weights.values() if (item.kind, item.plugin) == (kind, card.name)]
    options = {item.name: {"type": _type(item), "default": _default(item)} for item in fields(card.options)}
    return {
        "kind": kind,
        "name": card.name,
        "summary": card.summary,
        "domains": card.domains,
        "sees": card.sees,
        "weight": card.weight,
        "options": options,
        "weights": [item.name for item in weights],
        "words": {item.name: len(item.vocabulary) for item in weights if item.vocabulary},
        **asdict(shelves.origins[kind, card.name]),
    }


def _type(item: Field[Any]) -> str:
    return item.type if isinstance(item.type, str) else getattr(item.type, "__name__", str(item.type))


def _default(item: Field[Any]) -> str:
    if item.default is not MISSING:
        return repr(item.default)
    return repr(item.default_factory()) if item.default_factory is not MISSING else "required"
