"""A synthetic body of our own, made of round bones blended into one another: no scan, no licence, SMPL's skeleton.

It stands where the canonical boxes want a body to stand. What it lacks is a face, fingers, and likeness to anybody; it
carries a generator for tests, examples and generators that were trained on it.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from facednerf_eva3d.body import EXTENT, JOINTS, SHAPES, LinearBody

Array = NDArray[np.float64]

PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
"""SMPL's tree of joints."""

_MIDDLE = {0: (-0.22, 0.01), 3: (-0.11, 0.0), 6: (0.03, 0.01), 9: (0.09, 0.02), 12: (0.28, 0.0), 15: (0.36, 0.03)}  # y, z
_LEFT = {
    1: (0.07, -0.31, 0.01),
    4: (0.10, -0.69, 0.01),
    7: (0.09, -1.09, -0.03),
    10: (0.115, -1.15, 0.09),
    13: (0.08, 0.19, 0.0),
    16: (0.17, 0.22, -0.01),
    18: (0.43, 0.215, -0.03),
    20: (0.68, 0.22, -0.03),
    22: (0.76, 0.215, -0.035),
}
_TIPS = {10: (0.115, -1.16, 0.14), 15: (0.0, 0.53, 0.03), 22: (0.85, 0.21, -0.035)}
_AHEAD = {0: 3, 3: 6, 6: 9, 9: 12, 12: 15}  # the child that a bone of the trunk runs to


class Bone(NamedTuple):
    """A round cone: from one ball to another."""

    start: tuple[float, float, float]
    end: tuple[float, float, float]
    radius: float  # at the start, metres
    radius_end: float


def joints() -> Array:
    """The joints (24, 3) in the canonical pose, metres."""
    found = np.zeros((JOINTS, 3))
    for joint, (y, z) in _MIDDLE.items():
        found[joint] = (0, y, z)
    for joint, place in _LEFT.items():
        found[joint] = place
        found[joint + 1] = np.array(place) * (-1, 1, 1)
    return found


@cache
def synthetic_body(resolution: int = 128) -> LinearBody:
    """The body, float32, on the CPU: some 5,000 vertices on the surface, and its distances on a grid.

    Args:
        resolution: points of the grid along each axis, and so the density of vertices.
    """
    from skimage.measure import marching_cubes

    volume = _volume(resolution)
    vertices, _, _, _ = marching_cubes(volume, 0.0, spacing=(2 * EXTENT / (resolution - 1),) * 3)
    template = vertices.astype(np.float64) - EXTENT
    arrays = {
        "template": template,
        "shapedirs": _shapes(template),
        "posedirs": np.zeros((9 * (JOINTS - 1), 3 * len(template))),
        "joint_regressor": _regressor(template),
        "weights": _weights(template),
        "template_sdf": volume,
    }
    tensors = {name: torch.from_numpy(value.astype(np.float32)) for name, value in arrays.items()}
    return LinearBody(parents=torch.tensor(PARENTS), **tensors)


def distances(points: Array) -> Array:
    """Signed distances (P,) of points (P, 3) to the body's surface, metres; where bones blend, a little less than true."""
    total = np.full(len(points), np.inf)
    for bone, blend in _flesh():
        total = _blended(total, _to_bone(points, bone), blend)
    return total


def _flesh() -> list[tuple[Bone, float]]:
    """What the body is made of, and over how many metres each piece is blended into those before it."""
    middle = [
        (Bone((0.0, -0.24, 0.005), (0.0, -0.16, 0.0), 0.10, 0.105), 0.05),  # pelvis
        (Bone((0.0, -0.12, 0.005), (0.0, 0.10, 0.015), 0.105, 0.10), 0.05),  # waist
        (Bone((0.0, 0.22, -0.01), (0.0, 0.33, 0.01), 0.055, 0.05), 0.05),  # neck
        (Bone((0.0, 0.40, 0.05), (0.0, 0.50, 0.025), 0.075, 0.095), 0.03),  # head
    ]
    side = [
        (Bone((0.06, -0.27, 0.0), (0.085, -0.31, 0.0), 0.09, 0.085), 0.05),  # hip
        (Bone((0.07, 0.10, 0.01), (0.10, 0.20, -0.005), 0.085, 0.07), 0.05),  # chest
        (Bone((0.085, -0.33, 0.01), (0.10, -0.69, 0.01), 0.085, 0.055), 0.04),  # thigh
        (Bone((0.10, -0.69, 0.01), (0.09, -1.09, -0.03), 0.055, 0.038), 0.03),  # shin
        (Bone((0.095, -1.13, -0.035), (0.115, -1.16, 0.13), 0.04, 0.03), 0.03),  # foot
        (Bone((0.16, 0.215, -0.01), (0.43, 0.215, -0.03), 0.058, 0.042), 0.05),  # upper arm
        (Bone((0.43, 0.215, -0.03), (0.68, 0.22, -0.03), 0.042, 0.030), 0.02),  # forearm
        (Bone((0.70, 0.22, -0.03), (0.82, 0.213, -0.035), 0.034, 0.026), 0.03),  # hand
    ]
    mirrored = [(bone._replace(start=_mirror(bone.start), end=_mirror(bone.end)), blend) for bone, blend in side]
    return middle + side + mirrored


