"""An atlas: heads that a generator draws, kept beside its weights, and the axes of W along which they follow a sentence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from facednerf_core.compute import rng
from facednerf_core.errors import InputError
from facednerf_core.scene import Atlas

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from torch import Tensor

    from facednerf_core.interfaces import Generator

COLUMNS = 16  # of the sheet
BEST = 0.05  # the share of heads furthest along an axis of a sentence, on whose mean place there an edit begins
BEYOND = 0.25  # how much further it begins, in the way from the mean of all heads to that place
CHANCE = 2.5  # standard errors of a correlation by which an axis must do better than chance
ITERATIONS = 300  # of the lasso
ROLE = "atlas"  # of the sheet among the files of a weights card


@dataclass(frozen=True)
class Heading:
    """Directions of W of which a sentence speaks, and how far along each of them an edit begins."""

    axes: Tensor  # (K, C), unit vectors, what tells most of the sentence first
    levels: Tensor  # (K,), of w @ axis: somewhat beyond the heads that are furthest
    middles: Tensor  # (K,), of w @ axis: the mean of all heads
    shares: Tensor  # (K,), what part of the way to its level an edit goes: 1 along the first, less along what tells less

    def reached(self, w: Tensor) -> Tensor:
        """Latents (N, L, C) brought along one axis after another, all rows together; none is brought back.

        Each axis has its own level: on one line through all of them, a head that has much of one would miss another (short
        hair is half way from curls to a bald head, but no hair less). An axis along which a head is further from its level
        than most tells more of it, and so its share grows: long hair must be cut short before it can be gone.
        """
        for axis, level, middle, share in self._each(w):
            missing = (level - w.mean(dim=1, keepdim=True) @ axis).clamp_min(0.0)  # (N, 1)
            part = share * (missing / (level - middle).clamp_min(1e-12)).clamp_min(1.0)
            w = w + (part.clamp_max(1.0) * missing)[..., None] * axis
        return w

    def ends(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """Latents like w (N, L, C) at both ends of the axes, each by its share: its level, and as far on its other side."""
        one, other = w, w
        for axis, level, middle, share in self._each(w):
            one = one + share * (level - one.mean(dim=1, keepdim=True) @ axis)[..., None] * axis
            other = other + share * (2 * middle - level - other.mean(dim=1, keepdim=True) @ axis)[..., None] * axis
        return one, other

    def _each(self, w: Tensor) -> Iterable[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Axis, level, middle and share, one axis after another."""
        return zip(self.axes.to(w), self.levels.to(w), self.middles.to(w), self.shares.to(w), strict=True)


def heading(atlas: Atlas, scores: Tensor, axes: Tensor) -> Heading | None:
    """The axes along which scores (M,) rise, and how far along them the heads are that are furthest.

    None where the scores tell nothing, as under a sentence that is its own source.

    A local gradient does not find glasses, a beard or a bald head where W has a threshold before them; heads that differ in
    all at once do (as the hyperplanes of Shen et al. 2020, "Interpreting the Latent Space of GANs for Semantic Face
    Editing", with a regression in place of labels). A sentence speaks of little, so the regression is the lasso (Tibshirani
    1996) along W's axes: of some hundred heads most axes seem to matter a little by chance, and those are left out. An axis
    tells as much as the score rises from the heads' mean to its level, which is far where few heads have a thing.

    Args:
        atlas: M heads.
        scores: of each.
        axes: of W, rows (K, C), as `Generator.axes` has them.

    Raises:
        ValueError: there is not one score for each head.
    """
    if scores.shape != atlas.latents.shape[:1]:
        raise ValueError(f"{len(atlas.latents)} heads want as many scores, not {tuple(scores.shape)}")
    latents, scores, axes = (value.double().cpu() for value in (atlas.latents, scores, axes))
    axes = axes / axes.norm(dim=1, keepdim=True).clamp_min(1e-12)
    places = (latents - latents.mean(0)) @ axes.T
    apart = scores - scores.mean()
    if not apart.any():
        return None
    spread = places.square().mean(0).sqrt()
    used = spread > 1e-6 * spread.max()
    slopes = lasso(places[:, used] / spread[used], apart / apart.square().mean().sqrt(), CHANCE / len(scores) ** 0.5)
    if not slopes.any():
        return None
    chosen = axes[used] * slopes.sign()[:, None]
    along = latents @ chosen.T
    middles = along.mean(0)
    furthest = along.topk(math.ceil(BEST * len(along)), dim=0).values.mean(0)
    rise = slopes.abs() * (furthest - middles) / spread[used]
    told = rise.argsort(descending=True)[: int(slopes.count_nonzero())]
    levels = furthest + BEYOND * (furthest - middles)
    parts = (chosen[told], levels[told], middles[told], rise[told] / rise.max())
    return Heading(*(part.to(atlas.latents) for part in parts))


