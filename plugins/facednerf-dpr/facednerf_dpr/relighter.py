"""DPR behind the interface of facednerf."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from facednerf_core.errors import InputError
from facednerf_core.interfaces import Relighter
from facednerf_core.light import COEFFICIENTS, in_camera
from facednerf_core.resampling import fitted, resized
from facednerf_core.terms import Loss, LossFn, Step
from facednerf_dpr.hourglass import COARSEST, Hourglass
from facednerf_dpr.lab import lab_to_rgb, lightness, rgb_to_lab
from facednerf_dpr.options import DprOptions

if TYPE_CHECKING:
    from facednerf_core.scene import Rendering


class Dpr(Relighter):
    """The light of portraits. Pictures are read at the network's size, in their own shape, which need not be square."""

    def __init__(self, network: Hourglass, options: DprOptions | None = None) -> None:
        self.options = options or DprOptions()
        alone = self.options.statistics == "picture"
        self.network = (_forgetful(network) if alone else network).eval().requires_grad_(False)

    def estimate(self, image: Tensor) -> Tensor:
        """The light (N, V, 9), in the camera's frame, of images (N, V, 3, H, W) in [-1, 1]; differentiable.

        A gradient is finite whatever the image holds; nothing is clamped.
        """
        found = [self.network.estimate(part) for part in self._apart(self._read(image.flatten(0, 1)))]
        return torch.cat(found).unflatten(0, image.shape[:2])

    def relight(self, image: Tensor, sh: Tensor) -> Tensor:
        """The images (N, V, 3, H, W) in [-1, 1] under lights (N, V, 9) in the camera's frame.

        Only the lightness is drawn anew, at the network's size; colour (a* and b* of Lab) stays as it is. A colour that the
        new lightness carries out of the gamut is not clamped.

        Raises:
            InputError: there is not one light of nine numbers for each image.
        """
        if sh.shape != (*image.shape[:2], COEFFICIENTS):
            raise InputError(f"images {tuple(image.shape)} want lights (N, V, {COEFFICIENTS}), not {tuple(sh.shape)}.")
        flat, light = image.flatten(0, 1), sh.to(image).flatten(0, 1)
        pairs = zip(self._apart(self._read(flat)), self._apart(light), strict=True)
        drawn = torch.cat([self.network(part, wanted)[0] for part, wanted in pairs])
        colour = rgb_to_lab((flat + 1) / 2)[:, 1:]
        lab = torch.cat([100 * resized(drawn, flat.shape[-2:]), colour], dim=1)
        return (2 * lab_to_rgb(lab) - 1).unflatten(0, image.shape[:2])

    def aim(self, light: Tensor) -> LossFn:
        """How far the light that a rendering shows is from a light of the world (paper Eq. 7), a mean over the views.

            L = | estimate(x) - R light |^2

        R turns the light into the frame of the camera that x was rendered from; no gradient goes to the camera by it. The
        sum over nine orthonormal coefficients is the squared difference of the two lights, over all directions.

        Args:
            light: nine SH coefficients of the world, (9,), or (N, 9) for each subject its own; see `facednerf_core.light`.

        Raises:
            InputError: there are not nine coefficients, or they are not finite.
        """
        if light.shape[-1:] != (COEFFICIENTS,) or light.ndim > 2 or not light.isfinite().all():
            raise InputError(f"a light is {COEFFICIENTS} finite SH coefficients, not {light.tolist()}.")
        of_world = light.detach().reshape(-1, 1, COEFFICIENTS)  # (N or 1, 1, 9)

        def loss(rendering: Rendering | None, step: Step) -> Loss:
            if rendering is None:
                raise ValueError("a relighter scores renderings: its term needs a look")
            image = rendering.image
            goal = in_camera(of_world.to(image), rendering.view.camera.detach().to(image))  # (N, V, 9)
            found = self.estimate(image)
            return Loss((found - goal).square().sum(2).mean(1), {"light_angle": angle(found, goal)})

        return loss

    def _read(self, image: Tensor) -> Tensor:
        """What the network reads of images (B, 3, H, W): their lightness at its size."""
        height, width = image.shape[-2:]
        size = fitted(height, width, self.network.size, multiple=COARSEST)
        return lightness((resized(image, size) + 1) / 2)

    def _apart(self, batch: Tensor) -> tuple[Tensor, ...]:
        """One by one where pictures would otherwise share their statistics, else all together."""
        return batch.split(1) if self.options.statistics == "picture" else (batch,)


def angle(found: Tensor, goal: Tensor) -> float:
    """By how many degrees, in the mean, most light (..., 9) comes from another direction than in the goal (..., 9)."""
    cosine = torch.cosine_similarity(found.detach()[..., 1:4], goal.detach()[..., 1:4], dim=-1)
    return math.degrees(float(cosine.clamp(-1, 1).acos().mean()))


def read(tensors: Path, config: Path) -> Hourglass:
    """The frozen float32 network of a safetensors file and a JSON file of `Hourglass`'s arguments.

    Raises:
        InputError: the files cannot be read, or do not describe such a network.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        arguments: Any = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the configuration of a DPR network from {config}: {error}") from error
    if not isinstance(arguments, dict):
        raise InputError(f"{config} holds no arguments of a DPR network, but {arguments!r}.")
    try:
        state = load_file(tensors)
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot read a DPR network from {tensors}: {error}") from error
    arguments.pop("class", None)
    return Hourglass.from_state_dict(state, **arguments)


def _forgetful(network: Hourglass) -> Hourglass:
    """A copy without trained statistics: batch normalisation then takes those of what it is given."""
    twin = copy.deepcopy(network)
    for module in twin.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = module.running_var = None
    return twin
