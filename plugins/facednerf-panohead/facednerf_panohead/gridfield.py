"""A tri-grid and its decoder as one field of density and colour."""

from __future__ import annotations

import torch
from facednerf_eg3d.volume import Field
from torch import Tensor

from facednerf_panohead.decoder import Decoder
from facednerf_panohead.gridtable import Layout, read, tabulated
from facednerf_panohead.trigrid import GridAxes, mean_features

CACHED = 2**14
"""How many points of a subject a CPU decodes together: few enough for the hidden layer to stay in the cache."""
AT_ONCE = 2**18
"""How many points of a subject a GPU decodes together where no gradient is wanted."""


def field_of(grids: Tensor, decoder: Decoder, axes: GridAxes, box_warp: float) -> Field:
    """A function of points (N, P, 3) to raw density (N, P) and colour features (N, P, C).

    On a CPU it reads a table, elsewhere it samples the grids; both give the same.
    """
    if grids.device.type == "cpu" and grids.dtype in (torch.float32, torch.float64):
        table = tabulated(grids)
        layout = Layout(axes, box_warp, grids.shape[3], grids.shape[-1])
        return lambda points: _joined([decoder(part) for part in read(points, table, layout).split(CACHED, dim=1)])
    return lambda points: sampled(points, grids, decoder, axes, box_warp)


def sampled(points: Tensor, grids: Tensor, decoder: Decoder, axes: GridAxes, box_warp: float) -> tuple[Tensor, Tensor]:
    """The plain way, in portions where no gradient is wanted, so that large images fit into memory."""
    size = points.shape[1] if torch.is_grad_enabled() else AT_ONCE
    return _joined([decoder(mean_features(grids, part, axes, box_warp)) for part in points.split(max(1, size), dim=1)])


def _joined(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.cat([sigma for sigma, _ in parts], dim=1), torch.cat([colours for _, colours in parts], dim=1)
