"""A field of density and colour, looked at along rays: two-pass volume rendering as EG3D does it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from facednerf_core.errors import InputError
from facednerf_eg3d.marching import interval_weights, mean_depth, sample_weights
from facednerf_eg3d.rays import box_span
from facednerf_eg3d.sampling import Draws, coarse_depths, fine_depths

Field = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Points (N, P, 3) to raw density (N, P) and colour features (N, P, C)."""
Density = Callable[[Tensor], Tensor]
"""Points (N, P, 3) to raw density (N, P), without gradient."""
Rules = Literal["view", "official"]
"""Over what automatic limits and the clamp of depth reach: each view, or the whole batch as in the original (where the
depth of one image depends on its neighbours)."""

REQUIRED = ("ray_start", "ray_end", "depth_resolution", "depth_resolution_importance", "box_warp")
"""What `rendering_kwargs` must say."""


@dataclass(frozen=True)
class RayOptions:
    """How rays are sampled and composed."""

    coarse: int = 48  # S, samples of the first pass
    fine: int = 48  # F, samples of the second; 0 for none
    near: float | None = 2.25  # distance along the ray; None: where it enters the box
    far: float | None = 3.3
    box_warp: float = 1.0  # side of the cube that the planes span, world units
    disparity: bool = False  # coarse samples even in 1 / depth
    white_back: bool = False  # what is not subject is white, else black
    signed: bool = True  # features leave in [-1, 1] rather than [0, 1]
    density_noise: float = 0.0  # of the raw density, in training only; added where `Draws.density` gives the normals
    faint: float = 0.0  # share of a ray below which a sample has neither colour nor gradient; 0: all have, as published

    @classmethod
    def read(cls, kwargs: Mapping[str, Any]) -> RayOptions:
        """From a checkpoint's `rendering_kwargs`.

        Raises:
            InputError: something is missing, the marcher it asks for is not EG3D's, or only one limit is 'auto'.
        """
        if kwargs.get("clamp_mode", "softplus") != "softplus":
            raise InputError(f"clamp_mode is {kwargs['clamp_mode']!r}; only 'softplus' exists.")
        missing = [name for name in REQUIRED if name not in kwargs]
        if missing:
            raise InputError(
                f"rendering_kwargs has no {', '.join(missing)}; EG3D's checkpoints have: {', '.join(REQUIRED)}."
            )
        limits = (kwargs["ray_start"], kwargs["ray_end"])
        if (limits[0] == "auto") != (limits[1] == "auto"):
            raise InputError(f"ray_start and ray_end are {limits}; give two numbers, or 'auto' for both.")
        near, far = (None if limit == "auto" else float(limit) for limit in limits)
        return cls(
            coarse=int(kwargs["depth_resolution"]),
            fine=int(kwargs["depth_resolution_importance"]),
            near=near,
            far=far,
            box_warp=float(kwargs["box_warp"]),
            disparity=bool(kwargs.get("disparity_space_sampling", False)),
            white_back=bool(kwargs.get("white_back", False)),
            density_noise=float(kwargs.get("density_noise", 0.0)),
        )


class Traced(NamedTuple):
    """What rays bring back."""

    feature: Tensor  # (N, V, R, C)
    depth: Tensor  # (N, V, R), distance along the ray, world units
    alpha: Tensor  # (N, V, R), how much of the ray was stopped, [0, 1]


