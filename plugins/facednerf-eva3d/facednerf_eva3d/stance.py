"""A body in one pose: what is needed to bring points of space back to the canonical pose (inverse skinning)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

from facednerf_core.errors import InputError
from facednerf_eva3d.body import Body, Pose, rotation_matrices
from facednerf_eva3d.parts import Part

PAIRS_AT_ONCE = 2**22
"""How many distances between points and vertices are held at once."""

TOUCHING = 100086.0
"""What stands for the inverse of a distance of 0 (the original's number)."""


class Canonical(NamedTuple):
    """Points brought back to the canonical pose."""

    points: Tensor  # (P, 3), metres
    linear: Tensor  # (P, 3, 3), the linear part of the way back: what turns directions


@dataclass(frozen=True)
class Stance:
    """A body in one pose. Everything but `translation` is without translation."""

    joints: Tensor  # (24, 3), at rest, of this shape
    transforms: Tensor  # (24, 4, 4), of the joints, relative to rest
    translation: Tensor  # (3,)
    offsets: Tensor  # (V, 3), of shape and pose, before skinning
    vertices: Tensor  # (V, 3), posed
    skin: Tensor  # (V, 4, 4), what carries each vertex
    unskin: Tensor  # (V, 4, 4), the inverse
    dominant: Tensor  # int64 (V,), the joint that each vertex follows most

    @classmethod
    def of(cls, body: Body, numbers: Tensor) -> Self:
        """The body in a pose of 85 numbers, in the body's own floating-point format and on its device."""
        with torch.autocast(body.template.device.type, enabled=False):
            pose = Pose.of(numbers.to(body.template))
            rotations = rotation_matrices(pose.theta)
            joints = body.rest_joints(pose.beta)
            transforms = body.joint_transforms(rotations, joints)
            skin = body.skinning(transforms)
            offsets = body.vertex_offsets(pose.beta, rotations)
            vertices = (skin[:, :3, :3] @ (body.template + offsets)[:, :, None])[..., 0] + skin[:, :3, 3]
            dominant = body.weights.argmax(dim=1)
            return cls(joints, transforms, pose.translation, offsets, vertices, skin, torch.linalg.inv(skin), dominant)

    def searched(self, part: Part) -> Tensor:
        """The vertices that carry the points of a part, int64 (S,).

        Raises:
            InputError: no vertex mostly follows one of the part's joints.
        """
        wanted = torch.tensor(part.searched, device=self.dominant.device)
        found = torch.isin(self.dominant, wanted).nonzero()[:, 0]
        if not len(found):
            joints = ", ".join(map(str, part.searched))
            raise InputError(f"the body has no vertices for the {part.name}: none mostly follows one of joints {joints}.")
        return found

    def canonical(self, points: Tensor, part: Part, neighbours: int = 1) -> Canonical:
        """Points (P, 3) as they lie at rest, each carried back by the vertex of the part that is nearest to it.

        With more `neighbours`, their inverse transforms and offsets are blended, weighted by the inverse squared distance.
        The choice of vertices has no gradient; the way back has.

        Args:
            points: relative to the body's translation.
            part: whose vertices are searched.
            neighbours: how many vertices carry a point; 1 when the original renders, 8 when it makes a mesh.
        """
        searched = self.searched(part)
        squares, index = nearest(points, self.vertices[searched], min(neighbours, len(searched)))
        carriers = searched[index]  # (P, K)
        if carriers.shape[1] == 1:
            back, offset = self.unskin[carriers[:, 0]], self.offsets[carriers[:, 0]]
        else:
            share = squares.reciprocal()
            share = torch.where(share.isinf(), TOUCHING, share)
            share = share / share.sum(dim=1, keepdim=True)
            back = torch.einsum("pk,pkij->pij", share, self.unskin[carriers])
            offset = torch.einsum("pk,pki->pi", share, self.offsets[carriers])
        linear = back[:, :3, :3]
        moved = (linear @ points[:, :, None])[..., 0] + back[:, :3, 3]
        return Canonical(moved - offset, linear)

    def reach(self, part: Part) -> tuple[Tensor, Tensor, Tensor]:
        """A box that holds every point which the part's vertices can carry into its canonical box.

        Returns:
            The axes of the box as rows (3, 3), and its least and greatest coordinates along them, (3,) each; relative to
            the body's translation.
        """
        with torch.no_grad():
            searched = self.searched(part)
            ends = torch.tensor([part.low, part.high]).to(self.vertices)  # (2, 3)
            corners = torch.cartesian_prod(*ends.unbind(1))  # (8, 3)
            at_rest = corners[None] + self.offsets[searched, None]  # (S, 8, 3)
            skin = self.skin[searched]
            posed = at_rest @ skin[:, :3, :3].mT + skin[:, None, :3, 3]
            axes = self.transforms[part.attached, :3, :3].mT
            along = posed.flatten(0, 1) @ axes.mT
            slack = 1e-3
            return axes, along.amin(dim=0) - slack, along.amax(dim=0) + slack


@torch.no_grad()
def nearest(points: Tensor, vertices: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Squared distances and indices, each (P, count), of the vertices (S, 3) nearest to points (P, 3), nearest first."""
    points = points.detach()
    half = 0.5 * vertices.square().sum(dim=1)
    found = []
    for portion in points.split(max(1, PAIRS_AT_ONCE // len(vertices))):
        score = torch.addmm(half, portion, vertices.mT, alpha=-1.0)  # half the squared distance, less what all share
        best = score.argmin(dim=1, keepdim=True) if count == 1 else score.topk(count, dim=1, largest=False).indices
        found.append(best)
    index = torch.cat(found)
    return (points[:, None] - vertices[index]).square().sum(dim=2), index
