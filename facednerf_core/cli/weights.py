"""fdn weights: which trained weights there are, under which licence, and how they come onto this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from facednerf_core.cards import ANY
from facednerf_core.cli.console import console, escaped, print_json, print_table
from facednerf_core.cli.groups import group
from facednerf_core.cli.plugins import AsJson, state

if TYPE_CHECKING:
    from facednerf_core.cards import WeightsCard
    from facednerf_core.weights import Pack, Registry

app = group("List the weights, import or fetch some, read their licence.")
Name = Annotated[str, typer.Argument(help="A name from fdn weights, such as eg3d/starter.")]


def _registry() -> Registry:
    from facednerf_core.plugins import installed
    from facednerf_core.weights import Registry

    return Registry(installed().weights)


@app.callback()
def listing(context: typer.Context, as_json: AsJson = False) -> None:
    """List the weights that plugins know of, and which of them are on this machine."""
    if context.invoked_subcommand is not None:
        return
    registry = _registry()
    cards = sorted(registry.cards.values(), key=lambda card: (card.pack, card.kind, card.name))
    packs = registry.packs()
    if as_json:
        plain = [{**_plain(card), "present": registry.present(card)} for card in cards]
        print_json({"weights": plain, "packs": {name: {"complete": pack.complete} for name, pack in packs.items()}})
        return
    if not cards:
        console().print("No plugin knows of weights. The starter pack comes with the distribution facednerf-starter.")
        return
    rows = [
        (
            card.name,
            card.pack,
            card.kind,
            ", ".join(card.domains),
            f"{card.size / 1e6:.1f} MB" if card.size else "",
            escaped(card.licence),
            state(registry.present(card)),
        )
        for card in cards
    ]
    print_table(("name", "pack", "kind", "domains", "size", "licence", "state"), rows)
    for pack in packs.values():
        console().print(f"pack {pack.name}: {_state_of(pack)}")


def _state_of(pack: Pack) -> str:
    """'complete', or what it is without: 'without generator for car, cat; identity'."""
    gaps = [kind if ANY in domains else f"{kind} for {', '.join(domains)}" for kind, domains in pack.gaps.items()]
    return "complete" if pack.complete else f"without {'; '.join(gaps)}"


@app.command("import")
def import_(
    name: Name,
    file: Annotated[Path, typer.Argument(help="The official file or folder, as its authors publish it.")],
    as_json: AsJson = False,
) -> None:
    """Take a file or folder that you have into the cache, converted once."""
    registry = _registry()
    _say_licence(registry[name])
    _say_paths(registry.import_file(name, file).paths, as_json)


@app.command()
def fetch(name: Name, as_json: AsJson = False) -> None:
    """Download weights that have a direct address, and import them."""
    registry = _registry()
    _say_licence(registry[name])
    _say_paths(registry.fetch(name).paths, as_json)


@app.command()
def path(
    name: Annotated[str | None, typer.Argument(help="A name from fdn weights; the cache folder if left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print where the cache is, or where the verified files of some weights are."""
    if name is not None:
        registry = _registry()
        _say_paths(registry.local(registry[name]).paths, as_json)
        return
    from facednerf_core.weights import cache_folder

    if as_json:
        print_json({"cache": cache_folder()})
    else:
        print(cache_folder())


@app.command()
def licence(name: Name, as_json: AsJson = False) -> None:
    """Print the licence of some weights, what it forbids, and where they come from."""
    card = _registry()[name]
    if as_json:
        print_json(_plain(card))
        return
    print(f"{card.name}: {card.summary}")
    print(f"licence: {card.licence}")
    if card.terms_of_use:
        print(card.terms_of_use)
    print(f"source: {card.source or ('shipped with its distribution' if card.folder else 'its authors')}")


@app.command()
def words(name: Name, as_json: AsJson = False) -> None:
    """Print the words that a text encoder knows, where it does not know all."""
    card = _registry()[name]
    if as_json:
        print_json(card.vocabulary)
    elif card.vocabulary:
        console().print(", ".join(card.vocabulary), markup=False)
    else:
        print(f"{card.name} has no list of words: it takes any word, or no text at all.")


def _plain(card: WeightsCard) -> dict[str, object]:
    return {
        "name": card.name,
        "plugin": card.plugin,
        "kind": card.kind,
        "pack": card.pack,
        "summary": card.summary,
        "domains": card.domains,
        "size": card.size,
        "sha256": dict(card.sha256),
        "licence": card.licence,
        "terms_of_use": card.terms_of_use,
        "source": card.source,
    }


def _say_licence(card: WeightsCard) -> None:
    typer.echo(f"{card.name}: licence {card.licence}. {card.terms_of_use}".rstrip(), err=True)


def _say_paths(paths: Mapping[str, Path], as_json: bool) -> None:
    if as_json:
        print_json(dict(paths))
        return
    for role, place in paths.items():
        print(f"{role}: {place}")
