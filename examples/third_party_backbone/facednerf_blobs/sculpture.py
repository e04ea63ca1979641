"""`python -m facednerf_blobs.sculpture`: writes head.safetensors, nine blobs set by hand and how a latent moves them."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from safetensors.torch import save_file

SKIN, HAIR, DARK, LIPS, CLOTH = (0.85, 0.65, 0.55), (0.3, 0.2, 0.15), (0.15, 0.1, 0.1), (0.7, 0.3, 0.3), (0.3, 0.35, 0.5)
HEAD = (  # centre, radius, colour
    ((0.0, 0.0, 0.05), 0.12, SKIN),
    ((0.0, -0.12, 0.08), 0.08, SKIN),
    ((0.0, 0.15, 0.0), 0.11, HAIR),
    ((-0.07, 0.03, 0.2), 0.02, DARK),
    ((0.07, 0.03, 0.2), 0.02, DARK),
    ((0.0, -0.03, 0.22), 0.03, SKIN),
    ((0.0, -0.11, 0.2), 0.03, LIPS),
    ((0.0, -0.27, 0.0), 0.08, SKIN),
    ((0.0, -0.42, 0.0), 0.14, CLOTH),
)
UNITS = (0.02, 0.02, 0.02, 0.1, 0.6, 0.6, 0.6, 0.1)  # how far one deviation of w moves each number of a blob


def sculpted() -> dict[str, torch.Tensor]:
    """The tensors of `generator.Blobs`: base (L, 8) and basis (L, C, 8)."""
    rows = [
        (*centre, math.log(radius), *(math.log(part / (1 - part)) for part in colour), math.log(60.0))
        for centre, radius, colour in HEAD
    ]
    draws = torch.randn(len(HEAD), 16, 8, generator=torch.Generator().manual_seed(0)) / 4
    return {"base": torch.tensor(rows), "basis": draws * torch.tensor(UNITS)}


if __name__ == "__main__":
    save_file(sculpted(), Path(__file__).with_name("head.safetensors"))
