"""Square crops of pictures, drawn at random and equal for all pictures of a view.

A network that sees one fixed crop is easily pleased by patterns that nobody would call a beard; what pleases it in several
crops, mirrored and noisy, is mostly seen by us too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from facednerf_core.resampling import fitted, resized

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Crops:
    """K crops of each of V views: numbers of the draw, on the CPU in float32."""

    side: Tensor  # (V, K) share of the picture's shorter side
    place: Tensor  # (V, K, 2) x and y from 0, the left or upper end, to 1
    mirrored: Tensor  # (V, K) 1 or -1
    noise: Tensor  # (V, K, 3, S, S)

    @classmethod
    def draw(
        cls,
        views: int,
        count: int,
        size: int,
        rng: torch.Generator,
        *,
        smallest: float = 1.0,
        mirror: bool = False,
        noise: float = 0.0,
    ) -> Crops:
        """`count` crops of each view; `size` is S, their height and width in pixels."""
        number = torch.rand((views, count, 4), generator=rng)
        return cls(
            smallest + (1 - smallest) * number[..., 0],
            number[..., 1:3],
            torch.where(number[..., 3] < 0.5, -1.0, 1.0) if mirror else torch.ones(views, count),
            noise * torch.randn((views, count, 3, size, size), generator=rng),
        )

    def of(self, image: Tensor) -> Tensor:
        """The crops (N, V, K, 3, S, S) of images (N, V, 3, H, W): brought to about S first, without aliasing."""
        subjects, views, channels, height, width = image.shape
        count, size = self.noise.shape[1], self.noise.shape[-1]
        whole = resized(image.flatten(0, 1), fitted(height, width, size))
        maps = self._maps(*whole.shape[-2:]).to(whole)  # (V, K, 2, 3)
        grid = functional.affine_grid(maps.flatten(0, 1), [views * count, channels, size, size], align_corners=False)
        grid = grid.unflatten(0, (views, count)).repeat(subjects, 1, 1, 1, 1)  # (N V, K, S, S, 2)
        found = functional.grid_sample(whole, grid.flatten(1, 2), padding_mode="border", align_corners=False)
        found = found.unflatten(2, (count, size)).unflatten(0, (subjects, views)).movedim(3, 2)  # (N, V, K, 3, S, S)
        return found + self.noise.to(found)

    def _maps(self, height: int, width: int) -> Tensor:
        """From a crop's coordinates to the picture's, both -1 to 1, (V, K, 2, 3)."""
        shorter = min(height, width)
        span = self.side[..., None] * torch.tensor([shorter / width, shorter / height])  # (V, K, 2) of the whole
        middle = (2 * self.place - 1) * (1 - span)
        maps = torch.zeros(*self.side.shape, 2, 3)
        maps[..., 0, 0], maps[..., 1, 1] = span[..., 0] * self.mirrored, span[..., 1]
        maps[..., 2] = middle
        return maps
