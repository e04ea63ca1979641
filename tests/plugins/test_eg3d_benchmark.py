"""The benchmark of backbones, with a small network in place of the full one."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.plugins.eg3d_goldens import tiny


@pytest.fixture
def benchmark(repo: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("backbones", repo / "benchmarks" / "backbones.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "generator", tiny)
    return module


@pytest.fixture
def inside(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Cases run in this process."""

    def apart(views: int, steps: int, *, keep: bool) -> dict[str, Any]:
        return benchmark.measure(views, steps) | {"cpu_seconds": views + 0.5 * keep}

    monkeypatch.setattr(benchmark, "apart", apart)
    return benchmark


def test_a_measurement(benchmark: ModuleType) -> None:
    found = benchmark.measure(2, 1)
    assert found["views"] == 2
    assert 0 < found["cpu_seconds"] < 60
    assert 0.05 < found["peak_gib"] < 60
    assert sum(found["cpu_seconds_of"].values()) == pytest.approx(found["cpu_seconds"], abs=0.01)


def test_json(inside: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    inside.main(["--json", "--steps", "1"])
    found = json.loads(capsys.readouterr().out)
    assert [(case["views"], case["freed_memory"]) for case in found["cases"]] == [
        (1, "returned"),
        (2, "returned"),
        (1, "kept"),
        (2, "kept"),
    ]
    assert found["two_views_over_one"] == {"returned": 2.0, "kept": round(2.5 / 1.5, 3)}


def test_the_table(inside: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    inside.main(["--steps", "1"])
    shown = capsys.readouterr().out
    assert "Two views from one synthesis cost 2.00 times one view (freed memory returned)." in shown
    assert "22 to 33 s" in shown
