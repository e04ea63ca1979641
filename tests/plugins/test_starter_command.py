"""fdn starter: what is printed, what is written, and one message for what cannot be."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from facednerf_starter.world.attributes import LABELS, SHAPE, UNIT

from facednerf_core.cli import main

Fdn = Callable[..., tuple[int, str, str]]


@pytest.fixture
def fdn(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Fdn:
    """Runs fdn starter in this process and an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fdn", "starter", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


TINY = ("--heads", "1", "--size", "32", "--device", "cpu")


def test_a_sheet_is_written_and_its_place_told(fdn: Fdn, tmp_path: Path) -> None:
    code, out, err = fdn("render", *TINY, "--with", "glasses=yes", "--with", "hair_colour=blue", "--captions")
    assert (code, err) == (0, "")
    assert out.startswith("sheet.png: 1 head, ")
    assert "sheet.json: attributes, captions and cameras" in out
    facts = json.loads((tmp_path / "sheet.json").read_text())
    assert facts["changes"] == {"glasses": "yes", "hair_color": "blue"}
    code, _, err = fdn("render", *TINY)
    assert code == 2
    assert err == "fdn: sheet.png exists; choose another --out, or --force to replace it.\n"
    assert fdn("render", *TINY, "--force")[0] == 0


def test_json(fdn: Fdn, tmp_path: Path) -> None:
    code, out, _ = fdn("render", *TINY, "--round", "--views", "2", "--maps", "--out", str(tmp_path / "a.png"), "--json")
    said = json.loads(out)
    assert code == 0
    assert said["picture"] == str(tmp_path / "a.png")
    assert said["seconds_per_head"] > 0
    assert len(json.loads(Path(said["facts"]).read_text())["cameras"]) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--with", "glases=yes"), "Did you mean 'glasses'?"),
        (("--with", "hat=perhaps"), "hat cannot be 'perhaps'; it can be no, yes."),
        (("--size", "5000"), "size must be within 32 and 1024, not 5000."),
        (("--out", "none/sheet.png"), "there is no folder none"),
        (("--light", "moon"), "no light 'moon'"),
        (("--device", "abacus"), "no device 'abacus'"),
    ],
)
def test_bad_input_is_one_message(fdn: Fdn, tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    code, out, err = fdn("render", "--heads", "1", *words)
    assert (code, out) == (2, "")
    assert err.startswith("fdn: ")
    assert message in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())
    assert json.loads(fdn("render", "--heads", "1", *words, "--json")[1])["status"] == "failed"


def test_round_is_eight_views_unless_said(fdn: Fdn, tmp_path: Path) -> None:
    assert fdn("render", *TINY, "--round")[0] == 0
    assert len(json.loads((tmp_path / "sheet.json").read_text())["cameras"]) == 8


def test_attributes_are_listed(fdn: Fdn) -> None:
    _, out, _ = fdn("attributes")
    assert all(name in out for name in (*LABELS, *UNIT, *SHAPE, "open mouth"))
    found = json.loads(fdn("attributes", "--json")[1])
    assert found["beard"] == ["none", "beard", "goatee"]
    assert found["age"] == [0.0, 1.0]
    assert set(found) == {*LABELS, *UNIT, *SHAPE}


def test_help_imports_no_torch() -> None:
    code = (
        "import atexit, sys\n"
        "sys.argv = ['fdn', 'starter', 'render', '--help']\n"
        "atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr))\n"
        "from facednerf_core.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == "False\n"
    assert "--with NAME=VALUE" in done.stdout
