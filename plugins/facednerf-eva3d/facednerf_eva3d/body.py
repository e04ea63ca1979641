"""The body model that carries the parts: an interface, and the linear model (SMPL's kind) behind it.

A body stands in metres, y up, its left at +x, its front at +z, in a T pose with the pelvis near y = -0.22: the canonical
boxes of `parts.py` are given in that frame. Joints are SMPL's 24. A pose is 85 numbers: 72 of axis-angle rotations, the
root's first, each relative to the parent; 10 of shape; 3 of translation, metres.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import NamedTuple, Self

import torch
from torch import Tensor

from facednerf_core.errors import InputError

JOINTS = 24
SHAPES = 10
POSE = 3 * JOINTS + SHAPES + 3
EXTENT = 1.3  # the template's volume covers [-EXTENT, EXTENT] along each axis, end points included, metres


class Pose(NamedTuple):
    """What the 85 numbers of a pose mean."""

    theta: Tensor  # (72,), radians
    beta: Tensor  # (10,)
    translation: Tensor  # (3,), metres

    @classmethod
    def of(cls, numbers: Tensor) -> Pose:
        """The parts of a pose (85,).

        Raises:
            InputError: these are not 85 numbers.
        """
        if numbers.shape != (POSE,):
            raise InputError(f"a pose of EVA3D is {POSE} numbers, 72 + 10 + 3, not {tuple(numbers.shape)}.")
        return cls(*numbers.split((3 * JOINTS, SHAPES, 3)))


class Body(ABC):
    """What must be known of a body: its skeleton, how its skin follows, and the distance to its template's surface.

    Attributes:
        parents: int64 (24,), the joint above each; -1 for the root.
        weights: (V, 24), how much each vertex follows each joint; rows sum to 1.
        template: (V, 3), vertices in the canonical pose and mean shape, metres.
        template_sdf: (X, Y, Z), signed distances to the template's surface, metres, negative inside.
    """

    parents: Tensor
    weights: Tensor
    template: Tensor
    template_sdf: Tensor

    @abstractmethod
    def rest_joints(self, beta: Tensor) -> Tensor:
        """The joints (24, 3) of a shape (10,), in the canonical pose."""

    @abstractmethod
    def vertex_offsets(self, beta: Tensor, rotations: Tensor) -> Tensor:
        """What shape (10,) and rotations (24, 3, 3) add to the template's vertices before they are skinned, (V, 3)."""

    @abstractmethod
    def to(self, target: torch.device | torch.dtype) -> Self:
        """The same body on another device, or in another floating-point format."""

    def joint_transforms(self, rotations: Tensor, rest_joints: Tensor) -> Tensor:
        """Rigid transforms (24, 4, 4) that carry what is at rest to where the joint carries it.

        Forward kinematics, with the joint at rest taken as the origin (Loper et al. 2015, Eq. 3 and 4).
        """
        parents = [int(parent) for parent in self.parents]
        carried: list[Tensor] = []
        for joint, parent in enumerate(parents):
            offset = rest_joints[joint] - rest_joints[parent] if parent >= 0 else rest_joints[joint]
            local = _rigid(rotations[joint], offset)
            carried.append(carried[parent] @ local if parent >= 0 else local)
        world = torch.stack(carried)
        moved = world[:, :3, 3] - (world[:, :3, :3] @ rest_joints[:, :, None])[..., 0]
        return torch.cat([torch.cat([world[:, :3, :3], moved[:, :, None]], dim=2), world[:, 3:]], dim=1)

    def skinning(self, transforms: Tensor) -> Tensor:
        """Blends (V, 4, 4) of the joints' transforms (24, 4, 4) by the vertices' weights."""
        return (self.weights @ transforms.flatten(1)).unflatten(1, (4, 4))

    def posed_vertices(self, beta: Tensor, rotations: Tensor) -> Tensor:
        """Where the vertices (V, 3) are, without translation."""
        skin = self.skinning(self.joint_transforms(rotations, self.rest_joints(beta)))
        return _applied(skin, self.template + self.vertex_offsets(beta, rotations))


