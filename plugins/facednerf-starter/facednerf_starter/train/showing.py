"""What a trained generator is shown by: errors on held-out heads, and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from facednerf_starter.train import draws
from facednerf_starter.train.likeness import decibels
from facednerf_starter.train.mapping import told
from facednerf_starter.train.sheets import sheet
from facednerf_starter.world.cameras import look

if TYPE_CHECKING:
    from facednerf_starter.train.architectures import Network
    from facednerf_starter.train.generator import HeadReader
    from facednerf_starter.train.mapping import Design


@torch.no_grad()
def measure(
    network: Network, reader: HeadReader, out: Path, design: Design | None = None, heads: int = 96
) -> dict[str, Any]:
    """Held-out heads from their true z by the mapping, or from their w by design, in up to four views: PSNR of all and of
    the subject, depth error.

    Writes `generator.png`: truth and rendering, pair beside pair.
    """
    chosen = reader.shards.held[:heads].to(reader.device)
    views = torch.arange(min(4, reader.shards.views), device=reader.device)
    images, truths, masks, depth_errors, alpha_errors = [], [], [], [], []
    for part in chosen.split(8):
        z, numbers, truth = reader.read(part, views.expand(len(part), -1))
        label = torch.zeros(len(part), 25, device=reader.device)
        ws = network.mapping(z, label) if design is None else design.rows(numbers, network.num_ws)
        image, volume = network(ws, truth.cameras)
        half = F.avg_pool2d(truth.mask.flatten(0, 1), 2).unflatten(0, truth.mask.shape[:2])
        solid = (half > 0.98) & (truth.depth > 0)
        depth_errors.append(((volume.depth - truth.depth).abs() / truth.depth.clamp_min(1e-3))[solid])
        alpha_errors.append((volume.alpha - half).abs().mean((1, 2, 3, 4)))
        images.append(image)
        truths.append(truth.image)
        masks.append(truth.mask)
    image, wanted, mask = torch.cat(images), torch.cat(truths), torch.cat(masks)
    rows = []
    for first in range(0, min(24, len(image)), 2):
        row: list[Tensor] = []
        for head in range(first, min(first + 2, len(image))):
            for view in range(min(2, image.shape[1])):
                row += [wanted[head, view], image[head, view]]
        rows.append(row)
    sheet(out / "generator.png", [row for row in rows if len(row) == len(rows[0])])
    return {
        "psnr": round(decibels(image, wanted), 2),
        "psnr_subject": round(decibels(image, wanted, mask), 2),
        "depth_relative_error": round(float(torch.cat(depth_errors).mean()), 5),
        "alpha_absolute_error": round(float(torch.cat(alpha_errors).mean()), 5),
        "heads": len(image),
        "views": image.shape[1],
    }


@torch.no_grad()
def pictures(
    network: Network, reader: HeadReader, out: Path, *, seed: int, deviation: Tensor, design: Design | None = None
) -> None:
    """`generator-samples.png`: new heads at truncation 0.7 from three sides; `generator-between.png`: latents between
    two heads, and latents disturbed by half a deviation in each row. Where W is designed, the heads are by design: the
    mapping may not be fitted yet."""
    device = reader.device
    label = torch.zeros(6, 25, device=device)
    turned = look(torch.tensor([-0.6, 0.0, 0.6]), torch.tensor([0.1, 0.0, -0.1])).to(device)
    z = draws.normal((6, network.backbone.mapping.z_dim), draws.key(seed, "samples"), device)
    latents = network.mapping(z, label) if design is None else design.rows(told(z), network.num_ws)
    mean = network.backbone.mapping.w_avg if design is None else torch.zeros_like(latents)
    deviation = deviation if design is None else torch.ones_like(deviation)
    ws = mean + 0.7 * (latents - mean)
    image, _ = network(ws, turned.expand(6, -1, -1))
    sheet(out / "generator-samples.png", [list(image[:3].flatten(0, 1)), list(image[3:].flatten(0, 1))])
    front = look(torch.zeros(1), torch.zeros(1)).to(device)
    ws = latents
    rows = []
    for one, other in ((0, 1), (2, 3), (4, 5)):
        line = torch.stack([ws[one].lerp(ws[other], t / 5) for t in range(6)])
        rows.append(list(network(line, front.expand(6, -1, -1))[0][:, 0]))
    moved = ws + 0.5 * deviation.to(device) * draws.normal(tuple(ws.shape), draws.key(seed, "moved"), device)
    rows.append(list(network(moved, front.expand(6, -1, -1))[0][:, 0]))
    sheet(out / "generator-between.png", rows)
