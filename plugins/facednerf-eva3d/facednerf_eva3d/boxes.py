"""Where a ray meets the parts of a posed body: a box for each, spanned by its joints and carried by one of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from facednerf_eva3d.parts import Part
from facednerf_eva3d.stance import Stance

TORSO_AND_HEAD = (3, 6, 12, 15)
LEGS = (4, 5, 7, 8)
FEET = (10, 11)

EXTENSIONS: dict[int, tuple[int, int, float]] = {
    15: (1, 1, 0.25),  # above the head
    22: (1, 0, 0.25),  # beyond the fingers
    23: (0, 0, -0.25),
    3: (0, 1, -0.1),
    12: (0, 1, -0.25),
}
"""Joint: side (0 low, 1 high), axis, and metres that its box is extended by."""


class Boxes(NamedTuple):
    """Boxes of the parts at rest, of one shape, metres; they move rigidly with the joints that they are attached to."""

    low: Tensor  # (K, 3)
    high: Tensor  # (K, 3)


def posed_boxes(joints: Tensor, parents: Tensor, parts: Sequence[Part]) -> Boxes:
    """The boxes around the bones between rest joints (24, 3) and their parents."""
    low, high = [], []
    for part in parts:
        above = int(parents[part.joint])
        bone = (joints[part.joint] - joints[above]).abs()
        middle = 0.5 * (joints[part.joint] + joints[above])
        half = _half(part.joint, bone)
        ends = [middle - half, middle + half]
        if part.joint in EXTENSIONS:
            side, axis, metres = EXTENSIONS[part.joint]
            ends[side] = ends[side] + metres * (torch.arange(3, device=joints.device) == axis)
        low.append(ends[0])
        high.append(ends[1])
    return Boxes(torch.stack(low), torch.stack(high))


class Spans(NamedTuple):
    """Where rays enter and leave boxes, in units of their direction's length."""

    enter: Tensor  # (K, R)
    leave: Tensor  # (K, R)
    hit: Tensor  # bool (K, R)


@torch.no_grad()
def spans(origin: Tensor, directions: Tensor, stance: Stance, boxes: Boxes, parts: Sequence[Part]) -> Spans:
    """Where rays from an origin (3,) along unit directions (R, 3) meet the boxes of the parts; without gradient.

    Slab test, with components of 0 in a direction replaced by 1e-6. A box behind the camera counts as met, at negative
    depths, as in the original; see `geometry.look`.
    """
    enter, leave = [], []
    for index, part in enumerate(parts):
        carried = stance.transforms[part.attached]
        rotation = carried[:3, :3]
        start = (origin - stance.translation - carried[:3, 3]) @ rotation
        along = directions @ rotation
        along = torch.where(along == 0, 1e-6, along)
        first, second = (boxes.low[index] - start) / along, (boxes.high[index] - start) / along
        enter.append(torch.minimum(first, second).amax(dim=1))
        leave.append(torch.maximum(first, second).amin(dim=1))
    entered, left = torch.stack(enter), torch.stack(leave)
    return Spans(entered, left, entered <= left)


def _half(joint: int, bone: Tensor) -> Tensor:
    """Half the size (3,) of a box: along the bone in proportion to it, fixed across."""
    across, factor, axis = 0.12, 0.8, 0  # arms and hands, along x
    if joint in TORSO_AND_HEAD:
        across, factor, axis = 0.3, 0.8, 1
    elif joint in LEGS:
        across, factor, axis = 0.15, 0.6, 1
    elif joint in FEET:
        across, factor, axis = 0.08, 0.6, 2
    chosen = torch.arange(3, device=bone.device) == axis
    return torch.where(chosen, factor * bone, torch.full_like(bone, across))
