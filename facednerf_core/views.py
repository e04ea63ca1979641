"""Cameras: one view, the orbit in which a backbone can be trusted, and the looks that choose views at each step.

World: y up, the subject faces +z. A camera is EG3D's label of 25 numbers: camera-to-world 4x4, row-major, in OpenCV axes
(x right, y down, z forward), then intrinsics 3x3, row-major, normalised by the image size. Angles are radians, frontal is
zero, positive yaw moves the camera towards +x, positive pitch moves it up. (The official code's pitch is not an angle and
points down: see docs/architecture.md.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor

ROUNDED = 0.05  # how far below pi, radians, a yaw may be given and still mean every side


@dataclass(frozen=True)
class View:
    """Where each of V cameras stands, for N subjects, and the pose of an articulated subject."""

    camera: Tensor  # (N, V, 25)
    pose: Tensor | None = None  # (N, V, P)

    @property
    def count(self) -> int:
        """V, the number of cameras per subject."""
        return self.camera.shape[1]

    def __getitem__(self, views: slice) -> View:
        """Some of the V views."""
        return View(self.camera[:, views], None if self.pose is None else self.pose[:, views])

    def detach(self) -> View:
        """The same view without gradient."""
        return View(self.camera.detach(), None if self.pose is None else self.pose.detach())

    def to(self, device: torch.device) -> View:
        """The same view on another device."""
        return View(self.camera.to(device), None if self.pose is None else self.pose.to(device))


def stack(views: list[View]) -> View:
    """Views side by side along V."""
    import torch

    poses = [view.pose for view in views if view.pose is not None]
    camera = torch.cat([view.camera for view in views], dim=1)
    return View(camera, torch.cat(poses, dim=1) if len(poses) == len(views) else None)


@dataclass(frozen=True)
class Orbit:
    """The cameras in which a backbone can be trusted: a sphere around the subject, and how far from frontal."""

    radius: float = 2.7  # world units, from the world origin (EG3D's convention)
    pivot: tuple[float, float, float] = (0.0, 0.0, 0.2)  # the point looked at
    focal: float = 4.2647  # in image widths
    yaw: float = 0.6  # largest trusted |yaw|, radians
    pitch: float = 0.3  # largest trusted |pitch|, radians
    aspect: float = 1.0  # height over width of a picture, whose pixels are square

    @property
    def all_round(self) -> bool:
        """Whether the subject can be seen from every side; a card may round pi."""
        return self.yaw > math.pi - ROUNDED

    def camera(self, yaw: float = 0.0, pitch: float = 0.0) -> Tensor:
        """The camera label (25,) at these angles, looking at the pivot, upright."""
        return look_at(
            (
                self.radius * math.sin(yaw) * math.cos(pitch),
                self.radius * math.sin(pitch),
                self.radius * math.cos(yaw) * math.cos(pitch),
            ),
            self.pivot,
            self.focal,
            self.aspect,
        )

    def cameras(self, yaw: Tensor, pitch: Tensor) -> Tensor:
        """The camera labels (..., 25) at angles (...), which need not have one shape; without gradient to them."""
        import torch

        every = torch.stack(torch.broadcast_tensors(yaw.detach(), pitch.detach()), dim=-1)  # (..., 2)
        labels = torch.stack([self.camera(*pair) for pair in every.reshape(-1, 2).tolist()])
        return labels.reshape(*every.shape[:-1], -1).to(every.device)

    def view(self, *angles: tuple[float, float], subjects: int = 1) -> View:
        """The view from several (yaw, pitch), the same for each of N subjects."""
        import torch

        cameras = torch.stack([self.camera(*pair) for pair in angles])  # (V, 25)
        return View(cameras.expand(subjects, -1, -1).clone())


def look_at(
    origin: tuple[float, float, float], target: tuple[float, float, float], focal: float, aspect: float = 1.0
) -> Tensor:
    """The camera label (25,) of an upright camera at `origin` that looks at `target`.

    `focal` is in image widths. A label counts the vertical one in image heights: with square pixels, that is the horizontal
    one over `aspect`, height over width.
    """
    import torch

    position = torch.tensor(origin, dtype=torch.float64)
    forward = torch.tensor(target, dtype=torch.float64) - position
    forward = forward / forward.norm()
    up = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    right = torch.linalg.cross(forward, up)
    right = right / right.norm()
    down = torch.linalg.cross(forward, right)
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, 0], pose[:3, 1], pose[:3, 2], pose[:3, 3] = right, down, forward, position
    intrinsics = torch.tensor([focal, 0, 0.5, 0, focal / aspect, 0.5, 0, 0, 1], dtype=torch.float64)
    return torch.cat([pose.flatten(), intrinsics]).float()


def angles(camera: Tensor) -> tuple[Tensor, Tensor]:
    """Yaw and pitch, each of shape (...), of camera labels (..., 25), from where they stand."""
    import torch

    position = camera[..., :16].unflatten(-1, (4, 4))[..., :3, 3]
    x, y, z = position.unbind(-1)
    return torch.atan2(x, z), torch.atan2(y, torch.hypot(x, z))


def orbited(camera: Tensor, orbit: Orbit, yaw: Tensor, pitch: Tensor) -> Tensor:
    """Cameras (..., 25) carried along an orbit, by `yaw` around the subject and by `pitch` up, each (...).

    What tells each from the orbit's own camera at its angles (roll, shift, distance, lens) is kept. So what the picture has
    in its middle stays there, as in the pictures that backbones and guidance were trained with; turned rigidly about the
    world's origin, a head whose pivot lies before it would leave the middle with every degree.
    """
    import torch

    own_yaw, own_pitch = angles(camera.detach())
    own = orbit.cameras(own_yaw, own_pitch).to(camera)
    goal = orbit.cameras(own_yaw + yaw, own_pitch + pitch).to(camera)
    pose, from_own, to_goal = (label[..., :16].unflatten(-1, (4, 4)) for label in (camera, own, goal))
    moved = to_goal @ torch.linalg.solve(from_own, pose)
    return torch.cat([moved.flatten(-2), camera[..., 16:].expand(*moved.shape[:-2], -1)], dim=-1)


def nudged(camera: Tensor, increment: Tensor) -> Tensor:
    """Cameras (..., 25) after a small rigid increment (..., 7): rotation vector and translation in the camera's own
    frame, and the logarithm of the focal length's factor."""
    import torch

    pose = camera[..., :16].unflatten(-1, (4, 4))
    rotation, shift, zoom = increment[..., :3], increment[..., 3:6], increment[..., 6:]
    zero = torch.zeros_like(rotation[..., 0])
    x, y, z = rotation.unbind(-1)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    turn = torch.linalg.matrix_exp(skew)
    top = torch.cat([turn, shift.unsqueeze(-1)], dim=-1)
    bottom = torch.zeros_like(top[..., :1, :])
    bottom[..., 3] = 1.0
    moved = pose @ torch.cat([top, bottom], dim=-2)
    factor = torch.ones_like(camera[..., 16:])
    factor[..., 0], factor[..., 4] = zoom.exp()[..., 0], zoom.exp()[..., 0]
    return torch.cat([moved.flatten(-2), camera[..., 16:] * factor], dim=-1)


