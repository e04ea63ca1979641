"""A recipe: one thing as arguments, TOML, manifest and plain data."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from facednerf_core.errors import InputError, UnknownName
from facednerf_core.recipe import Recipe, Weights

FULL = Recipe(
    photo="a.png",
    prompt="a woman with blue hair",
    source_prompt="a woman",
    identity="none",
    weights_cards={"generator": "eg3d/starter"},
    weights=Weights(identity=0.5, locality=0.0),
    stage_weights={"edit": {"reconstruction": 0.25}},
    steps={"edit": 0, "tune": 7},
    options={"eg3d": {"rays": 16}, "sds": {"scale": 30.0}},
    strength=0.5,
    camera=(0.1, -0.2),
    crop=(100.0, 90.5, 200.0),
    face=2,
    size=64,
    seed=11,
)


@pytest.mark.parametrize("recipe", [FULL, Recipe(), Recipe(task="invert", recipe="paper")])
def test_a_recipe_comes_back_from_json(recipe: Recipe) -> None:
    data = json.loads(json.dumps(recipe.as_dict()))
    assert Recipe.from_dict(data) == recipe
    assert None not in data.values()


def test_a_recipe_comes_back_from_toml(tmp_path: Path) -> None:
    lines = []
    tables = []
    for name, value in FULL.as_dict().items():
        if isinstance(value, dict):
            inner = ", ".join(f"{key} = {_toml(part)}" for key, part in value.items())
            tables.append(f"{name} = {{{inner}}}")
        else:
            lines.append(f"{name} = {_toml(value)}")
    (tmp_path / "r.toml").write_text("\n".join([*lines, *tables]))
    assert Recipe.from_dict(Recipe.from_toml(tmp_path / "r.toml")) == FULL


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(part)}" for key, part in value.items()) + "}"
    if isinstance(value, tuple | list):
        return json.dumps(list(value))
    return json.dumps(value)


@pytest.mark.parametrize(
    ("data", "piece"),
    [
        ({"seed": "one"}, "recipe field 'seed'"),
        ({"steps": {"edit": "many"}}, "recipe field 'steps.edit'"),
        ({"camera": [1.0]}, "recipe field 'camera"),
        ({"weights": {"identity": "much"}}, "recipe field 'weights.identity'"),
        ({"weights": 4}, "recipe field 'weights"),
        ({"task": "relight"}, "recipe field 'task'"),
        ({"steps": {"edit": -1}}, "steps of stage 'edit' must be at least 0"),
        ({"frames": -1}, "frames must be at least 0"),
        ({"save_every": 0}, "save_every at least 1"),
        ({"size": 4}, "size must be at least 16"),
        ({"strength": math.nan}, "strength must be finite"),
        ({"camera": [math.inf, 0.0]}, "camera must be finite"),
        ({"weights": {"guidance": math.inf}}, "weights must be finite"),
        ({"stage_weights": {"edit": {"guidance": math.nan}}}, "weights must be finite"),
        ({"stage_weights": {"edit": 2.0}}, "recipe field 'stage_weights.edit"),
    ],
)
def test_what_cannot_be_is_said(data: dict[str, object], piece: str) -> None:
    with pytest.raises(InputError) as error:
        Recipe.from_dict(data)
    assert piece in str(error.value)


@pytest.mark.parametrize(
    ("data", "near"),
    [({"promt": "x"}, "prompt"), ({"weights": {"latnt": 1}}, "latent"), ({"recipe": "defualt"}, "default")],
)
def test_a_name_that_is_not_known_comes_with_the_nearest(data: dict[str, object], near: str) -> None:
    with pytest.raises(UnknownName, match=f"Did you mean '{near}'"):
        Recipe.from_dict(data)


def test_weights_that_were_given_are_known_from_those_that_were_not() -> None:
    assert FULL.weights.given() == {"identity": 0.5, "locality": 0.0}
    assert Weights().given() == {}


def test_a_recipe_of_no_name_is_refused_in_python_too() -> None:
    with pytest.raises(UnknownName, match="'paper'"):
        Recipe(recipe="papers")  # type: ignore[arg-type]


def test_a_changed_recipe_leaves_the_first_alone() -> None:
    assert FULL.changed(strength=0.25).strength == 0.25
    assert FULL.strength == 0.5
