"""What was seen last, kept: for a camera and a pose that stay, only the parts' networks are left to compute."""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

import torch
from torch import Tensor

from facednerf_eva3d.body import Body
from facednerf_eva3d.geometry import Sight
from facednerf_eva3d.network import Eva3dNetwork
from facednerf_eva3d.stance import Stance

Kept = TypeVar("Kept")
Key = tuple[object, ...]


class Sights:
    """The last few stances and sights of one body, by the numbers they came from.

    A camera or pose that wants a gradient is computed anew each time; so is what has noise of its own.
    """

    def __init__(self, body: Body, kept: int = 4) -> None:
        self.body = body
        self.kept = kept
        self._stances: OrderedDict[Key, Stance] = OrderedDict()
        self._sights: OrderedDict[Key, Sight] = OrderedDict()

    def stance(self, pose: Tensor) -> Stance:
        """The body in a pose (85,)."""
        if wants_gradient(pose):
            return Stance.of(self.body, pose)
        key = numbers(pose)
        found = self._stances.get(key)
        if found is None:
            with torch.no_grad():
                found = Stance.of(self.body, pose)
        return self._keep(self._stances, key, found)

    def sight(
        self,
        network: Eva3dNetwork,
        camera: Tensor,
        pose: Tensor,
        size: tuple[int, int],
        noise: Tensor | None = None,
        near: float | None = None,
    ) -> Sight:
        """What a camera (25,) sees of the body in a pose (85,); see `Eva3dNetwork.see`."""
        stance = self.stance(pose)
        if noise is not None or wants_gradient(camera) or wants_gradient(pose):
            return network.see(self.body, stance, camera, size=size, noise=noise, near=near)
        how = (size, near, network.samples, network.fixed_direction)
        key = (*numbers(camera), *numbers(pose), *how)
        found = self._sights.get(key)
        if found is None:
            with torch.no_grad():
                found = network.see(self.body, stance, camera, size=size, near=near)
        return self._keep(self._sights, key, found)

    def _keep(self, shelf: OrderedDict[Key, Kept], key: Key, value: Kept) -> Kept:
        shelf[key] = value
        shelf.move_to_end(key)
        while len(shelf) > self.kept:
            shelf.popitem(last=False)
        return value


def wants_gradient(tensor: Tensor) -> bool:
    """Whether a gradient should reach this tensor."""
    return tensor.requires_grad and torch.is_grad_enabled()


def numbers(tensor: Tensor) -> Key:
    """A tensor's content, to find it again."""
    return (str(tensor.dtype), str(tensor.device), tensor.detach().cpu().contiguous().numpy().tobytes())