class Look(Protocol):
    """How a term looks at the subject: which cameras it asks for at a step."""

    def view(self, home: View, orbit: Orbit, rng: torch.Generator) -> View:
        """The views of this step; `home` is the camera of the photo, (N, 1, 25)."""
        ...


@dataclass(frozen=True)
class Fixed:
    """From the photo's own camera; the gradient reaches the camera."""

    def view(self, home: View, orbit: Orbit, rng: torch.Generator) -> View:
        """The photo's camera as it stands in the state."""
        return home


@dataclass(frozen=True)
class Nearby:
    """From random cameras around the photo's own, uniform in yaw and pitch (the paper's random side camera)."""

    yaw: float = 0.2  # radians, either side
    pitch: float = 0.13  # radians, either side: the official nominal 0.2 is a real 0.1277
    count: int = 1

    def view(self, home: View, orbit: Orbit, rng: torch.Generator) -> View:
        """`count` cameras carried around the subject from the photo's, without gradient to it."""
        camera = home.camera.detach()[:, :1].expand(-1, self.count, -1)
        yaw, pitch = _offsets(self.yaw, self.pitch, camera, rng)
        pose = None if home.pose is None else home.pose.detach()[:, :1].expand(-1, self.count, -1)
        return View(orbited(camera, orbit, yaw, pitch), pose)


@dataclass(frozen=True)
class Anywhere:
    """From random cameras of the orbit in which the backbone is trusted, whatever the photo's own."""

    count: int = 1
    yaw: float = math.inf  # radians, either side: no farther round than this, however far the orbit goes

    def view(self, home: View, orbit: Orbit, rng: torch.Generator) -> View:
        """`count` cameras of the orbit, uniform in yaw and pitch."""
        camera = orbit.camera().to(home.camera).expand(home.camera.shape[0], self.count, 25)
        yaw, pitch = _offsets(min(orbit.yaw, self.yaw), orbit.pitch, camera, rng)
        pose = None if home.pose is None else home.pose.detach()[:, :1].expand(-1, self.count, -1)
        return View(orbited(camera, orbit, yaw, pitch), pose)


def _offsets(yaw: float, pitch: float, camera: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    import torch

    draws = torch.rand(*camera.shape[:2], 2, generator=rng).to(camera) * 2 - 1
    return draws[..., 0] * yaw, draws[..., 1] * pitch


def within(look: Look, sees: float) -> Look:
    """The look with its yaw held to what a term's network can judge (`sees`, the largest |yaw|).

    Cameras near a photo's that is itself turned may still stand beyond; the loop skips those.
    """
    if isinstance(look, Nearby | Anywhere) and look.yaw > sees:
        return replace(look, yaw=sees)
    return look