@dataclass(frozen=True)
class LinearBody(Body):
    """A body whose shape and pose corrections are linear, as SMPL's are (Loper et al. 2015)."""

    template: Tensor  # (V, 3)
    shapedirs: Tensor  # (V, 3, 10)
    posedirs: Tensor  # (207, 3 V), of the 23 rotations less the identity, row by row
    joint_regressor: Tensor  # (24, V)
    weights: Tensor  # (V, 24)
    parents: Tensor  # (24,)
    template_sdf: Tensor  # (X, Y, Z)

    def __post_init__(self) -> None:
        count = self.template.shape[0]
        wanted: Mapping[str, tuple[int, ...]] = {
            "template": (count, 3),
            "shapedirs": (count, 3, SHAPES),
            "posedirs": (9 * (JOINTS - 1), 3 * count),
            "joint_regressor": (JOINTS, count),
            "weights": (count, JOINTS),
            "parents": (JOINTS,),
        }
        for name, shape in wanted.items():
            found = tuple(getattr(self, name).shape)
            if found != shape:
                raise InputError(f"a body of {count} vertices has {name} of shape {shape}, not {found}.")
        if self.template_sdf.ndim != 3 or min(self.template_sdf.shape) < 2:
            raise InputError(f"the template's distances fill a volume (X, Y, Z), not {tuple(self.template_sdf.shape)}.")
        above = self.parents.tolist()
        if above[0] != -1 or any(not 0 <= parent < joint for joint, parent in enumerate(above) if joint):
            raise InputError(f"parents must begin with -1 and come before their children, not {above}.")

    def rest_joints(self, beta: Tensor) -> Tensor:
        """The joints (24, 3) of a shape (10,), regressed from its vertices."""
        return self.joint_regressor @ (self.template + self.shapedirs @ beta)

    def vertex_offsets(self, beta: Tensor, rotations: Tensor) -> Tensor:
        """Blend shapes of shape and of pose, (V, 3)."""
        bent = (rotations[1:] - torch.eye(3).to(rotations)).flatten()
        return self.shapedirs @ beta + (bent @ self.posedirs).unflatten(0, (-1, 3))

    def to(self, target: torch.device | torch.dtype) -> Self:
        """The same body elsewhere; `parents` stays whole numbers."""
        if isinstance(target, torch.dtype):
            return self._each(lambda value: value.to(target) if value.is_floating_point() else value)
        return self._each(lambda value: value.to(target))

    def scaled(self) -> Self:
        """The body whose first shape number is its scale less 1; the other nine do nothing (as in the AIST release)."""
        shapedirs = torch.zeros_like(self.shapedirs)
        shapedirs[..., 0] = self.template
        return type(self)(**(self.tensors() | {"shapedirs": shapedirs}))

    def tensors(self) -> dict[str, Tensor]:
        """What the body is made of, by name: for a file."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        return type(self)(**{name: change(value) for name, value in self.tensors().items()})


def rotation_matrices(theta: Tensor) -> Tensor:
    """Rotations (J, 3, 3) of axis-angle vectors (3 J,), radians (Rodrigues).

    As in the original, 1e-8 is added to each component before the angle is measured, which keeps zero differentiable.
    """
    vectors = theta.unflatten(0, (-1, 3))
    angle = (vectors + 1e-8).norm(dim=1, keepdim=True)
    x, y, z = (vectors / angle).unbind(1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).unflatten(1, (3, 3))
    sin, cos = angle.sin()[:, :, None], angle.cos()[:, :, None]
    return torch.eye(3).to(theta) + sin * cross + (1 - cos) * (cross @ cross)


def _rigid(rotation: Tensor, translation: Tensor) -> Tensor:
    top = torch.cat([rotation, translation[:, None]], dim=1)
    last = torch.tensor([[0.0, 0.0, 0.0, 1.0]]).to(top)
    return torch.cat([top, last])


def _applied(transforms: Tensor, points: Tensor) -> Tensor:
    """Points (V, 3) after affine transforms (V, 4, 4)."""
    return (transforms[:, :3, :3] @ points[:, :, None])[..., 0] + transforms[:, :3, 3]
