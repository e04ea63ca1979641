"""A generator whose picture is the same at every size: smooth waves, evaluated where the pixels are.

For the one normalisation of loss weights: a term's gradient in w must not depend on the rendering's size.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from facednerf_core.compute import rng
from facednerf_core.scene import Latent, Rendering, Scene, Subject
from facednerf_core.terms import LossFn, Step
from facednerf_core.views import Orbit

SIZES = (64, 128, 512)
Network = TypeVar("Network", bound=nn.Module)
WAVES, ROWS, WIDTH = 4, 2, 6


def he(network: Network, seed: int = 0) -> Network:
    """The network with random weights that keep the size of its activations (He et al. 2015), as trained ones do."""
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                fan = module.weight[0].numel()
                module.weight.copy_(torch.randn(module.weight.shape, generator=draws) * (2 / fan) ** 0.5)
                if module.bias is not None:
                    module.bias.copy_(torch.randn(module.bias.shape, generator=draws) * 0.1)
    return network


def latent(seed: int = 0, subjects: int = 1) -> Latent:
    """Random latents (N, 2, 6)."""
    return Latent(torch.randn(subjects, ROWS, WIDTH, generator=torch.Generator().manual_seed(seed)))


def draw(of: Latent, size: int, views: int = 1) -> Rendering:
    """The rendering of a latent at a size, with mask and depth; every view sees the same."""
    channels = 5
    basis = torch.randn(ROWS, WIDTH, channels, WAVES, WAVES, generator=torch.Generator().manual_seed(9)) * 0.12
    where = (torch.arange(size) + 0.5) / size
    waves = torch.cos(torch.pi * torch.arange(WAVES).unsqueeze(1) * where)  # (K, size)
    field = torch.einsum("nlc,lcdij,iy,jx->ndyx", of.w, basis, waves, waves).unsqueeze(1).expand(-1, views, -1, -1, -1)
    view = Orbit().view(*[(0.0, 0.0)] * views, subjects=of.w.shape[0])
    image = torch.tanh(field[:, :, :3])
    return Rendering(Scene(), view, image, depth=2.5 + 0.1 * field[:, :, 3:4], mask=torch.sigmoid(3 * field[:, :, 4:5]))


def subject(seed: int = 1, size: int = 256, landmarks: Tensor | None = None) -> Subject:
    """Someone else, photographed at a size of their own."""
    rendering = draw(latent(seed), size)
    return Subject(rendering.view, rendering.image, rendering.mask, landmarks)


def step(of: Latent, index: int = 0, total: int = 10) -> Step:
    """A step with the same draws whenever it is asked for."""
    return Step(index, total, rng(0, "smooth", index), of, origin=latent(2))


def gradient(loss: LossFn, size: int, *, reference: Latent | None = None, views: int = 1) -> Tensor:
    """The gradient in w of one loss on a rendering of one size."""
    of = latent()
    of.w.requires_grad_()
    known = step(of)
    if reference is not None:
        known = replace(known, reference=draw(reference, size, views))
    loss(draw(of, size, views), known).value.sum().backward()
    assert of.w.grad is not None
    return of.w.grad


def spread(loss: LossFn, *, reference: Latent | None = None) -> float:
    """By how much the norms of the latent's gradients differ between 64, 128 and 512 px: largest over smallest, less 1."""
    norms = [float(gradient(loss, size, reference=reference).norm()) for size in SIZES]
    assert min(norms) > 0
    return max(norms) / min(norms) - 1
