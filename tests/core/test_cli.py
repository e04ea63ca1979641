"""fdn: exit codes, messages without tracebacks, JSON that is nothing but JSON."""

import hashlib
import json
import os
import subprocess
import sys

import pytest

from facednerf_core import __version__
from facednerf_core.cli import SPINS, main

DIGEST = hashlib.sha256(b"official").hexdigest()
GOOD = """
from dataclasses import dataclass, field
from facednerf_core.cards import Card, WeightsCard
from facednerf_core.hookspecs import hookimpl

@dataclass(frozen=True)
class Options:
    depth: int = 48
    names: tuple[str, ...] = field(default_factory=tuple)
    path: str = "[x]"

@hookimpl
def register_generators(register):
    register(Card("round", "A sphere.", build=print, domains=("face",), options=Options))

@hookimpl
def register_weights(register):
    register(WeightsCard("round/big", "round", "generator", "official", "A big sphere.", domains=("face",),
                         files={"net": "net.pkl"}, licence="Somebody's, non-commercial", sha256={"source": "@DIGEST"},
                         terms_of_use="Not for sale.", source="https://example.org"))
"""
GOOD = GOOD.replace("@DIGEST", DIGEST)
RUNNER = """
import sys
def run(loud: bool = False):
    "Trains."
    print("trained", "loudly" if loud else "softly", "torch" in sys.modules)
"""


SPEAKER = """
from facednerf_core.cards import Card, WeightsCard
from facednerf_core.hookspecs import hookimpl

@hookimpl
def register_guidances(register):
    register(Card("speaker", "Follows a sentence.", build=print))

@hookimpl
def register_weights(register):
    words = ("a", "hat", "[red]")
    register(WeightsCard("speaker/few", "speaker", "guidance", "starter", "Three words.", vocabulary=words))
    register(WeightsCard("speaker/all", "speaker", "guidance", "official", "Any word."))
"""


