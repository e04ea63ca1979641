"""Planes and decoder as one field, evaluated on a CPU.

It computes what `triplanes.mean_features` and `Decoder` compute, several times faster, forwards and backwards: features
are read as weighted bags of rows of a table, the hidden layer lives in the cache, and the gradient of the table is a bag
again, over the points that touch each row. Other devices use the plain way.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from facednerf_eg3d.triplanes import PlaneAxes

PORTION = 8192
"""How many points are decoded at a time: few enough for the hidden layer to stay in the cache."""
TINY = 1e-37


class Layout(NamedTuple):
    """Where a point's rows are in the table."""

    axes: PlaneAxes
    box_warp: float
    side: int  # texels per side of a plane, without its margin

    @property
    def stride(self) -> int:
        """Texels per side with the margin: one of zeros before, two after."""
        return self.side + 3


def tabulated(planes: Tensor) -> Tensor:
    """Planes (N, 3, C, S, S) as rows of features (N, 3 * (S + 3)^2, C), with a margin of zeros."""
    return F.pad(planes, (1, 2, 1, 2)).permute(0, 1, 3, 4, 2).flatten(1, 3)


def decode(
    points: Tensor, table: Tensor, weights: tuple[Tensor, Tensor, Tensor, Tensor], layout: Layout
) -> tuple[Tensor, Tensor]:
    """Raw density (N, P) and colour features (N, P, D) at points (N, P, 3), differentiable in every tensor.

    Args:
        points: world coordinates.
        table: from `tabulated`.
        weights: from `Decoder.weights`.
        layout: how points find their rows.
    """
    sigma, colours = _Decode.apply(points, table, *weights, layout)
    return sigma, colours


class _Spot(NamedTuple):
    """Where points (P, 3) are on the grid along each world axis, margin included, each (3, P)."""

    cell: Tensor  # int32
    part: Tensor  # of the way to the next texel, [0, 1]


def _spot(points: Tensor, layout: Layout) -> _Spot:
    place = points.t() * (layout.side / layout.box_warp) + (0.5 * layout.side + 0.5)
    place = place.clamp_(0.0, layout.side + 1.0)
    cell = place.floor()
    return _Spot(cell.int(), place.sub_(cell))


