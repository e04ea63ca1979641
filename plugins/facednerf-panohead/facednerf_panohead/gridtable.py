"""Tri-grids as a table of rows, read on a CPU.

It computes what `trigrid.mean_features` computes, several times faster, forwards and backwards: a point's features are a
weighted bag of the 24 rows around it, and the gradient of the table is a bag again, over the points that touch each row.
Other devices use the plain way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from facednerf_panohead.trigrid import GridAxes

PORTION = 8192
"""How many points are read at a time: few enough for their rows' numbers to stay in the cache."""


Corner = tuple[int, int, int]
"""Of a cell: steps of 0 or 1 along depth, height and width."""


class Layout(NamedTuple):
    """Where a point's rows are in the table."""

    axes: GridAxes
    box_warp: float
    depth: int  # D, slices of a grid
    side: int  # texels per side of a slice

    @property
    def rows(self) -> int:
        """Of one grid."""
        return self.depth * self.side**2

    @property
    def corners(self) -> list[Corner]:
        """Of the cell around a point."""
        return [(back, down, right) for back in range(min(2, self.depth)) for down in (0, 1) for right in (0, 1)]

    def offset(self, corner: Corner) -> int:
        """How many rows after the cell's first row a corner's row comes."""
        back, down, right = corner
        return (back * self.side + down) * self.side + right


def tabulated(grids: Tensor) -> Tensor:
    """Grids (N, 3, C, D, S, S) as rows of features (N, 3 * D * S * S, C)."""
    return grids.permute(0, 1, 3, 4, 5, 2).flatten(1, 4)


def read(points: Tensor, table: Tensor, layout: Layout) -> Tensor:
    """The mean features (N, P, C) of points (N, P, 3), differentiable in both.

    Args:
        points: world coordinates.
        table: from `tabulated`; grids with at least two texels per side.
        layout: how points find their rows.
    """
    found: Tensor = _Read.apply(points, table, layout)
    return found


class _Place(NamedTuple):
    """Where points are along each world axis, counted in samples of one direction of a grid."""

    cell: Tensor  # (3, P), int32: the nearer of the two samples that may count
    near: Tensor  # (3, P), signed distance from that sample, in samples

    @classmethod
    def of(cls, points: Tensor, box_warp: float, samples: int) -> _Place:
        where = points.t() * (samples / box_warp) + 0.5 * (samples - 1)
        cell = where.floor().clamp_(0, max(samples - 2, 0))
        return cls(cell.int(), where.sub_(cell))

    def weights(self) -> list[Tensor]:
        """How much the first and the second sample count, each (3, P): tents, which are zero beyond the grid."""
        return [(1.0 - (self.near - step).abs_()).clamp_(min=0.0) for step in (0, 1)]

    def slopes(self) -> list[Tensor]:
        """The derivatives of those weights, per sample."""
        away = [self.near - step for step in (0, 1)]
        return [-value.sign() * (value.abs() < 1.0) for value in away]


class _Cells:
    """The cells of the grids that points (P, 3) are in."""

    def __init__(self, points: Tensor, layout: Layout) -> None:
        self.layout = layout
        self.across = _Place.of(points, layout.box_warp, layout.side)
        self.along = _Place.of(points, layout.box_warp, layout.depth)
        self.wide = self.across.weights()
        self.deep = self.along.weights()

    def first(self, grid: int) -> Tensor:
        """The first row of each point's cell, (P,), counted from the grid's own first row."""
        x, y, z = self.layout.axes[grid]
        base = torch.add(self.across.cell[y], self.along.cell[z], alpha=self.layout.side)
        return torch.add(self.across.cell[x], base, alpha=self.layout.side)

    def weights(self, grid: int) -> Iterator[tuple[Corner, Tensor]]:
        """How much each corner of its cell counts for each point, (P,); the mean over the grids is part of it."""
        x, y, z = self.layout.axes[grid]
        tilted = {(back, down): self.deep[back][z] * self.wide[down][y] * (1.0 / 3.0) for back in (0, 1) for down in (0, 1)}
        for corner in self.layout.corners:
            yield corner, tilted[corner[:2]] * self.wide[corner[2]][x]

    def bags(self) -> tuple[Tensor, Tensor]:
        """The rows that points touch in the whole table and how much each counts, both (P, 3 * corners)."""
        count = self.across.near.shape[1]
        index = torch.empty(count, 3 * len(self.layout.corners), dtype=torch.int32)
        weight = self.across.near.new_empty(index.shape)
        column = 0
        for grid in range(3):
            base = self.first(grid) + grid * self.layout.rows
            for corner, share in self.weights(grid):
                torch.add(base, self.layout.offset(corner), out=index[:, column])
                weight[:, column] = share
                column += 1
        return index, weight


