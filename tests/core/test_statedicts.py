"""Tensors against a network's names and shapes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from facednerf_core.errors import InputError
from facednerf_core.statedicts import check

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
