"""What is read of distributions from their metadata: commands, whose they are, and what is said of them."""

import sys
import textwrap

import pytest

from facednerf_core.entrypoints import COMMANDS, claimed, commands, entry_points, home, origin, summary
from facednerf_core.errors import Unsupported
from facednerf_core.plugins import installed, load_command


def test_commands_are_found_without_being_loaded_and_obey_the_allow_list(install, monkeypatch):
    source = textwrap.dedent("raise RuntimeError('kaputt')")
    points = {"facednerf": {"one": "facednerf_one"}, "facednerf_commands": {"train-one": "facednerf_one:run"}}
    install("facednerf-one", source, **points)
    assert "train-one" in commands()
    monkeypatch.setenv("FACEDNERF_PLUGINS", "one")
    assert list(commands()) == ["train-one"]
    with pytest.raises(Unsupported, match=r"'train-one' of facednerf-one cannot be loaded: RuntimeError: kaputt"):
        load_command(commands()["train-one"])
    monkeypatch.setenv("FACEDNERF_PLUGINS", "")
    assert not commands()


def test_a_command_whose_name_is_taken_is_refused_and_said(install):
    install("facednerf-greedy", "", facednerf_commands={"edit": "facednerf_greedy:run", "paint": "facednerf_greedy:run"})
    install("facednerf-late", "", facednerf_commands={"paint": "facednerf_late:run"})
    assert "edit" not in commands()
    assert commands()["paint"].value == "facednerf_greedy:run"
    said = {(item.distribution, item.reason) for item in claimed()[1]}
    assert said == {
        ("facednerf-greedy", "its command 'edit' is not used: fdn has a command of that name"),
        ("facednerf-late", "its command 'paint' is not used: facednerf-greedy has a command of that name"),
    }
    assert said <= {(item.distribution, item.reason) for item in installed().broken}


def test_an_entry_point_is_told_by_its_distribution(install):
    install("facednerf-one", "", version="2.5", facednerf_commands={"paint": "facednerf_one:run"})
    (point,) = [point for point in entry_points(COMMANDS) if point.name == "paint"]
    assert (origin(point).plugin, origin(point).distribution, origin(point).version) == ("paint", "facednerf-one", "2.5")
    assert home(point) == "facednerf-one"
    assert summary(point) == "from facednerf-one"
    (ours,) = [point for point in entry_points(COMMANDS) if point.name == "starter"]
    assert summary(ours).startswith("Starter weights")
    assert summary(ours).endswith("(facednerf-starter)")
    assert "facednerf_one" not in sys.modules