class _Read(torch.autograd.Function):
    """The bag of rows around each point; the rows are found again for the derivative, rather than kept."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, table: Tensor, layout: Layout) -> Tensor:
        features = table.new_empty(*points.shape[:2], table.shape[2])
        for subject, part in _portions(points):
            index, weight = _Cells(points[subject, part], layout).bags()
            features[subject, part] = F.embedding_bag(index, table[subject], mode="sum", per_sample_weights=weight)
        ctx.save_for_backward(points, table)
        ctx.layout = layout
        return features

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        points, table = ctx.saved_tensors
        of_points, of_table, _ = ctx.needs_input_grad
        gradient = gradient.contiguous()
        g_points = g_table = None
        if of_table:
            g_table = torch.zeros_like(table)
            for subject in range(len(points)):
                _add_table_gradient(g_table[subject], points[subject], gradient[subject], ctx.layout)
        if of_points:
            g_points = torch.empty_like(points)
            for subject, part in _portions(points):
                where = (subject, part)
                g_points[where] = _point_gradient(points[where], table[subject], gradient[where], ctx.layout)
        return g_points, g_table, None


def _portions(points: Tensor) -> list[tuple[int, slice]]:
    subjects, count, _ = points.shape
    return [(subject, slice(start, start + PORTION)) for subject in range(subjects) for start in range(0, count, PORTION)]


def _add_table_gradient(found: Tensor, points: Tensor, gradient: Tensor, layout: Layout) -> None:
    """Adds to `found` (3 * rows, C), for each row, the weighted sum of gradients (P, C) over the points that touch it.

    Points are sorted by their cell in each grid. The sums over each corner of the cells are taken apart and then moved
    to where they belong.
    """
    cells = _Cells(points, layout)
    for grid, rows in enumerate(found.view(3, layout.rows, -1)):
        first, order = cells.first(grid).sort()
        starts = F.pad(torch.bincount(first, minlength=layout.rows).cumsum(0)[:-1], (1, 0))
        for corner, weight in cells.weights(grid):
            offset = layout.offset(corner)
            share = weight.index_select(0, order)
            summed = F.embedding_bag(order, gradient, starts, mode="sum", per_sample_weights=share)
            rows[offset:] += summed[: layout.rows - offset]


def _point_gradient(points: Tensor, table: Tensor, gradient: Tensor, layout: Layout) -> Tensor:
    """The gradient (P, 3) of points (P, 3), through the weights of the rows that they touch."""
    cells = _Cells(points, layout)
    index, _ = cells.bags()
    pull = (F.embedding(index, table) @ gradient[:, :, None]).squeeze(2) / (3.0 * layout.box_warp)  # of each weight
    wide, deep = cells.wide, cells.deep
    wide_slope, deep_slope = ([layout.side * slope for slope in cells.across.slopes()], cells.along.slopes())
    found = torch.zeros_like(points.t())
    column = 0
    for x, y, z in layout.axes:
        for back, down, right in layout.corners:
            force = pull[:, column]
            found[x] += force * wide_slope[right][x] * wide[down][y] * deep[back][z]
            found[y] += force * wide[right][x] * wide_slope[down][y] * deep[back][z]
            found[z] += force * wide[right][x] * wide[down][y] * deep_slope[back][z] * layout.depth
            column += 1
    return found.t()
