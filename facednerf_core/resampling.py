"""Pictures at another size, without aliasing and with gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def fitted(height: int, width: int, size: int, multiple: int = 1) -> tuple[int, int]:
    """Height and width of the same shape whose shorter side is `size`, the other a multiple of `multiple` pixels."""
    shorter = min(height, width)

    def side(length: int) -> int:
        return size if length == shorter else max(1, round(length * size / shorter / multiple)) * multiple

    return side(height), side(width)


def resized(image: Tensor, size: Sequence[int]) -> Tensor:
    """Images or maps (B, C, H, W) at another (height, width).

    A triangle filter as wide as the new pixels where pixels are lost; a cubic where they are gained (a linear one leaves
    kinks that feature networks take for content). Size for size it is the identity. A mean over pixels of the result does
    not depend on H and W as long as the content is the same: so a loss weight means the same at every rendering size.
    """
    from torch.nn import functional

    if tuple(image.shape[-2:]) == tuple(size):
        return image
    shrinks = size[0] < image.shape[-2] or size[1] < image.shape[-1]
    mode = "bilinear" if shrinks else "bicubic"
    return functional.interpolate(image, size=list(size), mode=mode, align_corners=False, antialias=shrinks)
