"""Discovery: good plugins land on shelves, bad ones in the ledger, and none harms another."""

from types import SimpleNamespace

import pytest

from facednerf_core.cards import Card, WeightsCard
from facednerf_core.entrypoints import PLUGINS, commands, entry_points
from facednerf_core.errors import UnknownName, Unsupported
from facednerf_core.hookspecs import hookimpl
from facednerf_core.plugins import (
    HOOKS,
    Shelves,
    doctor,
    installed,
    load_command,
)

GOOD = """
from facednerf_core.cards import Card, WeightsCard
from facednerf_core.hookspecs import hookimpl

@hookimpl
def register_generators(register):
    register(Card("{name}", "A good one.", build=print))

@hookimpl
def register_weights(register):
    register(WeightsCard("{name}/one", "{name}", "generator", "starter", "Its weights."))
"""
BAD = {
    "raises": ("raise RuntimeError('kaputt')", "RuntimeError: kaputt"),
    "exits": ("raise SystemExit(3)", "SystemExit: 3"),
    "misses": ("import no_such_library", "misses the module 'no_such_library'"),
    "misspells": (
        "from facednerf_core.hookspecs import hookimpl\n@hookimpl\ndef register_generator(register): pass",
        "unknown hook 'register_generator'; did you mean 'register_generators'?",
    ),
    "wrong arguments": (
        "from facednerf_core.hookspecs import hookimpl\n@hookimpl\ndef register_generators(registry): pass",
        "other arguments",
    ),
    "no hooks": ("x = 1", "no hooks"),
    "other version": (GOOD.replace("build=print", "build=print, api=99"), "speaks API version 99, this core speaks 1"),
    "no card": (GOOD.replace('Card("{name}", "A good one.", build=print)', "3"), "3 among the generator cards"),
    "bad options": (GOOD.replace("build=print", "build=print, options=int"), "options of facednerf_bad are not a dataclass"),
    "raises in a hook": (GOOD.replace("    register(Card", "    1 / 0\n    register(Card"), "ZeroDivisionError"),
    "bad name": (GOOD.replace('Card("{name}"', 'Card("a b"'), "'a b'"),
}


def plugin(name, kind="register_generators"):
    @hookimpl
    def hook(register):
        register(Card(name, "In process.", build=print))

    hook.__name__ = kind
    return SimpleNamespace(**{kind: hook})


@pytest.mark.parametrize("name", BAD)
def test_a_broken_plugin_is_in_the_ledger_and_the_others_work(name, install, monkeypatch):
    source, reason = BAD[name]
    install("facednerf-bad", source.replace("{name}", "facednerf_bad"), facednerf={"bad": "facednerf_bad"})
    install("facednerf-good", GOOD.replace("{name}", "good"), facednerf={"good": "facednerf_good"})
    monkeypatch.setenv("FACEDNERF_PLUGINS", "bad,good")
    shelves = installed()
    assert list(shelves.generators) == ["good"]
    assert list(shelves.weights) == ["good/one"]
    (broken,) = shelves.broken
    assert (broken.name, broken.distribution) == ("bad", "facednerf-bad")
    assert reason in broken.reason


def test_the_ledger_keeps_the_traceback_of_what_was_raised(install, monkeypatch):
    install("facednerf-bad", "def deep():\n    raise RuntimeError('kaputt')\ndeep()", facednerf={"bad": "facednerf_bad"})
    monkeypatch.setenv("FACEDNERF_PLUGINS", "bad")
    (broken,) = installed().broken
    assert "in deep" in broken.trace
    assert "kaputt" in broken.trace


def test_a_broken_plugin_leaves_no_card_behind(install, monkeypatch):
    source = GOOD.replace("{name}", "half") + "    raise ValueError('late')\n"
    install("facednerf-bad", source, facednerf={"bad": "facednerf_bad"})
    monkeypatch.setenv("FACEDNERF_PLUGINS", "bad")
    shelves = installed()
    assert len(shelves.generators) == 0
    assert not shelves.weights


@pytest.mark.parametrize("hook", HOOKS)
def test_each_hook_fills_the_shelf_of_its_kind(hook):
    shelves = Shelves(mine=plugin("thing", hook))
    assert not shelves.broken
    assert shelves.shelf(HOOKS[hook])["thing"].summary == "In process."
    assert shelves.origins[HOOKS[hook], "thing"].plugin == "mine"
    assert sum(len(shelf) for shelf in shelves.shelves()) == 1


def test_every_hook_of_the_specification_has_a_shelf():
    from facednerf_core import hookspecs

    names = {name for name in vars(hookspecs) if name.startswith("register_")}
    assert names == {*HOOKS, "register_weights"}


def test_of_two_cards_with_one_name_the_later_is_broken():
    shelves = Shelves(first=plugin("same"), second=plugin("same"))
    assert shelves.origins["generator", "same"].plugin == "first"
    (broken,) = shelves.broken
    assert broken.name == "second"
    assert broken.reason == "its generator 'same' is not used: the plugin 'first' has registered that name before"


def test_one_name_may_serve_two_kinds():
    shelves = Shelves(first=plugin("same"), second=plugin("same", "register_detectors"))
    assert not shelves.broken
    assert "same" in shelves.generators
    assert "same" in shelves.detectors