def lasso(inputs: Tensor, target: Tensor, penalty: float) -> Tensor:
    """Slopes (K,) that minimise mean((inputs @ slopes - target)^2) / 2 + penalty * |slopes|_1, for centred inputs (M, K) and
    target (M,), by FISTA (Beck and Teboulle 2009, "A Fast Iterative Shrinkage-Thresholding Algorithm")."""
    count = len(target)
    step = 1 / float(torch.linalg.matrix_norm(inputs, 2).square() / count)
    slopes = ahead = inputs.new_zeros(inputs.shape[1])
    pace = 1.0
    for _ in range(ITERATIONS):
        before = slopes
        moved = ahead - step * (inputs.T @ (inputs @ ahead - target)) / count
        slopes = moved.sign() * (moved.abs() - step * penalty).clamp_min(0)
        faster = (1 + (1 + 4 * pace**2) ** 0.5) / 2
        ahead = slopes + (pace - 1) / faster * (slopes - before)
        pace = faster
    return slopes


def draw(generator: Generator, count: int) -> Atlas:
    """`count` heads of a generator; head i is a function of i alone."""
    latents = sampled(generator, count)
    mean = generator.mean()
    view = generator.orbit.view((0.0, 0.0)).to(mean.w.device)
    pictures = []
    with torch.no_grad():
        for row in latents:
            scene = generator.synthesize(mean.with_w(row.expand_as(mean.w)))
            pictures.append(generator.render(scene, view, jitter=None).image[0, 0].clamp(-1, 1))
    return Atlas(latents, torch.stack(pictures))


def sampled(generator: Generator, count: int) -> Tensor:
    """The latents (count, C) of an atlas, the whole of W being drawn from."""
    return torch.stack([generator.sample(rng(0, "atlas", number), truncation=1.0).w[0, 0] for number in range(count)])


def save(pictures: Tensor, path: Path) -> None:
    """The pictures (M, 3, S, S) of an atlas as one sheet, a JPEG file.

    Raises:
        ValueError: they fill no whole rows.
    """
    from PIL import Image

    count, _, height, width = pictures.shape
    if count % COLUMNS or height != width:
        raise ValueError(f"an atlas has square pictures, a multiple of {COLUMNS}; these are {tuple(pictures.shape)}")
    rows = pictures.unflatten(0, (-1, COLUMNS)).permute(0, 3, 1, 4, 2).reshape(-1, COLUMNS * width, 3)
    sheet = ((rows.clamp(-1, 1) + 1) * 127.5).round().byte().cpu().numpy()
    Image.fromarray(sheet).save(path, quality=80)


def load(path: Path, generator: Generator) -> Atlas:
    """The atlas of a sheet that `save` wrote; latents are drawn again.

    Raises:
        InputError: the file is no such sheet.
    """
    import numpy as np
    from PIL import Image

    try:
        with Image.open(path) as opened:
            sheet = torch.from_numpy(np.array(opened.convert("RGB")))
    except OSError as error:
        raise InputError(f"the atlas {path} cannot be read ({error}).") from error
    side, rest = divmod(sheet.shape[1], COLUMNS)
    if rest or not side or sheet.shape[0] % side:
        raise InputError(f"{path} is no atlas: its {COLUMNS} columns are not of square pictures.")
    tiles = sheet.view(-1, side, COLUMNS, side, 3).permute(0, 2, 4, 1, 3).flatten(0, 1)
    mean = generator.mean().w
    return Atlas(sampled(generator, len(tiles)), tiles.to(mean) / 127.5 - 1)
