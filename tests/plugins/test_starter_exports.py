"""What a recipe's card says of how its run ended."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from facednerf_starter.train.exports import ending
from facednerf_starter.train.pieces import Piece


@pytest.mark.parametrize(
    ("steps", "done", "said"),
    [
        (4, 4, "all steps done"),
        (None, 4, "the learning rate had not begun to fall"),
        (1000, 700, "closed early at step 700 of 1000: the learning rate was at 100% of its highest"),
        (1000, 850, "at 50% of its highest"),
    ],
)
def test_how_a_run_ended_is_said(steps: int | None, done: int, said: str, tmp_path: Path) -> None:
    network = torch.nn.Linear(1, 1)
    adam = torch.optim.Adam(network.parameters())
    piece = Piece(tmp_path, "tiny", seed=0, steps=steps, networks={"net": network}, optimizers={"adam": adam})
    piece.step = done
    assert said in ending(piece)
    assert ending(piece).startswith("closed early") == (not piece.finished)
