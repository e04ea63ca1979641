"""Planes and decoder as one field, evaluated on a CPU.

It computes what `triplanes.mean_features` and `Decoder` compute, several times faster, forwards and backwards: features
are read as weighted bags of rows of a table, the hidden layer lives in the cache and is computed again for the derivative,
and the gradient of the table is a bag again, over the points that touch each row. Other devices use the plain way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from facednerf_eg3d.triplanes import PlaneAxes

PORTION = 8192
"""How many points are decoded at a time: few enough for the hidden layer to stay in the cache."""
TINY = 1e-37
SIXTEEN = 16


class Layout(NamedTuple):
    """Where a point's rows are in the table."""

    axes: Sequence[tuple[int, int]]  # of each plane in the table: which world axis is its width, which its height
    box_warp: float
    side: int  # texels per side of a plane, without its margin

    @property
    def stride(self) -> int:
        """Texels per side with the margin: one of zeros before, two after."""
        return self.side + 3

    @property
    def rows(self) -> int:
        """Of the table."""
        return len(self.axes) * self.stride**2


def merged(planes: Tensor, axes: PlaneAxes) -> tuple[Tensor, Sequence[tuple[int, int]]]:
    """Planes (N, 3, C, S, S) as those (N, G, C, S, S) that must be read, and their axes: G is 2 in EG3D, where the third
    plane is the second one's axes the other way round, so that both can be added beforehand."""
    kept: dict[tuple[int, int], Tensor] = {}
    for plane, (across, down) in zip(planes.unbind(1), axes, strict=True):
        if (down, across) in kept:
            kept[down, across] = kept[down, across] + plane.mT
        elif (across, down) in kept:
            kept[across, down] = kept[across, down] + plane
        else:
            kept[across, down] = plane
    return torch.stack(list(kept.values()), dim=1), tuple(kept)


def tabulated(planes: Tensor) -> Tensor:
    """Planes (N, G, C, S, S) as rows of features (N, G * (S + 3)^2, C), with a margin of zeros."""
    return F.pad(planes.permute(0, 1, 3, 4, 2), (0, 0, 1, 2, 1, 2)).flatten(1, 3)


class PlaneField:
    """Planes (N, 3, C, S, S) and the weights of a `Decoder` as a `volume.Field`, whose density can be had alone."""

    def __init__(
        self, planes: Tensor, axes: PlaneAxes, weights: tuple[Tensor, Tensor, Tensor, Tensor], box_warp: float
    ) -> None:
        fewer, places = merged(planes, axes)
        self.table = tabulated(fewer)
        self.weights = weights
        self.layout = Layout(places, box_warp, planes.shape[-1])

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Raw density (N, P) and colour features (N, P, D) at points (N, P, 3), differentiable."""
        return decode(points, self.table, self.weights, self.layout)

    def density(self, points: Tensor) -> Tensor:
        """Raw density (N, P) alone, without gradient."""
        return densities(points, self.table, self.weights, self.layout)


def decode(
    points: Tensor, table: Tensor, weights: tuple[Tensor, Tensor, Tensor, Tensor], layout: Layout
) -> tuple[Tensor, Tensor]:
    """Raw density (N, P) and colour features (N, P, D) at points (N, P, 3), differentiable in every tensor.

    Args:
        points: world coordinates.
        table: from `tabulated`; a point's features are the sum over its planes, divided by three.
        weights: from `Decoder.weights`.
        layout: how points find their rows.
    """
    sigma, colours = _Decode.apply(points, table, *weights, layout)
    return sigma, colours


@torch.no_grad()
def densities(points: Tensor, table: Tensor, weights: tuple[Tensor, Tensor, Tensor, Tensor], layout: Layout) -> Tensor:
    """The raw density (N, P) alone, as `decode` gives it, without gradient."""
    w0, b0, w1, b1 = weights
    subjects, count, _ = points.shape
    corners = _Corners.empty(points, min(PORTION, count), layout)
    log = points.new_empty(min(PORTION, count), w0.shape[0])
    sigma = points.new_empty(subjects * count)
    for subject, part, whole in _portions(subjects, count):
        held = slice(0, part.stop - part.start)
        features = corners[held].features(points[subject, part], table[subject], layout)
        torch.addmv(b1[0], _hidden(features, -w0, -b0, log[held]), -w1[0], out=sigma[whole])
    return sigma.view(subjects, count)


def _hidden(features: Tensor, w0n: Tensor, b0n: Tensor, log: Tensor) -> Tensor:
    """The hidden units' negatives, -h, in the memory of `log`."""
    away = _product(features, w0n, b0n)  # -x
    torch.sigmoid(away, out=log).clamp_(min=TINY).log_()
    return torch.minimum(log, away, out=log)


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
    """Fills the rows that points (P, 3) touch, (P, 4 G), and how much each counts, (P, 4 G): planes, then height, then
    width. The mean over the three planes is part of the weights."""
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


