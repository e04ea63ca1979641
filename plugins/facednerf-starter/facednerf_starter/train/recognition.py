"""How people are told apart in a batch of embeddings: the contrast by which that is learned, and its measure."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

TEMPERATURE = 0.08
"""By which the similarities of people are divided before they compete."""


def confusion(known: Tensor, people: Tensor) -> Tensor:
    """How hard each picture's other is to find among a batch (2P, D) of unit vectors (Chen et al. 2020, NT-Xent).

    Row i and row i + P show one person. `people` (2P,) are numbers: whoever else shows the same person does not compete.
    """
    count = len(known) // 2
    row = torch.arange(2 * count, device=known.device)
    other = row.roll(count)
    similar = (known @ known.T) / TEMPERATURE
    same = people[:, None] == people[None, :]
    rivals = ~same | (other[:, None] == row[None, :])
    return F.cross_entropy(similar.masked_fill(~rivals, float("-inf")), other)


def told_apart(similar: list[Tensor]) -> dict[str, float]:
    """Of matrices of similarity (P, P) of the same P people: true positives at 1 % false ones, and the means."""
    off = ~torch.eye(len(similar[0]), dtype=torch.bool, device=similar[0].device)
    same = torch.cat([matrix.diagonal() for matrix in similar])
    different = torch.cat([matrix[off] for matrix in similar])
    threshold = different.sort().values[int(0.99 * (len(different) - 1))]
    return {
        "true_positives_at_1_percent_false": round(float((same > threshold).float().mean()), 4),
        "threshold": round(float(threshold), 4),
        "similarity_same": round(float(same.mean()), 4),
        "similarity_different": round(float(different.mean()), 4),
    }
