"""The signed distance to a closed mesh, on a grid: the template's volume, of whatever body mesh the user has.

How far: to the nearest of the triangles whose centroids are nearest (Ericson 2005, section 5.1.5, vectorised). On which
side: how often a line along a grid axis has entered the mesh and not left it (its winding number, so that limbs may run into
one another), by the vote of three axes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from facednerf_core.errors import InputError
from facednerf_eva3d.body import EXTENT

Array = NDArray[np.float64]

CANDIDATES = 32
"""How many triangles are measured for a point. The nearest one is among them unless many small triangles crowd in front of a
large one; the distance is then too large by no more than that of a triangle's corner from its middle."""

PORTION = 2**15


def signed_distances(vertices: Array, faces: NDArray[np.int64], resolution: int = 128) -> NDArray[np.float32]:
    """Distances (X, Y, Z) to a closed mesh, negative inside, at a grid over [-EXTENT, EXTENT]^3, end points included.

    Args:
        vertices: (V, 3), metres.
        faces: (F, 3), counter-clockwise seen from outside.
        resolution: points along each axis.

    Raises:
        InputError: the mesh is open, inside out, or does not fit into the grid.
    """
    vertices = np.asarray(vertices, np.float64)
    faces = np.asarray(faces, np.int64)
    _check(vertices, faces)
    axis = np.linspace(-EXTENT, EXTENT, resolution)
    inside = _inside(vertices[faces], axis)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    distance = unsigned_distances(points, vertices[faces]).reshape(inside.shape)
    return np.where(inside, -distance, distance).astype(np.float32)


def unsigned_distances(points: Array, triangles: Array) -> Array:
    """Distances (P,) of points (P, 3) to the surface of triangles (F, 3, 3)."""
    tree = cKDTree(triangles.mean(axis=1))
    count = min(CANDIDATES, len(triangles))
    found = np.empty(len(points))
    for begin in range(0, len(points), PORTION):
        part = slice(begin, begin + PORTION)
        near = tree.query(points[part], count)[1].reshape(-1, count)
        best = np.full(len(near), np.inf)
        for rank in range(count):
            best = np.minimum(best, _squares(points[part], triangles[near[:, rank]]))
        found[part] = np.sqrt(best)
    return found


def _squares(points: Array, triangles: Array) -> Array:
    """Squared distances (P,) of points (P, 3) to one triangle (P, 3, 3) each."""
    corners = [triangles[:, index] for index in range(3)]
    best = np.full(len(points), np.inf)
    for start, end in ((0, 1), (1, 2), (2, 0)):
        edge, reach = corners[end] - corners[start], points - corners[start]
        length = np.maximum(_dot(edge, edge), 1e-30)
        share = np.clip(_dot(reach, edge) / length, 0, 1)
        apart = reach - share[:, None] * edge
        best = np.minimum(best, _dot(apart, apart))
    first, second, reach = corners[1] - corners[0], corners[2] - corners[0], points - corners[0]
    normal = np.cross(first, second)
    area = np.maximum(_dot(normal, normal), 1e-30)
    along_second = _dot(np.cross(first, reach), normal) / area
    along_first = _dot(np.cross(reach, second), normal) / area
    above = (along_first >= 0) & (along_second >= 0) & (along_first + along_second <= 1)
    height = _dot(reach, normal)
    return np.where(above, np.minimum(best, height**2 / area), best)


def _inside(triangles: Array, axis: Array) -> NDArray[np.bool_]:
    """Whether grid points lie inside, bool (X, Y, Z)."""
    votes = np.zeros((len(axis),) * 3, np.int8)
    for turn in range(3):  # lines along z, then x, then y, the axes taken in turn so that triangles keep their sense
        order = [(turn + 1) % 3, (turn + 2) % 3, turn]
        winding = _winding(triangles[:, :, order], axis)
        votes += (np.moveaxis(winding, (0, 1, 2), order) > 0).astype(np.int8)
    return votes >= 2


def _winding(triangles: Array, axis: Array) -> NDArray[np.int32]:
    """Winding numbers (A, B, C) at grid points, from the crossings of lines along the last axis, which come from below.

    The lines are moved aside by a millionth of a step and a little, so that none runs through a corner.
    """
    step = axis[1] - axis[0]
    aside = np.array([1.1e-6, 1.7e-6]) * step
    flat = triangles[:, :, :2]
    low = np.ceil((flat.min(axis=1) - aside - axis[0]) / step).astype(int).clip(0, None)
    high = np.floor((flat.max(axis=1) - aside - axis[0]) / step).astype(int).clip(None, len(axis) - 1)
    change = np.zeros((len(axis), len(axis), len(axis) + 1), np.int32)
    for triangle, (i0, j0), (i1, j1) in zip(triangles, low, high, strict=True):
        if i1 < i0 or j1 < j0:
            continue
        a, b = np.meshgrid(axis[i0 : i1 + 1] + aside[0], axis[j0 : j1 + 1] + aside[1], indexing="ij")
        (ax, ay, az), (bx, by, bz), (cx, cy, cz) = triangle
        area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
        if area == 0:
            continue
        v = ((a - ax) * (cy - ay) - (cx - ax) * (b - ay)) / area
        w = ((bx - ax) * (b - ay) - (a - ax) * (by - ay)) / area
        crossed = (v >= 0) & (w >= 0) & (v + w <= 1)
        height = az + v * (bz - az) + w * (cz - az)
        index = np.clip(np.ceil((height - axis[0]) / step), 0, len(axis)).astype(int)
        rows, columns = np.nonzero(crossed)
        # facing down (area < 0): the line, coming from below, enters
        np.add.at(change, (i0 + rows, j0 + columns, index[rows, columns]), -1 if area > 0 else 1)
    return change.cumsum(axis=2, dtype=np.int32)[:, :, :-1]


def _check(vertices: Array, faces: NDArray[np.int64]) -> None:
    if vertices.ndim != 2 or vertices.shape[1:] != (3,) or faces.ndim != 2 or faces.shape[1:] != (3,) or not len(faces):
        raise InputError(f"a mesh is vertices (V, 3) and faces (F, 3), not {vertices.shape} and {faces.shape}.")
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise InputError(f"the mesh's faces name vertices up to {faces.max()}, but it has {len(vertices)}.")
    if not np.isfinite(vertices).all() or np.abs(vertices).max() >= EXTENT:
        raise InputError(f"the mesh must lie within {EXTENT} m of the origin along each axis.")
    directed = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    keys = directed @ np.array([len(vertices), 1])
    if not np.array_equal(np.sort(keys), np.sort(directed[:, ::-1] @ np.array([len(vertices), 1]))):
        raise InputError("the mesh is not closed: an edge of a face has no neighbour that runs along it the other way.")
    a, b, c = np.moveaxis(vertices[faces], 1, 0)
    if _dot(a, np.cross(b, c)).sum() <= 0:
        raise InputError("the mesh is inside out: its faces must be counter-clockwise seen from outside.")


def _dot(one: Array, other: Array) -> Array:
    return np.einsum("ij,ij->i", one, other)