def test_of_two_weights_cards_with_one_name_the_later_is_broken():
    def weights(pack):
        @hookimpl
        def register_weights(register):
            register(WeightsCard("eg3d/x", "eg3d", "generator", pack, "X."))

        return SimpleNamespace(register_weights=register_weights)

    shelves = Shelves(first=weights("starter"), second=weights("official"))
    assert shelves.weights["eg3d/x"].pack == "starter"
    assert "weights card 'eg3d/x'" in shelves.broken[0].reason


def test_an_unknown_name_offers_the_nearest():
    shelves = Shelves(mine=plugin("panohead"))
    with pytest.raises(UnknownName, match=r"no backbone named 'panhead'; installed: panohead. Did you mean 'panohead'"):
        shelves.generators["panhead"]


def test_an_unknown_name_of_a_broken_plugin_says_why():
    shelves = Shelves(eg3d=SimpleNamespace())
    with pytest.raises(UnknownName, match="plugin 'eg3d' is broken: it has no hooks"):
        shelves.generators["eg3d"]


@pytest.mark.parametrize(("value", "found"), [("one", ["one"]), ("one, two", ["one", "two"]), ("", [])])
def test_the_allow_list(value, found, install, monkeypatch):
    for name in ("one", "two"):
        install(f"facednerf-{name}", GOOD.replace("{name}", name), facednerf={name: f"facednerf_{name}"})
    monkeypatch.setenv("FACEDNERF_PLUGINS", value)
    shelves = installed()
    assert list(shelves.generators) == found
    assert not shelves.broken


def test_without_an_allow_list_all_are_loaded(install):
    install("facednerf-one", GOOD.replace("{name}", "one"), facednerf={"one": "facednerf_one"})
    shelves = installed()
    assert "one" in shelves.generators
    assert {point.name for point in entry_points(PLUGINS)} == {
        *(origin.plugin for origin in shelves.plugins),
        *(item.name for item in shelves.broken),
    }


def test_an_allowed_plugin_that_is_not_installed_is_said(monkeypatch):
    monkeypatch.setenv("FACEDNERF_PLUGINS", "nowhere")
    (broken,) = installed().broken
    assert broken.name == "nowhere"
    assert "not installed" in broken.reason


def test_origins_carry_the_version_of_the_distribution(install, monkeypatch):
    install("facednerf-one", GOOD.replace("{name}", "one"), version="3.4", facednerf={"one": "facednerf_one"})
    monkeypatch.setenv("FACEDNERF_PLUGINS", "one")
    origin = installed().origins["generator", "one"]
    assert (origin.distribution, origin.version) == ("facednerf-one", "3.4")


def test_what_a_plugin_prints_does_not_reach_stdout(install, monkeypatch, capsys):
    install("facednerf-one", "print('hello')\n" + GOOD.replace("{name}", "one"), facednerf={"one": "facednerf_one"})
    monkeypatch.setenv("FACEDNERF_PLUGINS", "one")
    installed()
    assert capsys.readouterr().out == ""


def test_doctor_finds_a_healthy_plugin_well(install):
    install("facednerf-one", GOOD.replace("{name}", "one"), facednerf={"one": "facednerf_one"})
    diagnosis = doctor("one")
    assert diagnosis.healthy
    assert diagnosis.cards == ["generator one", "weights one/one"]
    assert not diagnosis.imports_torch


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise RuntimeError('kaputt')", "RuntimeError: kaputt"),
        ("import os; os.kill(os.getpid(), 11)", "signal 11"),
        ("import os; os._exit(4)", "exit code 4"),
        ("import time; time.sleep(60)", "within 2 seconds"),
    ],
)
def test_doctor_survives_a_sick_plugin(source, reason, install):
    install("facednerf-sick", source, facednerf={"sick": "facednerf_sick"})
    diagnosis = doctor("sick", limit=2)
    assert not diagnosis.healthy
    assert reason in diagnosis.reason


def test_doctor_says_when_a_plugin_imports_torch_on_being_listed(install):
    source = "import sys, types\nsys.modules['torch'] = types.ModuleType('torch')\n" + GOOD.replace("{name}", "one")
    install("facednerf-one", source, facednerf={"one": "facednerf_one"})
    assert doctor("one").imports_torch


def test_doctor_of_an_unknown_plugin_offers_the_nearest(install):
    install("facednerf-one", GOOD, facednerf={"mybackbone": "facednerf_one"})
    with pytest.raises(UnknownName, match="mean 'mybackbone'"):
        doctor("mybackbon")


def test_a_command_that_is_no_application_cannot_be_loaded(install):
    install("facednerf-odd", "run = 5", facednerf_commands={"odd": "facednerf_odd:run"})
    with pytest.raises(Unsupported, match="is a int, not a Typer application or a function"):
        load_command(commands()["odd"])


def test_a_command_that_prints_while_it_loads_does_not_spoil_json(install, capsys):
    install("facednerf-loud", "print('hello')\ndef run(): pass", facednerf_commands={"loud": "facednerf_loud:run"})
    load_command(commands()["loud"])
    assert capsys.readouterr().out == ""


def test_doctor_loads_a_plugins_commands_too(install):
    source = GOOD.replace("{name}", "one")
    install("facednerf-one", source, facednerf={"one": "facednerf_one"}, facednerf_commands={"paint": "facednerf_one:card"})
    assert doctor("one").healthy is False
    assert "'paint' of facednerf-one cannot be loaded" in doctor("one").reason
    install("facednerf-two", "def run(): pass", facednerf_commands={"two": "facednerf_two:run", "edit": "facednerf_two:run"})
    assert doctor("two").cards == ["command two"]
    assert doctor("edit").reason == "its command 'edit' is not used: fdn has a command of that name"
