"""The generator: how near an inversion is to a held-out head, where the portrait shows it and where it does not."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from facednerf_core import Recipe, compute
from facednerf_core.metrics import psnr
from facednerf_core.runs import prepare
from facednerf_starter.measures.effort import Effort
from facednerf_starter.measures.inversions import SIDES
from facednerf_starter.measures.measure import Measure, at_least, at_most, averaged
from facednerf_starter.measures.people import portrait
from facednerf_starter.measures.sitters import Sitters

SECTION = "generator"
INPUT, NOVEL, ENERGY, DEPTH, RELIEF, BETWEEN = (
    "portrait's view, inside the mask",
    "views 0.4 rad aside, inside the mask",
    "gradient energy beside the truth's",
    "depth, relative error",
    "depth, error in parts of the head's relief",
    "a face between two latents",
)


def measured(effort: Effort, sitters: Sitters) -> list[Measure]:
    """The measures of the generator."""
    own: dict[str, list[list[float]]] = {name: [] for name in (INPUT, NOVEL, ENERGY, DEPTH, RELIEF)}
    for head in range(effort.inverted):
        inversion, truth = sitters.inversion(head), sitters.truth(head)
        rendering = inversion.seen(inversion.latent, (0.0, *SIDES))
        image, wanted, mask = rendering.image[0].clamp(-1, 1).cpu(), truth.image[0], truth.mask[0]
        near = [psnr(image[view], wanted[view], mask[view]) for view in range(len(image))]
        own[INPUT].append(near[:1])
        own[NOVEL].append(near[1:])
        own[ENERGY].append([energy(image, mask) / energy(wanted, mask)])
        assert rendering.depth is not None
        relative, relief = depth_errors(rendering.depth[0].cpu(), truth.depth[0], mask)
        own[DEPTH].append([relative])
        own[RELIEF].append([relief])
    found, count = between(effort, sitters)
    return [
        averaged(SECTION, INPUT, at_least(25.0), own[INPUT], unit="dB"),
        averaged(SECTION, NOVEL, at_least(24.0), own[NOVEL], unit="dB"),
        averaged(SECTION, ENERGY, at_least(0.7), own[ENERGY]),
        averaged(SECTION, DEPTH, at_most(0.04), own[DEPTH], unit="%"),
        averaged(SECTION, RELIEF, None, own[RELIEF], unit="%"),
        averaged(SECTION, BETWEEN, at_least(0.95), found, unit="%", about=f"{count} pairs"),
    ]


def energy(image: Tensor, mask: Tensor) -> float:
    """Mean square of the steps between neighbouring pixels of images (V, 3, H, W), where both lie in masks (V, 1, H, W)."""
    solid = (mask > 0.98).float()
    total = weight = 0.0
    for axis in (-1, -2):
        size = image.shape[axis] - 1
        step = image.narrow(axis, 1, size) - image.narrow(axis, 0, size)
        both = solid.narrow(axis, 1, size) * solid.narrow(axis, 0, size)
        total += float((step.square().mean(1, keepdim=True) * both).sum())
        weight += float(both.sum())
    return total / max(weight, 1.0)


def depth_errors(found: Tensor, truth: Tensor, mask: Tensor) -> tuple[float, float]:
    """Mean absolute error of depths (V, 1, h, w) against the world's (V, 1, H, W), H a multiple of h, where all is solid: in
    parts of the distance, and in parts of how far the head's depth spreads (95th less 5th percentile)."""
    times = truth.shape[-1] // found.shape[-1]
    wanted, solid = F.avg_pool2d(truth, times), F.avg_pool2d((mask > 0.98).float() * (truth > 0), times) > 0.999
    error = (found - wanted).abs()[solid]
    depths = wanted[solid]
    spread = torch.quantile(depths, torch.tensor([0.05, 0.95]))
    return float((error / depths).mean()), float(error.mean() / (spread[1] - spread[0]).clamp_min(1e-6))


@torch.no_grad()
def between(effort: Effort, sitters: Sitters) -> tuple[list[list[float]], int]:
    """Whether the product's detector finds one face halfway between two random latents, for each pair."""
    recipe = Recipe(task="invert", device=effort.device)
    prepared = prepare(recipe, portrait=portrait(sitters.truth(0), 0, sitters.cameras[0]))
    generator = prepared.problem.generator
    device = compute.device(recipe.device)
    detector = prepared.plan.detector.build(device)
    front = generator.orbit.view((0.0, 0.0)).to(device)
    found = []
    for pair in range(effort.between):
        one, other = (generator.sample(compute.rng(0, "between", pair, end)) for end in (0, 1))
        image = generator.render(generator.synthesize(one.toward(other, 0.5)), front, jitter=None).image[0, 0]
        pixels = ((image.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()
        found.append([float(len(detector.find(pixels)) == 1)])
    return found, effort.between
