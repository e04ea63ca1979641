"""Attributes set by name: every word of the world is understood, and nothing else."""

from __future__ import annotations

import pytest
import torch
from facednerf_starter.world.attributes import LABELS, SHAPE, UNIT, decode, draw
from facednerf_starter.world.changes import changed, described, offered, read

from facednerf_core.errors import InputError


def test_every_attribute_is_offered_with_all_that_it_can_be() -> None:
    found = offered()
    assert set(found) == {*LABELS, *UNIT, *SHAPE}
    heads = decode(draw(0, 0, 500))
    for name in (*UNIT, *SHAPE):
        values, (low, high) = getattr(heads, name), found[name]
        assert low == pytest.approx(float(values.min()), abs=0.2)
        assert high == pytest.approx(float(values.max()), abs=0.2)
        assert read([f"{name}={float(values.min())}"]) == {name: float(values.min())}


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("glasses=yes", "glasses", "yes"),
        ("hair_colour=Blue", "hair_color", "blue"),
        ("Hair-Color = blue", "hair_color", "blue"),
        ("expression=open-mouth", "expression", "open mouth"),
        ("clothes=v_neck", "clothes", "v-neck"),
        ("age=1", "age", 1.0),
        ("jaw-width=-2.2", "jaw_width", float(torch.tensor(-2.2))),
    ],
)
def test_spellings(text: str, name: str, value: str | float) -> None:
    assert read([text]) == {name: value}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["glasses"], "'glasses': say NAME=VALUE"),
        (["glasses="], "say NAME=VALUE"),
        (["glases=yes"], "no attribute 'glases'; there are hair_style, .* Did you mean 'glasses'"),
        (["hair_color=bleu"], "hair_color cannot be 'bleu'; it can be black, .* Did you mean 'blue'"),
        (["age=old"], "age must be a number within 0.0 and 1.0, not 'old'"),
        (["age=1.1"], r"age must be within 0.0 and 1.0, not 1.1"),
        (["age=nan"], "age must be within"),
        (["eye_size=-3"], r"eye_size must be within -2.2 and 2.2, not -3"),
        (["hair_color=red", "hair-colour=blue"], "hair_color is given twice: as red and as blue"),
    ],
)
def test_what_the_world_does_not_have_is_refused(texts: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(texts)


def test_only_what_was_asked_for_changes() -> None:
    heads = decode(draw(0, 0, 3))
    after = changed(heads, {"beard": "goatee", "age": 0.25})
    assert [after.named("beard", i) for i in range(3)] == ["goatee"] * 3
    for i in range(3):
        old, new = described(heads, i), described(after, i)
        assert new["age"] == 0.25
        assert {name for name in old if old[name] != new[name]} <= {"beard", "age"}
    assert torch.equal(after.light, heads.light)
    with pytest.raises(InputError, match="no attribute"):
        changed(heads, {"tail": "yes"})
