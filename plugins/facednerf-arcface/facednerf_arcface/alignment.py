"""Faces cut out as a recognition network wants them: by five landmarks, or by a fixed box."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from torch.nn import functional

from facednerf_arcface.iresnet import FACE_SIZE, TEMPLATE
from facednerf_core.errors import InputError
from facednerf_core.resampling import resized

if TYPE_CHECKING:
    from torch import Tensor

POOLED_SIZE = 256  # pixels: what pixel2style2pixel averages every picture to, before it cuts the face out


def similarity(source: Tensor, target: Tensor) -> Tensor:
    """The turn, uniform scale and shift (B, 2, 3) that bring points (B, K, 2) closest to points (B, K, 2).

    Least squares, never a mirror image: Umeyama 1991, "Least-squares estimation of transformation parameters between two
    point patterns", Eq. 40 to 43.
    """
    middle, goal = source.mean(1, keepdim=True), target.mean(1, keepdim=True)
    centred, aimed = source - middle, target - goal
    u, stretch, vh = torch.linalg.svd(aimed.mT @ centred / source.shape[1])
    sign = torch.ones_like(stretch)
    sign[:, -1] = torch.sign(torch.linalg.det(u) * torch.linalg.det(vh))
    turn = u @ torch.diag_embed(sign) @ vh
    scale = (stretch * sign).sum(1) / centred.square().sum((1, 2)) * source.shape[1]
    linear = scale.view(-1, 1, 1) * turn
    return torch.cat([linear, goal.mT - linear @ middle.mT], dim=2)


def by_landmarks(landmarks: Tensor, aspect: float = 1.0, fit: Literal["picture", "template"] = "picture") -> Tensor:
    """Where an aligned face lies in pictures whose landmarks (B, K, 2) are given: an affine map (B, 2, 3).

    Args:
        landmarks: x and y in [0, 1] of the picture, beginning with ArcFace's five.
        aspect: width of the picture over its height.
        fit: where the squares of what does not fit are least. "picture": the template's points are brought to the landmarks;
            "template": the landmarks to the template's points, as insightface does. A face that fits well lies alike; of
            one that does not, such as a profile, the second cuts out more.

    Returns:
        From coordinates of the face, -1 to 1 between its edges, to the picture's: what `affine_grid` takes.
    """
    if landmarks.shape[1] < len(TEMPLATE):
        raise ValueError(f"alignment needs ArcFace's {len(TEMPLATE)} landmarks; got {landmarks.shape[1]}")
    # on the CPU: a few numbers, and not every device has float64
    shape = torch.tensor([aspect, 1.0], dtype=torch.float64)
    points = (2 * landmarks[:, : len(TEMPLATE)].cpu().double() - 1) * shape  # in halves of the picture's height
    template = torch.tensor(TEMPLATE, dtype=torch.float64)
    template = 2 * (template + 0.5) / FACE_SIZE - 1  # the template counts from the middle of the first pixel
    template = template.expand(len(points), -1, -1)
    if fit == "picture":
        fitted = similarity(template, points)
    else:
        there = similarity(points, template)
        back = torch.linalg.inv(there[:, :, :2])
        fitted = torch.cat([back, -back @ there[:, :, 2:]], dim=2)
    return (fitted / shape.view(1, 2, 1)).to(landmarks)


def by_box(box: tuple[float, float, float, float], like: Tensor) -> Tensor:
    """The same map (1, 2, 3), of an upright box: left, top, right and bottom as fractions of the picture."""
    left, top, right, bottom = box
    return torch.tensor([[[right - left, 0, left + right - 1], [0, bottom - top, top + bottom - 1]]]).to(like)


def aligned(image: Tensor, place: Tensor, *, antialias: bool = True) -> Tensor:
    """The faces (B, 3, 112, 112) that lie at `place` (B, 2, 3) in images (B, 3, H, W) in [-1, 1]; outside is black.

    The picture is first brought to the size at which its pixels are about as large as the face's, without aliasing; so
    faces are the same at whatever size the picture was drawn, and gradients reach every pixel. Without `antialias` pixels
    are sampled where they are, which for landmarks is insightface's own warp.
    """
    height, width = image.shape[-2:]
    # pixels of the picture per pixel of the face, along the face's height
    spans = place.detach()[:, :, 1] * torch.tensor([width, height], device=place.device)
    ratio = float(spans.norm(dim=1).min()) / FACE_SIZE
    size = (max(1, math.ceil(height / ratio)), max(1, math.ceil(width / ratio)))
    grid = functional.affine_grid(place.to(image), [len(image), 3, FACE_SIZE, FACE_SIZE], align_corners=False)
    lifted = (resized(image, size) if antialias else image) + 1  # black is 0 where nothing is
    return functional.grid_sample(lifted, grid, mode="bilinear", padding_mode="zeros", align_corners=False) - 1


def cropped(image: Tensor, box: tuple[float, float, float, float]) -> Tensor:
    """Faces (B, 3, 112, 112) as pixel2style2pixel's identity loss cuts them out of images (B, 3, H, W).

    The picture is averaged to 256 x 256, the box (left, top, right, bottom as fractions, here to whole pixels of 256) is cut
    out and averaged again, over windows that overlap where the sizes do not divide (Richardson et al. 2021's code, whose
    box is rows 35 to 222 and columns 32 to 219).

    Raises:
        InputError: the box reaches beyond the picture, or holds no pixel.
    """
    left, top, right, bottom = (round(side * POOLED_SIZE) for side in box)
    if not (0 <= left < right <= POOLED_SIZE and 0 <= top < bottom <= POOLED_SIZE):
        raise InputError(f"the box {box} of a crop must lie within the picture, from 0 to 1, and hold a 256th of it.")
    if image.shape[-2:] != (POOLED_SIZE, POOLED_SIZE):
        image = functional.adaptive_avg_pool2d(image, POOLED_SIZE)
    return functional.adaptive_avg_pool2d(image[..., top:bottom, left:right], FACE_SIZE)
