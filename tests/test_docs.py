"""The documents are held to the code: what exists is described, what is described exists."""

from __future__ import annotations

import ast
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import get_args

import pytest
import typer

from facednerf_core import compose, errors, events, hookspecs
from facednerf_core.cards import Card, WeightsCard
from facednerf_core.entrypoints import commands as plugin_commands
from facednerf_core.plugins import installed, load_command
from facednerf_core.recipe import Recipe, Weights

ROOT = Path(__file__).parent.parent
SKIPPED = {".venv", "node_modules", "build", "dist", "runs"}
PAGES = sorted(
    page
    for page in ROOT.rglob("*.md")
    if not any(part in SKIPPED or part.startswith(".") for part in page.relative_to(ROOT).parts)
    and "golden" not in page.parts
)
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(language: str) -> Iterator[tuple[str, str]]:
    for path, name in zip(PAGES, NAMES, strict=True):
        for number, (kind, text) in enumerate(FENCE.findall(path.read_text(encoding="utf-8"))):
            if kind == language:
                yield f"{name}:{number}", text


def spoken(text: str) -> set[str]:
    """What stands in backticks, each piece by itself."""
    prose = FENCE.sub("", text)
    return {piece for quoted in re.findall(r"`([^`\n]+)`", prose) for piece in re.split(r"[\s,=]+", quoted)}


PYTHON, SHELL, TOML = (dict(blocks(language)) for language in ("python", "sh", "toml"))
DOCS = "\n".join(page(name) for name in NAMES)


def command(*names: str):
    """A command of fdn or of a plugin of ours, by its words."""
    from facednerf_core.cli.app import app

    found = typer.main.get_command(app)
    theirs = {name: typer.main.get_command(load_command(point)) for name, point in plugin_commands().items()}
    found.commands = {**found.commands, **theirs}
    for name in names:
        found = found.commands[name]
    return found


def commands() -> dict[tuple[str, ...], object]:
    """Every command of fdn and of our plugins, groups included, by its words."""
    found: dict[tuple[str, ...], object] = {}

    def walk(words: tuple[str, ...]) -> None:
        found[words] = command(*words)
        for name in getattr(found[words], "commands", {}):
            walk((*words, name))

    walk(())
    return found


def options(found) -> set[str]:
    return {flag for item in found.params for flag in item.opts if flag.startswith("--")} | {"--help"}


def test_every_hook_is_documented_with_its_arguments():
    written = set(re.findall(r"`(register_\w+\([^`]*\))`", page("docs/writing-a-plugin.md")))
    hooks = {name: value for name, value in vars(hookspecs).items() if name.startswith("register_")}
    assert written == {f"{name}({', '.join(signature(hook).parameters)})" for name, hook in hooks.items()}


@pytest.mark.parametrize("card", [Card, WeightsCard])
def test_every_field_of_a_card_is_documented(card):
    assert {item.name for item in fields(card)} <= spoken(page("docs/writing-a-plugin.md"))


def test_every_error_is_documented():
    names = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert names <= {piece.rpartition(".")[2] for piece in spoken(page("docs/writing-a-plugin.md"))}


def test_every_installed_card_is_documented():
    shelves = installed()
    assert not shelves.broken
    names = {card for kind, card in shelves.origins if shelves.origins[kind, card].distribution.startswith("facednerf-")}
    assert names
    assert names <= spoken(DOCS)


def test_every_event_is_documented():
    assert {event.__name__ for event in get_args(events.Event)} <= spoken(page("docs/architecture.md"))


def test_every_field_of_the_recipe_is_documented():
    table = page("docs/tutorial.md").split("The fields, with the names")[1]
    assert {item.name for item in fields(Recipe)} | {item.name for item in fields(Weights)} <= spoken(table)


@pytest.mark.parametrize("words", [words for words in commands() if words], ids=" ".join)
def test_every_command_and_its_options_are_documented(words):
    assert re.search(rf"fdn {' '.join(words)}\b", DOCS)
    listed = set(re.findall(r"--[a-z][a-z-]*", page("docs/starter.md" if words[0] == "starter" else "docs/tutorial.md")))
    listed |= {"--help", "--json"}
    assert options(command(*words)) <= listed


def test_options_of_fdn_itself_are_documented():
    assert options(command()) <= set(re.findall(r"--[a-z][a-z-]*", page("docs/tutorial.md")))