@pytest.fixture
def fdn(monkeypatch, capsys):
    """Runs fdn in this process: exit code, stdout, stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["fdn", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return ended.value.code or 0, said.out, said.err

    return run


@pytest.fixture
def plugins(install, monkeypatch):
    install("facednerf-round", GOOD, facednerf={"round": "facednerf_round"})
    install("facednerf-bad", "raise RuntimeError('kaputt')", facednerf={"bad": "facednerf_bad"})
    install("facednerf-runner", RUNNER, facednerf_commands={"runner": "facednerf_runner:run"})
    monkeypatch.setenv("FACEDNERF_PLUGINS", "round,bad,runner")


def test_version(fdn):
    assert fdn("--version") == (0, f"facednerf {__version__}\n", "")


def test_plugins_shows_the_good_and_the_broken(fdn, plugins):
    code, out, err = fdn("plugins")
    assert code == 0
    assert "A sphere." in out
    assert "facednerf-round 1.0" in out
    assert "broken: bad RuntimeError: kaputt" in out
    assert "Traceback" not in out + err


def test_plugins_as_json(fdn, plugins):
    code, out, _ = fdn("plugins", "--json")
    data = json.loads(out)
    assert code == 0
    assert [(item["kind"], item["name"], item["version"]) for item in data["plugins"]] == [("generator", "round", "1.0")]
    assert data["plugins"][0]["weights"] == ["round/big"]
    assert data["broken"][0]["name"] == "bad"
    assert "kaputt" in data["broken"][0]["trace"]
    assert data["commands"] == ["runner"]


def test_show_gives_options_with_types_and_defaults_and_the_licence_of_weights(fdn, plugins):
    code, out, _ = fdn("plugins", "show", "round")
    assert code == 0
    rows = [line.split() for line in out.splitlines()]
    assert ["depth", "int", "48"] in rows
    assert ["path", "str", "'[x]'"] in rows
    assert "Somebody's, non-commercial" in out
    assert "missing" in out


def test_show_of_a_broken_plugin_gives_its_traceback(fdn, plugins):
    _, out, _ = fdn("plugins", "show", "bad")
    assert "Traceback" in out
    assert "kaputt" in out


def test_doctor_says_what_is_wrong_and_its_exit_code(fdn, plugins):
    code, out, _ = fdn("plugins", "doctor", "bad")
    assert code == 1
    assert "bad is broken: RuntimeError: kaputt" in out
    code, out, _ = fdn("plugins", "doctor", "round", "--json")
    assert code == 0
    assert json.loads(out)["cards"] == ["generator round", "weights round/big"]


@pytest.mark.parametrize(
    "arguments",
    [("plugins", "show", "roumd"), ("plugins", "doctor", "roumd"), ("weights", "licence", "round/bug")],
)
def test_an_unknown_name_is_one_message_and_exit_code_2(arguments, fdn, plugins):
    code, out, err = fdn(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("fdn: no ")
    assert "Did you mean 'round" in err
    assert "Traceback" not in err


def test_an_unknown_command_is_exit_code_2_with_the_nearest(fdn):
    code, _, err = fdn("plugin")
    assert code == 2
    assert "plugins" in err


def test_weights_are_listed_with_licence_and_state(fdn, plugins):
    code, out, _ = fdn("weights")
    assert code == 0
    assert "round/big" in out
    assert "Somebody's, non-commercial" in out
    assert "missing" in out
    assert "pack official: without generator for face" in out


def test_weights_are_imported_and_found_again(fdn, plugins, tmp_path, monkeypatch):
    monkeypatch.setenv("FACEDNERF_CACHE", str(tmp_path / "cache"))
    (tmp_path / "official.pkl").write_bytes(b"official")
    code, out, err = fdn("weights", "import", "round/big", tmp_path / "official.pkl")
    assert code == 0
    assert out.startswith(f"net: {tmp_path / 'cache'}")
    assert "Not for sale." in err
    code, out, _ = fdn("weights", "--json")
    data = json.loads(out)
    assert data["weights"][0]["present"]
    assert data["weights"][0]["sha256"] == {"source": DIGEST}
    assert data["packs"] == {"official": {"complete": True}}
    _, out, _ = fdn("weights", "path", "round/big", "--json")
    assert json.loads(out)["net"].endswith("net.pkl")


def test_import_of_a_missing_file_is_one_message(fdn, plugins, tmp_path):
    code, out, err = fdn("weights", "import", "round/big", tmp_path / "nowhere")
    assert (code, out) == (2, "")
    assert "no file or folder" in err


def test_weights_that_are_missing_say_how_to_get_them(fdn, plugins):
    code, _, err = fdn("weights", "path", "round/big")
    assert code == 2
    assert "fdn weights import round/big FILE" in err


def test_the_words_of_a_closed_vocabulary_are_counted_and_printed(fdn, install, monkeypatch):
    install("facednerf-speaker", SPEAKER, facednerf={"speaker": "facednerf_speaker"})
    monkeypatch.setenv("FACEDNERF_PLUGINS", "speaker")
    out = fdn("plugins", "show", "speaker")[1]
    assert "speaker/few knows 3 words and no others: fdn weights words speaker/few" in out
    assert "speaker/all knows" not in out
    assert json.loads(fdn("plugins", "show", "speaker", "--json")[1])["plugins"][0]["words"] == {"speaker/few": 3}
    assert fdn("weights", "words", "speaker/few")[:2] == (0, "a, hat, [red]\n")
    assert json.loads(fdn("weights", "words", "speaker/few", "--json")[1]) == ["a", "hat", "[red]"]
    assert "takes any word" in fdn("weights", "words", "speaker/all")[1]
    assert json.loads(fdn("weights", "words", "speaker/all", "--json")[1]) == []
    assert fdn("weights", "words", "speaker/fw")[0] == 2


def test_path_is_the_cache(fdn, tmp_path, monkeypatch):
    monkeypatch.setenv("FACEDNERF_CACHE", str(tmp_path))
    assert fdn("weights", "path") == (0, f"{tmp_path}\n", "")


def test_licence_says_what_it_forbids(fdn, plugins):
    _, out, _ = fdn("weights", "licence", "round/big")
    assert "Somebody's, non-commercial" in out
    assert "Not for sale." in out


def test_a_command_of_a_plugin_is_listed_and_run(fdn, plugins):
    _, out, _ = fdn("--help")
    assert "runner" in out
    assert "facednerf-runner" in out
    code, out, _ = fdn("runner", "--loud")
    assert code == 0
    assert "trained loudly" in out


def test_a_typer_application_is_a_command_too(fdn, install):
    source = "import typer\napp = typer.Typer()\n@app.command()\ndef a(): print('in a')\n@app.command()\ndef b(): pass\n"
    install("facednerf-many", source, facednerf_commands={"many": "facednerf_many:app"})
    assert fdn("many", "a")[:2] == (0, "in a\n")


def test_a_broken_command_is_listed_and_one_message_when_called(fdn, install):
    install("facednerf-sick", "raise RuntimeError('kaputt')", facednerf_commands={"sick": "facednerf_sick:run"})
    assert "sick" in fdn("--help")[1]
    code, _, err = fdn("sick")
    assert code == 2
    assert err == "fdn: the command 'sick' of facednerf-sick cannot be loaded: RuntimeError: kaputt.\n"


@pytest.mark.parametrize("source", ["import typer\nrun = typer.Typer()", "def run(x: int | str): pass"])
def test_a_command_that_typer_does_not_understand_is_one_message_too(fdn, install, source):
    install("facednerf-sick", source, facednerf_commands={"sick": "facednerf_sick:run"})
    code, out, err = fdn("sick", "--json")
    assert code == 2
    assert err.startswith("fdn: the command 'sick' of facednerf-sick cannot be loaded: ")
    assert json.loads(out)["status"] == "failed"


def test_a_command_with_a_name_of_fdns_is_named_as_not_used(fdn, install):
    install("facednerf-greedy", "def run(): print('mine')", facednerf_commands={"weights": "facednerf_greedy:run"})
    reason = "its command 'weights' is not used: fdn has a command of that name"
    assert f"(not used) of facednerf-greedy: {reason}" in " ".join(fdn("--help")[1].split())
    assert reason in " ".join(fdn("plugins")[1].split())
    assert "mine" not in fdn("weights", "path")[1]
    code, out, _ = fdn("plugins", "doctor", "weights")
    assert code == 1
    assert reason in out


def test_ctrl_c_is_exit_code_130(fdn, install):
    install("facednerf-slow", "def run():\n    raise KeyboardInterrupt", facednerf_commands={"slow": "facednerf_slow:run"})
    assert fdn("slow")[0] == 130


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({}, (SPINS, None)),
        ({"GOMP_SPINCOUNT": "7"}, ("7", None)),
        ({"OMP_WAIT_POLICY": "PASSIVE"}, (None, "PASSIVE")),
        ({"OMP_WAIT_POLICY": "ACTIVE", "GOMP_SPINCOUNT": "7"}, ("7", "ACTIVE")),
    ],
)
def test_how_long_threads_wait_is_set_unless_the_user_did(given, kept):
    code = (
        "import atexit, os, sys\n"
        "sys.argv = ['fdn', '--version']\n"
        "atexit.register(lambda: print(os.environ.get('GOMP_SPINCOUNT'), os.environ.get('OMP_WAIT_POLICY')))\n"
        "from facednerf_core.cli import main; main()"
    )
    plain = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=plain | given)
    assert done.stdout.splitlines()[-1] == " ".join(map(str, kept)), done.stderr
