"""Random numbers by name, and devices by name."""

from __future__ import annotations

import pytest
import torch

from facednerf_core.compute import device, rng
from facednerf_core.errors import InputError


def draw(*names: str | int, seed: int = 0) -> list[float]:
    return torch.randn(4, generator=rng(seed, *names)).tolist()


def test_the_same_names_give_the_same_numbers_whatever_else_is_drawn() -> None:
    first = draw("edit", "guidance", 3)
    torch.manual_seed(99)
    draw("edit", "identity", 3)
    assert draw("edit", "guidance", 3) == first


def test_the_numbers_are_those_of_every_machine() -> None:
    assert rng(0, "begin").initial_seed() == 1940912075998285148
    assert rng(7, "edit", "guidance", 3).initial_seed() == 7936461133669668995


@pytest.mark.parametrize("names", [("edit", "guidance", 4), ("tune", "guidance", 3), ("edit", "identity", 3), ("edit",)])
def test_other_names_give_other_numbers(names: tuple[str | int, ...]) -> None:
    assert draw(*names) != draw("edit", "guidance", 3)


def test_other_seeds_give_other_numbers() -> None:
    assert draw("edit", seed=1) != draw("edit", seed=0)


def test_drawing_leaves_torchs_own_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    draw("edit")
    assert torch.equal(torch.rand(3), expected)


def test_devices() -> None:
    assert device("cpu") == torch.device("cpu")
    assert device("auto").type in ("cpu", "cuda")
    for name in ("tpu9", "cuda:99", ""):
        with pytest.raises(InputError, match=r"it has: cpu.*--device auto"):
            device(name)