def _mirror(place: tuple[float, float, float]) -> tuple[float, float, float]:
    return -place[0], place[1], place[2]


def _to_bone(points: Array, bone: Bone) -> Array:
    start, end = np.array(bone.start), np.array(bone.end)
    share = np.clip((points - start) @ (end - start) / np.square(end - start).sum(), 0, 1)
    away = np.linalg.norm(points - start - share[:, None] * (end - start), axis=1)
    return away - (bone.radius + share * (bone.radius_end - bone.radius))


def _blended(one: Array, other: Array, width: float) -> Array:
    """The lesser of two distances, rounded off where they differ by less than `width` (a quadratic smooth minimum)."""
    with np.errstate(invalid="ignore"):
        near = np.maximum(width - np.abs(one - other), 0) / width
    near = np.where(np.isfinite(one), near, 0)
    return np.minimum(one, other) - np.square(near) * width / 4


def _volume(resolution: int) -> Array:
    axis = np.linspace(-EXTENT, EXTENT, resolution)
    slabs = []
    for x in axis:  # one slab at a time keeps the memory small
        y, z = np.meshgrid(axis, axis, indexing="ij")
        slabs.append(distances(np.stack([np.full_like(y, x), y, z], axis=-1).reshape(-1, 3)).reshape(y.shape))
    return np.stack(slabs)


def _weights(template: Array) -> Array:
    """Who follows whom: softly, by the squared distance to each joint's bone."""
    places = joints()
    squares = []
    for joint in range(JOINTS):
        children = [child for child in range(JOINTS) if PARENTS[child] == joint]
        mirrored = joint - 1 if joint - 1 in _TIPS and joint not in _TIPS else None
        if joint in _TIPS:
            end = np.array(_TIPS[joint])
        elif mirrored is not None and not children:
            end = np.array(_mirror(_TIPS[mirrored]))
        else:
            end = places[_AHEAD.get(joint, children[0])]
        start = places[joint]
        share = np.clip((template - start) @ (end - start) / np.square(end - start).sum(), 0, 1)
        squares.append(np.square(template - start - share[:, None] * (end - start)).sum(axis=1))
    closeness = -np.stack(squares, axis=1) / (2 * 0.035**2)
    weights = np.exp(closeness - closeness.max(axis=1, keepdims=True))
    weights[weights < 1e-3] = 0
    return weights / weights.sum(axis=1, keepdims=True)


def _regressor(template: Array, near: int = 200) -> Array:
    """How joints follow from vertices: the evenest weights of those nearby that give the joint exactly."""
    found = np.zeros((JOINTS, len(template)))
    for joint, place in enumerate(joints()):
        chosen = np.argsort(np.square(template - place).sum(axis=1))[:near]
        equations = np.concatenate([template[chosen].T, np.ones((1, len(chosen)))])
        even = np.full(len(chosen), 1 / len(chosen))
        correction = np.linalg.lstsq(equations, np.append(place, 1.0) - equations @ even, rcond=None)[0]
        found[joint, chosen] = even + correction
    return found


def _shapes(template: Array) -> Array:
    """Ten ways to differ, (V, 3, 10); one unit is a clear difference of a few centimetres."""
    x, y, z = template.T
    legs, arms = np.clip(-0.31 - y, 0, None), np.sign(x) * np.clip(np.abs(x) - 0.17, 0, None)
    trunk = np.clip(y, -0.31, 0.3) + 0.31
    head = 1 / (1 + np.exp(-(y - 0.3) / 0.02))
    none = np.zeros_like(x)

    def bump(height: float, width: float) -> Array:
        return np.asarray(np.exp(-np.square((y - height) / width)))

    ways = [
        (0.04 * x, 0.04 * y, 0.04 * z),  # size
        (0.08 * x * (np.abs(x) < 0.3), none, 0.12 * z),  # girth
        (none, -0.05 * legs, none),  # length of the legs
        (0.05 * arms, none, none),  # length of the arms
        (none, 0.05 * trunk, none),  # length of the trunk
        (0.06 * x * head, 0.06 * (y - 0.36) * head, 0.06 * z * head),  # the head's size
        (0.06 * np.clip(x, -0.25, 0.25) * bump(0.2, 0.12), none, none),  # width of the shoulders
        (0.08 * x * bump(-0.24, 0.1), none, 0.06 * z * bump(-0.24, 0.1)),  # width of the hips
        (none, none, 0.25 * np.clip(z, 0, None) * bump(-0.05, 0.1)),  # belly
        (none, none, 0.2 * np.clip(z, 0, None) * bump(0.13, 0.07)),  # chest
    ]
    assert len(ways) == SHAPES
    return np.stack([np.stack(way, axis=1) for way in ways], axis=2)