@dataclass(frozen=True)
class _Corners:
    """What points touch."""

    index: Tensor  # (P, 4 G) int32, rows of the table
    weight: Tensor  # (P, 4 G)

    @classmethod
    def empty(cls, points: Tensor, count: int, layout: Layout) -> _Corners:
        """Memory for those of `count` points."""
        columns = 4 * len(layout.axes)
        index = torch.empty(count, columns, dtype=torch.int32, device=points.device)
        return cls(index, points.new_empty(count, columns))

    def __getitem__(self, part: slice) -> _Corners:
        return _Corners(self.index[part], self.weight[part])

    def features(self, points: Tensor, table: Tensor, layout: Layout) -> Tensor:
        """Fills in what points (P, 3) touch, and reads it: (P, C)."""
        _corners(points, layout, self.index, self.weight)
        return F.embedding_bag(self.index, table, mode="sum", per_sample_weights=self.weight)


class _Decode(torch.autograd.Function):
    """The hidden unit h = softplus(x) is computed through s = sigmoid(-x): h = -log s, dh/dx = 1 - s."""

    @staticmethod
    def forward(
        ctx: Any, points: Tensor, table: Tensor, w0: Tensor, b0: Tensor, w1: Tensor, b1: Tensor, layout: Layout
    ) -> tuple[Tensor, Tensor]:
        subjects, count, _ = points.shape
        total = subjects * count
        corners = _Corners.empty(points, min(PORTION, count), layout)
        log = points.new_empty(min(PORTION, count), w0.shape[0])
        sigma = points.new_empty(total)
        colours = points.new_empty(total, w1.shape[0] - 1)
        w0n, b0n, dense, shades = -w0, -b0, -w1[0], -w1[1:]
        for subject, part, whole in _portions(subjects, count):
            held = slice(0, part.stop - part.start)
            features = corners[held].features(points[subject, part], table[subject], layout)
            hidden = _hidden(features, w0n, b0n, log[held])  # -h
            torch.addmv(b1[0], hidden, dense, out=sigma[whole])
            torch.sigmoid(_product(hidden, shades, b1[1:]), out=colours[whole]).mul_(1.002).sub_(0.001)
        ctx.save_for_backward(points, table, w0, b0, w1, colours)
        ctx.layout = layout
        return sigma.view(subjects, count), colours.view(subjects, count, -1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g_sigma: Tensor, g_colours: Tensor) -> tuple[Tensor | None, ...]:
        points, table, w0, b0, w1, colours = ctx.saved_tensors
        layout: Layout = ctx.layout
        of_points, of_table, *of_weights = ctx.needs_input_grad[:6]
        subjects, count, _ = points.shape
        g_sigma, g_colours = g_sigma.reshape(-1), g_colours.reshape(-1, colours.shape[-1])
        corners = _Corners.empty(points, min(PORTION, count), layout)
        firsts = corners.index.new_empty(len(layout.axes), count)
        g_features = points.new_empty(count, w0.shape[1])
        closed = points.new_empty(min(PORTION, count), w0.shape[0])
        slope, g_shades = points.new_empty(2, min(PORTION, count), colours.shape[-1])
        g_points = torch.zeros_like(points) if of_points else None
        g_table = torch.empty_like(table) if of_table else None
        g_w0, g_b0 = torch.zeros_like(w0), w0.new_zeros(w0.shape[0])
        g_w1, g_b1 = torch.zeros_like(w1), w1.new_zeros(w1.shape[0])
        w0n, b0n, w0t, w1t = -w0, -b0, w0.t().contiguous(), w1[1:].t().contiguous()
        for subject, part, whole in _portions(subjects, count):
            held = slice(0, part.stop - part.start)
            features = corners[held].features(points[subject, part], table[subject], layout)
            firsts[:, part] = corners.index[held, ::4].t()
            away = _product(features, w0n, b0n)
            s = torch.sigmoid(away, out=closed[held])
            rest = torch.neg(colours[whole], out=slope[held]).add_(1.001)
            g_s = torch.add(colours[whole], 0.001, out=g_shades[held]).mul_(rest).mul_(g_colours[whole]).mul_(1.0 / 1.002)
            g = _product(g_s, w1t).addr_(g_sigma[whole], w1[0])  # of the hidden unit
            g.addcmul_(g, s, value=-1.0)
            g_features[part] = _product(g, w0t)
            if any(of_weights):
                hidden = torch.maximum(s.clamp_(min=TINY).log_().neg_(), away.neg_(), out=s)
                g_w1[0] += g_sigma[whole] @ hidden
                g_w1[1:].addmm_(g_s.t(), hidden)
                g_b1[0] += g_sigma[whole].sum()
                g_b1[1:] += g_s.sum(0)
                g_w0.addmm_(g.t(), features)
                g_b0 += g.sum(0)
            if g_points is not None:
                g_points[subject, part] = _point_gradient(
                    points[subject, part], table[subject], corners.index[held], g_features[part], layout
                )
            if g_table is not None and part.stop == count:
                _table_gradient(points[subject], firsts, g_features, layout, out=g_table[subject])
        found = (g_w0, g_b0, g_w1, g_b1) if any(of_weights) else (None, None, None, None)
        return g_points, g_table, *found, None


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Rows (P, I) times a weight (O, I), and a bias (O,): (P, O).

    In float32 as a 1 x 1 convolution of sixteen pictures, which PyTorch gives to oneDNN even on one thread: for such thin
    matrices it is twice as fast as the library behind its product of matrices.
    """
    if x.dtype != torch.float32 or len(x) % SIXTEEN or not torch.backends.mkldnn.is_available():
        return F.linear(x, weight, bias)
    pictures = x.view(SIXTEEN, -1, 1, x.shape[1]).permute(0, 3, 1, 2)
    return F.conv2d(pictures, weight[:, :, None, None], bias).permute(0, 2, 3, 1).reshape(len(x), -1)


def _portions(subjects: int, count: int) -> list[tuple[int, slice, slice]]:
    """Subject, its points, and the same points among those of all subjects."""
    return [
        (subject, slice(start, stop), slice(subject * count + start, subject * count + stop))
        for subject in range(subjects)
        for start in range(0, count, PORTION)
        for stop in (min(count, start + PORTION),)
    ]


def _table_gradient(points: Tensor, firsts: Tensor, g_features: Tensor, layout: Layout, *, out: Tensor) -> None:
    """The gradient (rows, C) of the table: for each row, the weighted sum over the points (P, 3) that touch it.

    On each plane, points are sorted by the first of the four rows that they touch, `firsts` (G, P). The four sums are taken
    apart and then moved to where they belong.
    """
    _, part = _spot(points, layout)
    size = layout.stride**2
    for plane, (across, down) in enumerate(layout.axes):
        first, order = firsts[plane].sort()
        starts = F.pad(torch.bincount(first - plane * size, minlength=size).cumsum(0)[:-1], (1, 0)).int()
        right, below = part[across].index_select(0, order), part[down].index_select(0, order).mul_(1.0 / 3.0)
        left, above = 1.0 - right, 1.0 / 3.0 - below
        order = order.int()
        own = out[plane * size : (plane + 1) * size]
        for corner in range(4):
            weights = (right if corner % 2 else left) * (below if corner >= 2 else above)
            found = F.embedding_bag(order, g_features, starts, mode="sum", per_sample_weights=weights)
            offset = (corner % 2) + layout.stride * (corner // 2)
            if corner == 0:
                own.copy_(found)
            else:
                own[offset:] += found[:-offset]


def _point_gradient(points: Tensor, table: Tensor, index: Tensor, g_features: Tensor, layout: Layout) -> Tensor:
    """The gradient (P, 3) of the points, through the weights of the rows that they touch."""
    _, part = _spot(points, layout)
    slope = (F.embedding(index, table) @ g_features[:, :, None]).view(-1, len(layout.axes), 4) / 3.0  # of each weight
    found = torch.zeros_like(part)
    for plane, (across, down) in enumerate(layout.axes):
        near, right, below, far = slope[:, plane].unbind(1)
        found[across] += torch.lerp(right - near, far - below, part[down])
        found[down] += torch.lerp(below - near, far - right, part[across])
    inside = (points.abs() * (2.0 / layout.box_warp) < 1.0 + 1.0 / layout.side).t()
    return (found * inside * (layout.side / layout.box_warp)).t()
