"""How far a generator's rendering is from the world's: colour, edges, contrast, opacity, depth."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from facednerf_eg3d.network import Volume
from torch import Tensor
from torch.nn import functional as F

from facednerf_starter.world.landmarks import LANDMARKS

_SHARP = ("eye", "brow", "mouth", "lip", "nose_tip")
"""Landmarks around which small things matter to a viewer."""


@dataclass(frozen=True)
class Truth:
    """What the world shows of N heads in V views each, at the image's size H and at the ray's size r = H / 2."""

    image: Tensor  # (N, V, 3, H, H) in [-1, 1]
    mask: Tensor  # (N, V, 1, H, H) in [0, 1]
    depth: Tensor  # (N, V, 1, r, r), 0 where nothing is hit
    landmarks: Tensor  # (N, V, K, 2)
    cameras: Tensor  # (N, V, 25)


def attention(truth: Truth) -> Tensor:
    """Weight of every pixel (N, V, 1, H, H): the subject above the background, eyes and mouth above the rest."""
    size = truth.image.shape[-1]
    chosen = [i for i, name in enumerate(LANDMARKS) if any(part in name for part in _SHARP)]
    axis = (torch.arange(size, device=truth.image.device) + 0.5) / size
    points = torch.stack(
        [truth.landmarks[:, :, i] for i in chosen], dim=2
    )  # (N, V, P, 2); a list of indices would be copied
    bell = torch.exp(-((axis - points[..., None]) ** 2) / (2 * 0.035**2))  # (N, V, P, 2, H), separable
    focus = torch.einsum("nvpy,nvpx->nvyx", bell[..., 1, :], bell[..., 0, :]).clamp_max(1.0)
    return 0.4 + 0.8 * truth.mask + 2.0 * focus.unsqueeze(2) * truth.mask


def edges(found: Tensor, wanted: Tensor, weight: Tensor, scales: int = 3) -> Tensor:
    """Weighted absolute difference of the images' horizontal and vertical derivatives, at halved scales."""
    total = found.new_zeros(())
    for _ in range(scales):
        error = found - wanted
        across = (error[..., 1:] - error[..., :-1]).abs() * weight[..., 1:]
        down = (error[..., 1:, :] - error[..., :-1, :]).abs() * weight[..., 1:, :]
        total = total + across.mean() + down.mean()
        found, wanted, weight = (F.avg_pool2d(x, 2) for x in (found, wanted, weight))
    return total / scales


def texture(found: Tensor, wanted: Tensor, weight: Tensor, cell: int = 8) -> Tensor:
    """Weighted absolute difference of the images' contrasts: the root mean square, over cells, of their derivatives.

    It asks for as much detail as there is, wherever exactly: what absolute differences, for which half of it in the wrong
    place is worse than none, smooth away.
    """
    total = found.new_zeros(())
    for axis in (-1, -2):
        size = found.shape[axis] - 1
        contrasts = []
        for image in (found, wanted):
            step = image.narrow(axis, 1, size) - image.narrow(axis, 0, size)
            contrasts.append((F.avg_pool2d(step.square().mean(1, keepdim=True), cell) + 1e-5).sqrt())
        cells = F.avg_pool2d(weight.narrow(axis, 0, size), cell)
        total = total + ((contrasts[0] - contrasts[1]).abs() * cells).mean()
    return total / 2


def likeness(image: Tensor, volume: Volume, truth: Truth) -> dict[str, Tensor]:
    """The terms, each a scalar: weighted L1 of image and raw image, edges, local contrast, alpha, depth (world units)."""
    weight = attention(truth)
    flat_weight, flat_truth = weight.flatten(0, 1), truth.image.flatten(0, 1)
    flat_image, raw = image.flatten(0, 1), volume.raw.flatten(0, 1)
    half_truth, half_weight = F.avg_pool2d(flat_truth, 2), F.avg_pool2d(flat_weight, 2)
    half_mask = F.avg_pool2d(truth.mask.flatten(0, 1), 2)
    solid = ((half_mask > 0.98) & (truth.depth.flatten(0, 1) > 0)).float()
    off = F.smooth_l1_loss(volume.depth.flatten(0, 1), truth.depth.flatten(0, 1), beta=0.02, reduction="none")
    return {
        "image": ((flat_image - flat_truth).abs() * flat_weight).mean(),
        "raw": ((raw - half_truth).abs() * half_weight).mean(),
        "edges": edges(flat_image, flat_truth, flat_weight),
        "texture": texture(flat_image, flat_truth, flat_weight),
        "alpha": (volume.alpha.flatten(0, 1) - half_mask).abs().mean(),
        "depth": (off * solid).sum() / solid.sum().clamp_min(1),
    }


def decibels(found: Tensor, wanted: Tensor, weight: Tensor | None = None) -> float:
    """Peak signal to noise ratio of images (..., 3, H, W) in [-1, 1], where `weight` (..., 1, H, W) counts."""
    error = ((found.clamp(-1, 1) - wanted) / 2).square().mean(-3, keepdim=True)
    mean = error.mean() if weight is None else (error * weight).sum() / weight.sum()
    return float(-10 * mean.log10())
