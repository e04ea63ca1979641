"""FaceDNeRF's own illumination loss, for comparison with its published code, and DPR's example lights.

The default relighting of this plugin does not pass through here. FaceDNeRF's target is a fixed lobe of light, f, in a basis
with the Condon-Shortley phase, which DPR's network has not: so its light acts as if it came from the opposite azimuth. For a
side view the angles of f are shifted; for the azimuth this is a rotation, for the polar angle it is not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from facednerf_core.errors import InputError
from facednerf_core.light import COEFFICIENTS, basis, phased
from facednerf_core.terms import Loss, LossFn, Step
from facednerf_core.views import angles

if TYPE_CHECKING:
    from facednerf_core.interfaces import Relighter
    from facednerf_core.scene import Rendering

FACTOR = 2.5  # on the target of FaceDNeRF
EXAMPLES = 0.7  # on the numbers of DPR's example files
_EDGE = math.asin(3 / 4)  # where 4 sin(angle) - 3 begins to be positive
_NODES = 48  # of the quadratures, along each angle


@dataclass(frozen=True)
class Lobe:
    """The light f = max(0, 4 sin(polar + polar_shift) cos(azimuth - azimuth_0) - 3), by spherical angles on light axes.

    The polar angle is that from straight up, the azimuth begins at the right and goes away from the viewer. Other lights in
    the published code are `Lobe(0.6)` and `Lobe(pi / 2, -pi / 3)`.
    """

    azimuth: float = 2.5
    polar_shift: float = 0.0


def target(polar_offset: float = 0.0, azimuth_offset: float = 0.0, lobe: Lobe | None = None) -> Tensor:
    """The target (9,) of the published loss, float64: 2.5 times the projection of f(polar + offset, azimuth + offset) onto
    the basis with the phase.

    The published code sums over 10,000 random directions at every step; this is the integral itself, by Gauss and Legendre's
    quadrature over the region where f is positive.
    """
    lobe = lobe or Lobe()
    shift = polar_offset + lobe.polar_shift
    nodes, weights = _quadrature()
    total = torch.zeros(COEFFICIENTS, dtype=torch.float64)
    first = math.floor(shift / math.pi)
    for half_turn in (first, first + 1):  # in every other one the sine is negative, and the lobe on the far side
        top = max(0.0, half_turn * math.pi + _EDGE - shift)
        bottom = min(math.pi, (half_turn + 1) * math.pi - _EDGE - shift)
        if top >= bottom:
            continue
        polar = (top + (bottom - top) * (nodes + 1) / 2)[:, None]
        amplitude = 4 * (polar + shift).sin().abs()
        reach = (3 / amplitude).acos()
        beside = reach * nodes  # (P, A): from the middle of the lobe
        azimuth = beside + lobe.azimuth - azimuth_offset + math.pi * half_turn
        sine = polar.sin()
        directions = torch.stack([sine * azimuth.cos(), sine * azimuth.sin(), polar.cos().expand_as(azimuth)], dim=-1)
        area = sine * weights[:, None] * weights * reach * (bottom - top) / 2
        total += (basis(directions) * ((amplitude * beside.cos() - 3) * area)[..., None]).sum(dim=(0, 1))
    return phased(FACTOR * total)


@cache
def _quadrature() -> tuple[Tensor, Tensor]:
    """Nodes in (-1, 1) and weights, (48,) each."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    return torch.from_numpy(nodes), torch.from_numpy(weights)


def offsets(camera: Tensor) -> tuple[Tensor, Tensor]:
    """The published polar and azimuth offsets, each (...), of cameras (..., 25).

    Yaw is what it is. The published pitch v is no angle and points down: sin(real pitch) = -2 v / pi.
    """
    yaw, pitch = angles(camera)
    return -math.pi / 2 * pitch.sin(), yaw


def loss(relighter: Relighter, lobe: Lobe | None = None) -> LossFn:
    """The published illumination loss: |estimate - target|^2 summed over the nine coefficients, a mean over the views.

    With `DprOptions(statistics="picture")` its estimate, too, is the published one.
    """

    def verdict(rendering: Rendering | None, step: Step) -> Loss:
        if rendering is None:
            raise ValueError("a relighter scores renderings: its term needs a look")
        camera = rendering.view.camera.detach().cpu().double()
        polar, azimuth = (values.flatten().tolist() for values in offsets(camera))
        goals = [target(shift, turn, lobe) for shift, turn in zip(polar, azimuth, strict=True)]
        goal = torch.stack(goals).unflatten(0, camera.shape[:2])
        found = relighter.estimate(rendering.image)
        return Loss((found - goal.to(found)).square().sum(2).mean(1))

    return verdict


def example_light(text: str) -> Tensor:
    """The light (9,) of a text file of DPR's examples: its first nine numbers, times 0.7 as DPR uses them.

    Raises:
        InputError: it does not begin with nine numbers.
    """
    try:
        numbers = [float(word) for word in text.split()[:COEFFICIENTS]]
    except ValueError as error:
        raise InputError(f"a file of DPR's example lights begins with nine numbers: {error}.") from error
    if len(numbers) < COEFFICIENTS:
        raise InputError(f"a file of DPR's example lights begins with nine numbers, not {len(numbers)}.")
    return EXAMPLES * torch.tensor(numbers)
