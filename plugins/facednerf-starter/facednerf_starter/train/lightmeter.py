"""The light network measured through `Dpr` itself: which light it finds, and what it makes of a picture under another."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from facednerf_dpr.lab import lightness
from facednerf_dpr.relighter import Dpr
from torch import Tensor

from facednerf_starter.train import draws, lamps
from facednerf_starter.train.albums import Portraitist
from facednerf_starter.train.shards import Shards
from facednerf_starter.train.sheets import sheet
from facednerf_starter.train.studio import Studio, by_generator, by_world, seen_from
from facednerf_starter.world.attributes import decode
from facednerf_starter.world.photos import backgrounds

LIGHTS = 4
FEW = 4
"""Held-out heads that are drawn on a CPU."""


def metered(
    dpr: Dpr, shards: Shards, device: torch.device, out: Path, seed: int, painter: Portraitist | None
) -> dict[str, dict[str, float]]:
    """What was measured on held-out heads: as the world shows them over white and before rooms, and as a generator does.

    Writes `light.png`: of the world, then of the generator, a row of pictures, a row of them relit, a row of the truth.
    """
    held = shards.held if device.type == "cuda" else shards.held[:FEW]
    heads, cameras = decode(shards.field("z").take(held)), seen_from(seed, "held", len(held))
    size, count = shards.size, len(held)
    world = by_world(heads, cameras, lamps.drawn(count, LIGHTS, seed, "held"), size, device)
    measured = {"world": score(dpr, world), "world_before_rooms": score(dpr, furnished(world, seed))}
    rows = shown(dpr, world)
    if painter is not None:
        lights = lamps.of_world(count, LIGHTS, seed, "held", "generator")
        drawn = by_generator(painter, heads, cameras, lights, size, device)
        measured["generator"] = score(dpr, drawn)
        rows += shown(dpr, drawn)
    sheet(out / "light.png", rows)
    return measured


def furnished(studio: Studio, seed: int) -> Studio:
    """The same heads, each before one of the backgrounds of photos, whatever the light."""
    count, (height, width) = len(studio), studio.image.shape[-2:]
    rng = draws.generator(seed, "lightmeter", "rooms")
    behind = backgrounds(count, height, width, rng, studio.light)[:, None]  # (M, 1, 3, H, W)
    image = studio.image.float() / 255 + (1 - studio.mask.float() / 255) * (behind - 1)
    return Studio((image.clamp(0, 1) * 255).round().byte(), studio.mask, studio.light)


@torch.no_grad()
def score(dpr: Dpr, studio: Studio) -> dict[str, float]:
    """Errors of the estimate, and of the lightness inside the mask when each picture is relit as the head's next one.

    `*_guessed` is the error of whoever always says the mean of these lights, `psnr_as_it_was` that of pictures left alone.
    """
    found, relit, alone, area = [], [], [], []
    for part in torch.arange(len(studio), device=studio.light.device).split(16):
        image, mask, light = studio.image[part].float() / 127.5 - 1, studio.mask[part].float() / 255, studio.light[part]
        found.append(dpr.estimate(image))
        truth, own = lightness((image.roll(-1, 1) + 1) / 2), lightness((image + 1) / 2)
        drawn = lightness((dpr.relight(image, light.roll(-1, 1)) + 1) / 2)
        relit.append(((drawn - truth).square() * mask).sum())
        alone.append(((own - truth).square() * mask).sum())
        area.append(mask.sum())
    told, light = torch.cat(found), studio.light
    mean = light.mean((0, 1)).expand_as(light)
    pixels = torch.stack(area).sum()
    return {
        "direction_degrees": round(float(degrees(told, light).mean()), 2),
        "direction_degrees_median": round(float(degrees(told, light).median()), 2),
        "direction_degrees_guessed": round(float(degrees(mean, light).mean()), 2),
        "light_relative_error": round(float(relative(told, light)), 4),
        "light_relative_error_guessed": round(float(relative(mean, light)), 4),
        "psnr_relit": round(float(-10 * (torch.stack(relit).sum() / pixels).log10()), 2),
        "psnr_as_it_was": round(float(-10 * (torch.stack(alone).sum() / pixels).log10()), 2),
        "heads": len(studio),
        "lights": light.shape[1],
    }


def degrees(found: Tensor, truth: Tensor) -> Tensor:
    """The angle (...) between the directions from which most light comes of lights (..., 9)."""
    return torch.cosine_similarity(found[..., 1:4], truth[..., 1:4], dim=-1).clamp(-1, 1).acos() * (180 / math.pi)


def relative(found: Tensor, truth: Tensor) -> Tensor:
    """The mean length of the difference of lights (..., 9), as a share of the true light's."""
    return ((found - truth).norm(dim=-1) / truth.norm(dim=-1)).mean()


@torch.no_grad()
def shown(dpr: Dpr, studio: Studio, count: int = 8) -> list[list[Tensor]]:
    """Rows of pictures (3, H, W): of a few heads under their first light, relit as under their last, and the truth."""
    image, light = studio.image[:count].float() / 127.5 - 1, studio.light[:count]
    relit = dpr.relight(image[:, :1], light[:, -1:])
    return [list(image[:, 0]), list(relit[:, 0]), list(image[:, -1])]