def lines() -> list[tuple[str, list[str]]]:
    """The fdn commands of all shell blocks, as words."""
    return [
        (where, shlex.split(re.sub(r"^.*?\bfdn ", "", line), comments=True))
        for where, text in SHELL.items()
        for line in text.splitlines()
        if re.search(r"(^|&& \S*/)fdn ", line)
    ]


def test_commands_in_shell_blocks_exist_with_their_options():
    assert len(lines()) > 10
    for where, words in lines():
        found, rest = command(), list(words)
        while rest and rest[0] in getattr(found, "commands", {}):
            found = found.commands[rest.pop(0)]
        assert not rest or found is not command(), f"{where}: fdn has no command {words[0]!r}"
        assert {word for word in rest if word.startswith("--")} <= options(found), f"{where}: {' '.join(words)}"


def test_commands_in_shell_blocks_of_the_starter_exist(capsys):
    from facednerf_starter.train.__main__ import COMMANDS, main

    used = re.findall(r"python -m facednerf_starter\.train (\w+) (.*)", page("docs/starter.md"))
    assert {name for name, _ in used} == set(COMMANDS)
    for name, rest in used:
        with pytest.raises(SystemExit):
            main([name, "--help"])
        helped = capsys.readouterr().out
        assert all(flag in helped for flag in re.findall(r"--[a-z]+", rest)), (name, rest)


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name):
    text = FENCE.sub("", page(name))
    here = (ROOT / name).parent
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        found = here / path if path else ROOT / name
        assert found.exists(), f"{name} leads to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", found.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("where", PYTHON)
def test_python_blocks_compile_and_their_imports_and_keywords_exist(where, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "third_party_backbone"))
    tree = ast.parse(PYTHON[where])
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    exec(compile(ast.Module(imports, []), where, "exec"), {})
    known = {item.name for item in fields(Recipe)} | {"out", "observers"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"edit", "invert", "Recipe"}:
            assert {keyword.arg for keyword in node.keywords} <= known


CHEAP = [where for where, text in PYTHON.items() if "astronaut" not in text]


@pytest.mark.parametrize("where", CHEAP)
def test_cheap_python_blocks_run(where, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "third_party_backbone"))
    exec(compile(PYTHON[where], where, "exec"), {"__name__": "block"})


def test_toml_blocks_are_recipes_or_distributions():
    shelves = installed()
    recipes = 0
    for where, text in TOML.items():
        data = tomllib.loads(text)
        if "project" in data:
            continue
        recipes += 1
        recipe = Recipe.from_dict(data)
        for name, given in recipe.options.items():
            (card,) = [shelf[name] for shelf in shelves.shelves() if name in shelf]
            assert card.checked(given), where
    assert recipes == 1


def test_the_readmes_test_command_is_what_ci_calls():
    (line,) = [line for line in "".join(SHELL.values()).splitlines() if line.startswith("python3") and "pytest" in line]
    setup, install, test = line.split(" && ")
    called = [part.strip().removesuffix(" || status=1") for part in page(".ci/run").splitlines()]
    assert test in called
    assert any(part.endswith(f"|| {setup}") for part in called)
    assert any(part.startswith(install.split(" -r ")[0]) and part.endswith(install.split(" install ")[1]) for part in called)
    for part in page("CONTRIBUTING.md").split("```sh\n")[1].split("```")[0].replace(" && ", "\n").splitlines()[2:]:
        assert part in called


def test_the_readmes_edit_is_the_examples():
    script = page("examples/edit.py").split('"""\n\n')[1].strip()
    assert script in PYTHON["README.md:2"]


def test_the_layers_are_those_of_the_import_contract():
    contract = tomllib.loads(page("pyproject.toml"))["tool"]["importlinter"]["contracts"][0]["layers"]
    held = [set(re.findall(r"facednerf_core\.(\w+)", layer)) for layer in contract]
    table = page("docs/architecture.md").split("## Layers")[1].split("##")[0]
    rows = [set(re.findall(r"`(\w+)`", row.rsplit("|", 2)[1])) for row in table.splitlines() if row.startswith("|")]
    exists = {path.stem for path in (ROOT / "facednerf_core").iterdir()} - {"__init__", "__pycache__"}
    assert [row for row in rows if row][1:] == [layer & exists for layer in held]


