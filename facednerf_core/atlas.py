"""An atlas: heads that a generator draws, kept beside its weights, and the direction of W that a sentence has among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from facednerf_core.compute import rng
from facednerf_core.errors import InputError
from facednerf_core.scene import Atlas

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from facednerf_core.interfaces import Generator

COLUMNS = 16  # of the sheet
BEST = 0.08  # the share of heads that count as following a sentence
ROLE = "atlas"  # of the sheet among the files of a weights card


@dataclass(frozen=True)
class Heading:
    """A direction of W, and how far along it heads are that follow the sentence."""

    direction: Tensor  # (C,), a unit vector
    level: float  # of w @ direction

    def reached(self, w: Tensor) -> Tensor:
        """Latents (N, L, C) brought along the direction, all rows together, up to the level; none is brought back."""
        direction = self.direction.to(w)
        missing = (self.level - w.mean(dim=1, keepdim=True) @ direction).clamp_min(0.0)  # (N, 1)
        return w + missing[..., None] * direction


def heading(atlas: Atlas, scores: Tensor) -> Heading | None:
    """The direction along which scores (M,) rise, by ridge regression, and the mean level of the best heads on it.

    None where all scores are the same, as under a sentence that is its own source.

    A local gradient does not find glasses, a beard or a bald head where W has a threshold before them; heads that differ in
    all at once do (as the hyperplanes of Shen et al. 2020, "Interpreting the Latent Space of GANs for Semantic Face
    Editing", with a regression in place of labels). The penalty is the mean squared distance of a head from their mean: with
    it the direction lies where heads are, and the noise of some hundred scores stays small beside what they tell.

    Raises:
        ValueError: there is not one score for each head.
    """
    if scores.shape != atlas.latents.shape[:1]:
        raise ValueError(f"{len(atlas.latents)} heads want as many scores, not {tuple(scores.shape)}")
    latents, scores = atlas.latents.double().cpu(), scores.double().cpu()
    centred = latents - latents.mean(0)
    apart = scores - scores.mean()
    if not apart.any():
        return None
    kernel = centred @ centred.T  # (M, M): fewer heads than dimensions, or more, cost the same
    penalty = kernel.diagonal().mean() * torch.eye(len(kernel), dtype=kernel.dtype)
    direction = torch.linalg.solve(kernel + penalty, apart) @ centred
    direction = direction / direction.norm()
    best = scores.topk(max(1, round(BEST * len(scores)))).indices
    return Heading(direction.to(atlas.latents), float((latents[best] @ direction).mean()))


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
