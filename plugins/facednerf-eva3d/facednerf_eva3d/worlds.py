"""From the original's world, where the camera stands still and the body is turned, to ours, where the body faces +z."""

from __future__ import annotations

import torch
from torch import Tensor

from facednerf_eva3d.body import Body, Pose, rotation_matrices


def upright(body: Body, camera: Tensor, pose: Tensor) -> tuple[Tensor, Tensor]:
    """A camera (25,) and pose (85,) that show the same picture, with the root unturned and the body not moved.

    The root's rotation and the translation are folded into the world, that is, taken out of the pose and out of the
    camera's place: what is left is a body whose pelvis is where its shape has it, y up, facing +z.
    """
    parts = Pose.of(pose.to(body.template))
    turn = rotation_matrices(parts.theta[:3])[0]
    root = body.rest_joints(parts.beta)[0]
    place = root + parts.translation - turn @ root  # the body's points are turn @ p + place
    cam2world = camera[:16].unflatten(0, (4, 4)).to(turn)
    moved = torch.cat([turn.mT @ cam2world[:3, :3], (turn.mT @ (cam2world[:3, 3] - place))[:, None]], dim=1)
    label = torch.cat([moved.flatten(), camera[12:].to(turn)])
    still = torch.cat([torch.zeros_like(parts.theta[:3]), parts.theta[3:], parts.beta, torch.zeros_like(parts.translation)])
    return label.to(camera), still.to(pose)