def test_default_steps_and_weights_are_those_written():
    from facednerf_inverters.options import PtiOptions, WPlusOptions

    search, tuning = WPlusOptions(), PtiOptions()
    steps = f"`invert` {search.invert_steps}, `tune` {tuning.tune_steps}, "
    assert search.refine_steps == 0, "a stage more"
    assert steps + f"`edit` {compose.STEPS[compose.EDIT]} steps" in page("README.md")
    assert f"`joint` {compose.STEPS[compose.JOINT]}, `tune` {tuning.tune_steps} steps" in page("README.md")
    tutorial = page("docs/tutorial.md")
    for term in ("reconstruction", "identity", "guidance"):
        row = next(line for line in tutorial.splitlines() if line.startswith(f"| `{term}`"))
        written = [float(cell) for cell in row.split("|")[3:5]]
        assert written == [compose.WEIGHTS[stage][term] for stage in (compose.EDIT, compose.JOINT)]
    assert f"| {tuning.locality} in `tune` | {tuning.locality} in `tune` |" in tutorial


def test_the_starters_figures_are_those_of_its_cards():
    folder = ROOT / "plugins" / "facednerf-starter" / "facednerf_starter" / "weights"
    card = json.loads((folder / "generator.card.json").read_text())
    measured, text = card["measured_on_held_out_heads"], page("docs/starter.md")
    assert f"{card['seconds']:.0f} s, {card['steps']} steps" in text
    assert f"{measured['psnr']:.1f} dB on whole pictures, {measured['psnr_subject']:.1f} dB on the subject" in text
    assert f"({measured['psnr']:.1f} dB on held-out" in page("README.md")
    known = json.loads((folder / "identity.card.json").read_text())
    rates = [found["true_positives_at_1_percent_false"] for found in list(known["measured_on_held_out_heads"].values())[:3]]
    row = next(line for line in text.splitlines() if line.startswith("| identity,"))
    assert f"{known['seconds']:.0f} s, {known['steps']} steps, {known['data']['heads']} heads" in row
    assert re.findall(r"(\d+) %", row.replace("1 % false", "")) == [f"{100 * rate:.0f}" for rate in rates]
    words = (folder / "diffusion" / "tokenizer" / "vocabulary.txt").read_text().split()
    assert f"{len(words)} words" in text
    assert f"{len(words)} words" in page("docs/tutorial.md")


def test_every_weights_card_of_the_starter_has_its_model_card_linked():
    folder = ROOT / "plugins" / "facednerf-starter" / "facednerf_starter" / "weights"
    cards = {path.relative_to(ROOT).as_posix() for path in folder.rglob("*card.json")}
    assert len(cards) >= 6
    assert all(f"(../{card})" in page("docs/weights-and-licences.md") for card in cards)


def test_the_starters_sizes_are_those_of_its_files():
    from facednerf_starter.plugin import FOLDER, register_weights

    cards: dict[str, WeightsCard] = {}
    register_weights(lambda card: cards.setdefault(card.name, card))
    table = page("docs/weights-and-licences.md").split("## The starter's cards")[1].split("##")[0]
    rows = dict(re.findall(r"^\| `([\w/-]+)` \| \w+ \| ([\d.]+) MB", table, re.MULTILINE))
    assert rows == {name: f"{card.size / 1e6:.1f}" for name, card in cards.items()}
    every = sum(path.stat().st_size for path in FOLDER.rglob("*.safetensors"))
    assert f"All files together have {every / 1e6:.0f} MB" in page("docs/starter.md")


MACHINE = re.compile(r"(?<![\w.])/(work|tmp|home|root|Users)/|[A-Z]:\\\\")


def test_no_document_or_example_names_a_machines_path():
    texts = [*PAGES, *(ROOT / "examples").rglob("*.py"), *ROOT.glob("requirements*.txt"), ROOT / "pyproject.toml"]
    named = {path.name: MACHINE.findall(path.read_text(encoding="utf-8")) for path in texts}
    assert not {name: found for name, found in named.items() if found}


def test_pictures_are_small_and_shown():
    pictures = list((ROOT / "docs" / "pictures").iterdir())
    assert pictures
    assert all(path.stat().st_size < 1_000_000 and f"pictures/{path.name})" in DOCS for path in pictures)
