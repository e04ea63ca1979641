"""How far a rendering is from the world's: what each term of the generator's training asks for."""

from __future__ import annotations

import torch
from facednerf_starter.train.likeness import edges, texture
from torch import Tensor
from torch.nn import functional as F

SIZE = 64


def _strands(shift: int = 0) -> Tensor:
    """Light and dark stripes (1, 3, H, W), four pixels wide."""
    at = (torch.arange(SIZE) + shift).float()
    return (0.5 * (at * torch.pi / 4).sin()).expand(1, 3, SIZE, SIZE).contiguous()


def test_contrast_wants_as_much_detail_wherever_exactly() -> None:
    weight = torch.ones(1, 1, SIZE, SIZE)
    truth, smooth, beside = _strands(), torch.zeros(1, 3, SIZE, SIZE), _strands(4)
    assert texture(truth, truth, weight) == 0
    assert texture(beside, truth, weight) < 0.05 * texture(smooth, truth, weight)
    assert edges(beside, truth, weight) > 1.5 * edges(smooth, truth, weight)  # which would rather have none


def test_contrast_counts_where_the_weight_does_and_in_both_directions() -> None:
    truth, smooth = _strands(), torch.zeros(1, 3, SIZE, SIZE)
    left = F.pad(torch.ones(1, 1, SIZE, SIZE // 2), (0, SIZE // 2))
    half = torch.where(left > 0, truth, smooth)
    assert texture(half, truth, left) < 0.1 * texture(half, truth, 1 - left)
    upright = texture(smooth, truth, torch.ones_like(left))
    assert torch.isclose(upright, texture(smooth, truth.mT, torch.ones_like(left)), rtol=0.05)


def test_contrast_has_a_gradient_where_all_is_flat() -> None:
    flat = torch.zeros(1, 3, SIZE, SIZE, requires_grad=True)
    texture(flat, _strands(), torch.ones(1, 1, SIZE, SIZE)).backward()
    assert flat.grad is not None
    assert flat.grad.isfinite().all()
