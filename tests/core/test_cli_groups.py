"""fdn's group: its commands are listed without being built, and built when they are called."""

import subprocess
import sys

import pytest
import typer

from facednerf_core.cli.app import app
from facednerf_core.cli.groups import OWN
from facednerf_core.entrypoints import OWN_COMMANDS


def test_fdns_own_commands_are_those_that_no_plugin_can_replace():
    assert tuple(OWN) == OWN_COMMANDS


@pytest.mark.parametrize("name", OWN)
def test_each_command_is_built_when_it_is_asked_for(name):
    command = typer.main.get_command(app).commands[name]
    assert command.name == name
    assert command.help


@pytest.mark.parametrize("name", OWN)
def test_what_help_says_fits_into_a_line(name):
    _, said = OWN[name]
    assert 20 < len(said) <= 68, "80 columns less the names"
    assert said.endswith(".")


def test_help_builds_no_command():
    code = (
        "import atexit, sys\n"
        "sys.argv = ['fdn', '--help']\n"
        "heavy = ('facednerf_core.cli.', 'facednerf_core.recipe', 'facednerf_core.plugins', 'pluggy')\n"
        "used = lambda: sorted(name for name in sys.modules if name.startswith(heavy))\n"
        "atexit.register(lambda: print(*used(), file=sys.stderr))\n"
        "from facednerf_core.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr.split() == [f"facednerf_core.cli.{name}" for name in ("app", "console", "groups")]
    assert all(said in done.stdout for _, said in OWN.values())


def test_a_misspelt_command_is_guessed():
    done = subprocess.run([sys.executable, "-m", "facednerf_core.cli", "invret"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "Did you mean 'invert'?" in done.stderr