def trace(
    field: Field,
    origins: Tensor,
    directions: Tensor,
    options: RayOptions,
    draws: Draws,
    *,
    rules: Rules = "view",
    density: Density | None = None,
) -> Traced:
    """Renders rays, each (N, V, R, 3), through a field.

    `density` is the field's raw density alone, if there is a faster way to it than the field.

    Every point is decoded once. The second pass merges both sets by sorting depths and densities only: colours stay in
    place, and the weights are carried back to them. With `options.faint` most points, which are empty or hidden, are only
    weighed: see `_trace_seen`.
    """
    near, far = _limits(origins, directions, options, rules)
    depths = coarse_depths(near, far, draws.coarse, disparity=options.disparity)
    depths = depths.expand(*directions.shape[:3], -1)  # (N, V, R, S)
    noise = None if draws.density is None else options.density_noise * draws.density
    if options.faint and options.fine and noise is None:
        first = density or (lambda points: field(points)[0])
        return _finished(*_trace_seen(field, first, origins, directions, depths, options, draws), options, rules)
    sigma, colours = _look(field, origins, directions, depths)
    if noise is not None:
        sigma = sigma + noise[..., : options.coarse]
    if options.fine:
        with torch.no_grad():
            coarse_weights = interval_weights(depths, sigma)
        fine = fine_depths(depths, coarse_weights, draws.fine)  # (N, V, R, F)
        fine_sigma, fine_colours = _look(field, origins, directions, fine)
        if noise is not None:
            fine_sigma = fine_sigma + noise[..., options.coarse :]
        merged, order = torch.cat([depths, fine], dim=-1).sort(dim=-1)
        weights = interval_weights(merged, torch.cat([sigma, fine_sigma], dim=-1).gather(-1, order))
        share = sample_weights(weights)
        share = torch.zeros_like(share).scatter(-1, order, share)
        feature = _compose(share[..., : options.coarse], colours) + _compose(share[..., options.coarse :], fine_colours)
    else:
        merged = depths
        weights = interval_weights(depths, sigma)
        feature = _compose(sample_weights(weights), colours)
    return _finished(feature, merged, weights, options, rules)


def _finished(feature: Tensor, merged: Tensor, weights: Tensor, options: RayOptions, rules: Rules) -> Traced:
    """What rays bring back, of their composed features (N, V, R, C), depths in order and weights of intervals."""
    alpha = weights.sum(dim=-1)
    if options.white_back:
        feature = feature + (1.0 - alpha)[..., None]
    if options.signed:
        feature = 2.0 * feature - 1.0
    reach = (0, 1, 2, 3) if rules == "official" else (2, 3)
    low, high = merged.detach().amin(dim=reach, keepdim=True), merged.detach().amax(dim=reach, keepdim=True)
    depth = torch.minimum(torch.maximum(mean_depth(merged, weights), low[..., 0]), high[..., 0])
    return Traced(feature, depth, alpha)


def _trace_seen(
    field: Field,
    density: Density,
    origins: Tensor,
    directions: Tensor,
    depths: Tensor,
    options: RayOptions,
    draws: Draws,
) -> tuple[Tensor, Tensor, Tensor]:
    """Composed features, depths in order and weights of intervals, of the samples that are seen alone.

    A first look, without gradient, finds which samples have at least `options.faint` of their ray; where a ray and those
    around it meet nothing in it there is no second pass. Only those samples are decoded with gradient. What a raw density
    changes is in proportion to that share, in empty space (where softplus falls as fast as its slope) as well as behind a
    surface: so what is left out of colours and gradients is of the size of `options.faint`. Depth, which is divided by
    opacity, may differ where that is less.
    """
    subjects, views, rays, coarse = depths.shape
    with torch.no_grad():
        sigma = density(_points(origins, directions, depths).flatten(1, 3)).view(depths.shape)
        weights = interval_weights(depths, sigma)
        fine = fine_depths(depths, weights, draws.fine)  # (N, V, R, F)
        met = _spread(weights.sum(-1) >= options.faint)  # (N, V, R)
        every = torch.cat([depths, fine], dim=-1)
        empty = sigma.amin(dim=-1, keepdim=True).expand_as(fine)
        sigma = torch.cat([sigma, empty], dim=-1)  # (N, V, R, S + F)
        second = torch.zeros_like(sigma, dtype=torch.bool)
        second[..., coarse:] = met[..., None]
        second[:, 0, 0, -1] = True  # so that no subject is ever without points
        at, valid = _chosen(origins, directions, every, second)
        sigma = sigma.masked_scatter(second, density(at)[valid])
        merged, order = every.sort(dim=-1)
        share = sample_weights(interval_weights(merged, sigma.gather(-1, order)))
        seen = torch.zeros_like(share).scatter(-1, order, share) >= options.faint
        seen[:, 0, 0, 0] = True
    every = torch.cat([depths, fine], dim=-1)  # again, as automatic limits depend on the camera
    merged = every.gather(-1, order)
    at, valid = _chosen(origins, directions, every, seen)
    found, colours = field(at)
    weights = interval_weights(merged, sigma.masked_scatter(seen, found[valid]).gather(-1, order))
    share = sample_weights(weights)
    share = torch.zeros_like(share).scatter(-1, order, share)
    ray = seen.view(subjects * views * rays, -1).nonzero()[:, 0]
    feature = colours.new_zeros(subjects * views * rays, colours.shape[-1])
    feature = feature.index_add(0, ray, share[seen][:, None] * colours[valid])
    return feature.view(subjects, views, rays, -1), merged, weights