def _corners(points: Tensor, layout: Layout, index: Tensor, weight: Tensor) -> None:
    """Fills the rows that points (P, 3) touch, (P, 12), and how much each counts, (P, 12): planes, then height, then
    width. The mean over the planes is part of the weights."""
    cell, part = _spot(points, layout)
    rest = 1.0 - part
    third, third_rest = part * (1.0 / 3.0), rest * (1.0 / 3.0)
    for plane, (across, down) in enumerate(layout.axes):
        base = torch.add(cell[across], cell[down], alpha=layout.stride).add_(plane * layout.stride**2)
        for corner in range(4):
            column = 4 * plane + corner
            torch.add(base, (corner % 2) + layout.stride * (corner // 2), out=index[:, column])
            torch.mul(
                (part if corner % 2 else rest)[across], (third if corner >= 2 else third_rest)[down], out=weight[:, column]
            )


def _bag(table: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """Weighted sums of rows: (P, C)."""
    return F.embedding_bag(index, table, mode="sum", per_sample_weights=weight)


class _Decode(torch.autograd.Function):
    """The hidden unit h = softplus(x) is kept as s = sigmoid(-x): h = -log s, dh/dx = 1 - s."""

    @staticmethod
    def forward(
        ctx: Any, points: Tensor, table: Tensor, w0: Tensor, b0: Tensor, w1: Tensor, b1: Tensor, layout: Layout
    ) -> tuple[Tensor, Tensor]:
        subjects, count, _ = points.shape
        keep = any(ctx.needs_input_grad)
        total = subjects * count
        rows = total if keep else PORTION
        index = torch.empty(rows, 12, dtype=torch.int32)
        weight = points.new_empty(rows, 12)
        closed = points.new_empty(rows, w0.shape[0])  # s
        sigma = points.new_empty(total)
        colours = points.new_empty(total, w1.shape[0] - 1)
        w0n, b0n, dense, shades = -w0.t(), -b0, -w1[0], -w1[1:].t()
        for subject, part, whole in _portions(subjects, count):
            held = whole if keep else slice(0, whole.stop - whole.start)
            _corners(points[subject, part], layout, index[held], weight[held])
            features = _bag(table[subject], index[held], weight[held])
            away = torch.addmm(b0n, features, w0n)  # -x
            log = torch.sigmoid(away, out=closed[held]).clamp(min=TINY).log_()
            torch.minimum(log, away, out=log)
            torch.addmv(b1[0], log, dense, out=sigma[whole])
            torch.addmm(b1[1:], log, shades, out=colours[whole]).sigmoid_().mul_(1.002).sub_(0.001)
        if keep:
            ctx.save_for_backward(points, table, w0, w1, index, weight, closed, colours)
            ctx.layout = layout
        return sigma.view(subjects, count), colours.view(subjects, count, -1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g_sigma: Tensor, g_colours: Tensor) -> tuple[Tensor | None, ...]:
        points, table, w0, w1, index, weight, closed, colours = ctx.saved_tensors
        of_points, of_table, *of_weights = ctx.needs_input_grad[:6]
        subjects, count, _ = points.shape
        g_sigma, g_colours = g_sigma.reshape(-1), g_colours.reshape(-1, colours.shape[-1])
        g_features = points.new_empty(subjects * count, w0.shape[1])
        g_points = torch.zeros_like(points) if of_points else None
        g_w0, g_b0 = torch.zeros_like(w0), w0.new_zeros(w0.shape[0])
        g_w1, g_b1 = torch.zeros_like(w1), w1.new_zeros(w1.shape[0])
        for subject, part, whole in _portions(subjects, count):
            slope = (colours[whole] + 0.001).mul_(1.001 - colours[whole])
            g_shades = slope.mul_(g_colours[whole]).mul_(1.0 / 1.002)
            g_hidden = (g_shades @ w1[1:]).addr_(g_sigma[whole], w1[0])
            g_x = torch.addcmul(g_hidden, g_hidden, closed[whole], value=-1.0)
            torch.mm(g_x, w0, out=g_features[whole])
            if any(of_weights):
                hidden = closed[whole].clamp(min=TINY).log_().neg_()
                features = _bag(table[subject], index[whole], weight[whole])
                g_w1[0] += g_sigma[whole] @ hidden
                g_w1[1:].addmm_(g_shades.t(), hidden)
                g_b1[0] += g_sigma[whole].sum()
                g_b1[1:] += g_shades.sum(0)
                g_w0.addmm_(g_x.t(), features)
                g_b0 += g_x.sum(0)
            if g_points is not None:
                g_points[subject, part] = _point_gradient(
                    points[subject, part], table[subject], index[whole], g_features[whole], ctx.layout
                )
        g_table = None
        if of_table:
            g_table = torch.stack(
                [
                    _table_gradient(index[one], weight[one], g_features[one], ctx.layout)
                    for one in (slice(s * count, (s + 1) * count) for s in range(subjects))
                ]
            )
        found = (g_w0, g_b0, g_w1, g_b1) if any(of_weights) else (None, None, None, None)
        return g_points, g_table, *found, None


def _portions(subjects: int, count: int) -> list[tuple[int, slice, slice]]:
    """Subject, its points, and the same points among those of all subjects."""
    return [
        (subject, slice(start, stop), slice(subject * count + start, subject * count + stop))
        for subject in range(subjects)
        for start in range(0, count, PORTION)
        for stop in (min(count, start + PORTION),)
    ]


def _table_gradient(index: Tensor, weight: Tensor, g_features: Tensor, layout: Layout) -> Tensor:
    """The gradient (rows, C) of the table: for each row, the weighted sum over the points that touch it.

    Points are sorted by the first of the four rows that they touch on each plane. The four sums are taken apart and then
    moved to where they belong.
    """
    rows = 3 * layout.stride**2
    first, order = index[:, ::4].flatten().sort()
    starts = F.pad(torch.bincount(first, minlength=rows).cumsum(0)[:-1], (1, 0))
    points = order // 3
    weights = weight.view(-1, 4).index_select(0, order).t().contiguous()  # (4, 3P)

    def summed(corner: int) -> Tensor:
        return F.embedding_bag(points, g_features, starts, mode="sum", per_sample_weights=weights[corner])

    found = summed(0)
    for corner in range(1, 4):
        offset = (corner % 2) + layout.stride * (corner // 2)
        found[offset:] += summed(corner)[:-offset]
    return found


def _point_gradient(points: Tensor, table: Tensor, index: Tensor, g_features: Tensor, layout: Layout) -> Tensor:
    """The gradient (P, 3) of the points, through the weights of the rows that they touch."""
    _, part = _spot(points, layout)
    slope = (F.embedding(index, table) @ g_features[:, :, None]).view(-1, 3, 4) / 3.0  # of each weight
    found = torch.zeros_like(part)
    for plane, (across, down) in enumerate(layout.axes):
        near, right, below, far = slope[:, plane].unbind(1)
        found[across] += torch.lerp(right - near, far - below, part[down])
        found[down] += torch.lerp(below - near, far - right, part[across])
    inside = (points.abs() * (2.0 / layout.box_warp) < 1.0 + 1.0 / layout.side).t()
    return (found * inside * (layout.side / layout.box_warp)).t()
