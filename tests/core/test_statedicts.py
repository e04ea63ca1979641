"""Tensors read from a file that holds some in eight bits, and held against a network's names and shapes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from facednerf_core.errors import InputError
from facednerf_core.statedicts import check, packed, plain, read

WANTED = {"a": torch.zeros(2, 3), "b": torch.zeros(()), "norm.num_batches_tracked": torch.zeros(())}


def test_a_networks_own_tensors_pass_with_and_without_counters() -> None:
    check(WANTED, WANTED, "a toy")
    check({"a": torch.ones(2, 3), "b": torch.ones(())}, WANTED, "a toy")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"a": torch.zeros(2, 3)}, "b is missing"),
        ({**WANTED, "c": torch.zeros(1)}, "c is unknown"),
        ({**WANTED, "a": torch.zeros(3, 2)}, "a is (3, 2) instead of (2, 3)"),
        ({**WANTED, "b": torch.zeros(1)}, "b is (1,) instead of ()"),
    ],
)
def test_what_does_not_fit_is_named(given: dict[str, Tensor], said: str) -> None:
    with pytest.raises(InputError) as error:
        check(given, WANTED, "a toy")
    assert str(error.value) == f"these are not the tensors of a toy: {said}."


def test_of_many_faults_five_are_named_those_of_the_caller_first() -> None:
    with pytest.raises(InputError) as error:
        check({f"x{i}": torch.zeros(1) for i in range(6)}, WANTED, "a toy", faults=["x0 is odd"], hint="Look again.")
    said = "x0 is odd; a is missing; b is missing; x0 is unknown; x1 is unknown, and 4 more. Look again."
    assert str(error.value) == f"these are not the tensors of a toy: {said}"


def test_eight_bits_keep_each_row_to_a_254th_of_its_largest_number(tmp_path: Path) -> None:
    wide = torch.randn(4, 3, 3, 3) * torch.tensor([1e-3, 1.0, 40.0, 0.0])[:, None, None, None]
    save_file({**packed(wide, "conv"), "half": torch.ones(2).half(), "count": torch.tensor(7)}, tmp_path / "t.safetensors")
    found = read(tmp_path / "t.safetensors")
    assert sorted(found) == ["conv", "count", "half"]
    off = (found["conv"] - wide).flatten(1).abs().amax(1)
    largest = wide.flatten(1).abs().amax(1)
    assert (off <= (largest / 254 * 1.001).clamp_min(3.1e-5)).all()  # the scale is rounded to float16 too
    assert off[1] > 0
    assert found["conv"].dtype == found["half"].dtype == torch.float32
    assert found["count"] == 7
    assert found["count"].dtype == torch.int64


def test_what_is_not_packed_is_left_as_it_is() -> None:
    given = {"steps": torch.tensor([3], dtype=torch.int8), "a": torch.randn(2)}
    found = plain(given)
    assert found["steps"].dtype == torch.int8
    assert torch.equal(found["a"], given["a"])