def _spread(met: Tensor) -> Tensor:
    """Rays (N, V, R) that met something or have a neighbour that did: what is thinner than the steps of the first look, as
    the temples of glasses are, may have been stepped over. Rays that make no square picture are all taken."""
    side = math.isqrt(met.shape[-1])
    if side**2 != met.shape[-1]:
        return torch.ones_like(met)
    return functional.max_pool2d(met.unflatten(-1, (side, side)).float(), 3, 1, 1).flatten(2).bool()


def _chosen(origins: Tensor, directions: Tensor, depths: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """The points (N, P, 3) of the chosen samples, in their order, and which of them (N, P) are not there to fill up."""
    subject, view, ray, _ = chosen.nonzero(as_tuple=True)
    origins, directions = (value.expand(*depths.shape[:3], -1)[subject, view, ray] for value in (origins, directions))
    points = torch.addcmul(origins, depths[chosen][:, None], directions)  # (K, 3)
    counts = torch.bincount(subject, minlength=len(depths))
    filled = pad_sequence(points.split(counts.tolist()), batch_first=True)
    return filled, torch.arange(filled.shape[1], device=counts.device) < counts[:, None]


def _points(origins: Tensor, directions: Tensor, depths: Tensor) -> Tensor:
    """Points (N, V, R, S, 3) along rays."""
    return torch.addcmul(origins[..., None, :], depths[..., None], directions[..., None, :])


def _look(field: Field, origins: Tensor, directions: Tensor, depths: Tensor) -> tuple[Tensor, Tensor]:
    sigma, colours = field(_points(origins, directions, depths).flatten(1, 3))
    return sigma.view(depths.shape), colours.view(*depths.shape, -1)


def _compose(share: Tensor, colours: Tensor) -> Tensor:
    """Sum over samples: (N, V, R, S) and (N, V, R, S, C) to (N, V, R, C)."""
    samples, channels = colours.shape[3:]
    summed = _Compose.apply(share.reshape(-1, samples), colours.reshape(-1, samples, channels))
    return summed.view(*share.shape[:3], channels)


class _Compose(torch.autograd.Function):
    """Rays (n, S) and (n, S, C) to (n, C); the derivative is written out because autograd's copies ray by ray."""

    @staticmethod
    def forward(ctx: Any, share: Tensor, colours: Tensor) -> Tensor:
        ctx.save_for_backward(share, colours)
        return torch.bmm(share[:, None], colours)[:, 0]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        share, colours = ctx.saved_tensors
        gradient = gradient.contiguous()
        return torch.bmm(colours, gradient[:, :, None])[:, :, 0], share[:, :, None] * gradient[:, None]


def _limits(origins: Tensor, directions: Tensor, options: RayOptions, rules: Rules) -> tuple[Tensor | float, Tensor | float]:
    """Near and far. Rays that miss the box take the least and the greatest near limit of those that hit it, which is
    what the original does; where none hits, nothing is replaced."""
    if options.near is not None and options.far is not None:
        return options.near, options.far
    near, far = box_span(origins, directions, options.box_warp)  # (N, V, R, 1)
    hit = far > near
    reach = (0, 1, 2) if rules == "official" else (2,)
    least = torch.where(hit, near, torch.inf).amin(dim=reach, keepdim=True)
    greatest = torch.where(hit, near, -torch.inf).amax(dim=reach, keepdim=True)
    keep = hit | ~hit.any(dim=2, keepdim=True) if rules == "view" else hit | ~hit.any()
    return torch.where(keep, near, least), torch.where(keep, far, greatest)
