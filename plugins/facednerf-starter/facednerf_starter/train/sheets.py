"""Contact sheets of training results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor


def sheet(path: Path, rows: Sequence[Sequence[Tensor]]) -> None:
    """Writes rows of images, each `(3, H, W)` in [-1, 1] or `(1, H, W)` in [0, 1], side by side as a PNG."""
    lines = [torch.cat([_eight_bit(image) for image in row], dim=2) for row in rows]
    picture = torch.cat(lines, dim=1).permute(1, 2, 0).numpy()
    Image.fromarray(picture).save(path)


def marked(image: Tensor, points: Tensor, *, scale: int = 2) -> Tensor:
    """An image `(3, H, W)` in [-1, 1], enlarged, with dots at `points` (P, 2), 0 and 1 the edges."""
    height, width = image.shape[1] * scale, image.shape[2] * scale
    picture = Image.fromarray(_eight_bit(image).permute(1, 2, 0).numpy()).resize((width, height), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(picture)
    for number, (x, y) in enumerate(points.cpu().tolist()):
        colour = (255, 40, 40) if number < 5 else (40, 220, 40)
        pen.ellipse([x * width - 2, y * height - 2, x * width + 2, y * height + 2], fill=colour)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 127.5 - 1


def _eight_bit(image: Tensor) -> Tensor:
    unit = (image.detach().float().cpu() + 1) / 2 if image.shape[0] == 3 else image.detach().float().cpu().expand(3, -1, -1)
    return (unit.clamp(0, 1) * 255).round().to(torch.uint8)
