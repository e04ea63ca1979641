"""Schedules, against the published numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from facednerf_core.terms import Constant, Fade, Ramp, Stage, Step, Term


@pytest.fixture(scope="module")
def golden(repo: Path) -> dict[str, dict[str, float]]:
    return json.loads((repo / "tests/golden/losses/golden_schedules.json").read_text())


@pytest.mark.parametrize(
    ("name", "steps", "schedule"),
    [
        ("lr_w_1000", 1000, Ramp(0.01, rise=0.05, fall=0.25)),
        ("lr_w_500", 500, Ramp(0.01, rise=0.05, fall=0.25)),
        ("lr_pti_400", 400, Ramp(3e-4, rise=0.05, fall=0.25)),
        ("w_noise_scale_over_w_std_1000", 1000, Fade(0.05, 0.75, 2.0)),
    ],
)
def test_schedules_are_the_published_ones(name: str, steps: int, schedule, golden) -> None:
    for step, value in golden[name].items():
        assert schedule(int(step) / steps) == pytest.approx(value, rel=1e-6, abs=1e-12), step


def test_other_schedules() -> None:
    assert Constant(0.3)(0.9) == 0.3
    assert Ramp(2.0, rise=0.0, fall=0.0)(0.0) == Ramp(2.0, rise=0.0, fall=0.0)(1.0) == 2.0
    assert Fade(1.0, 0.5, 1.0)(0.25) == 0.5
    assert Fade(1.0, 0.5, 1.0)(0.8) == 0.0


def test_progress_runs_from_nothing_to_almost_one() -> None:
    rng, latent = object(), object()
    assert [Step(index, 4, rng, latent).progress for index in range(4)] == [0, 0.25, 0.5, 0.75]  # type: ignore[arg-type]
    assert Step(0, 0, rng, latent).progress == 0  # type: ignore[arg-type]


def test_a_stage_refuses_two_terms_of_one_name() -> None:
    term = Term("a", None, lambda rendering, step: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(ValueError, match="two terms of one name"):
        Stage("edit", frozenset({"latent"}), [term, term], 1, {"latent": 0.1})
