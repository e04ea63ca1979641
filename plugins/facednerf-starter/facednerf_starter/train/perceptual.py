"""Trains the starter's perceptual features: a narrow VGG16 that reads heads out of photographed views of the world.

From its levels, heads (not exported) tell the attributes and the landmarks, and redraw at half size what was
photographed, before it was: the picture over white and the mask. So features know both what a head is and how it looks.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facednerf_core.perceptual import Vgg16
from facednerf_starter.train import draws
from facednerf_starter.train.arguments import add_run_arguments, device_of, memory_format_of
from facednerf_starter.train.exports import card, export
from facednerf_starter.train.pieces import Piece, rate, set_rate
from facednerf_starter.train.shards import Shards
from facednerf_starter.train.sheets import sheet
from facednerf_starter.train.sights import SightReader, snapshots


class Readout(nn.Module):
    """The tasks that teach the features."""

    def __init__(self, widths: list[int], attributes: int, points: int, size: int) -> None:
        super().__init__()
        self.grid = size // 32
        flat = (widths[3] + widths[4]) * self.grid**2
        self.attributes = nn.Sequential(nn.Dropout(0.1), nn.Linear(flat, attributes))
        self.landmarks = nn.Linear(widths[4] * (size // 16) ** 2, 2 * points)
        self.columns = nn.ModuleList(nn.Conv2d(width, 24, 1) for width in widths)
        self.redraw = nn.Conv2d(24, 4, 3, padding=1)
        self.redrawn = size // 2

    def forward(self, levels: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Standardised attributes (B, A), landmarks (B, K * 2), redrawn RGB and mask (B, 4, H / 2, W / 2)."""
        pooled = [F.adaptive_avg_pool2d(level, self.grid).flatten(1) for level in levels[3:]]
        column = torch.zeros((), device=levels[0].device)
        for level, conv in zip(levels, self.columns, strict=True):
            half = (self.redrawn, self.redrawn)
            column = column + F.interpolate(conv(level), size=half, mode="bilinear", align_corners=False)
        return self.attributes(torch.cat(pooled, 1)), self.landmarks(levels[4].flatten(1)), self.redraw(F.relu(column))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the recipe."""
    add_run_arguments(parser, batch=96)
    parser.add_argument("--rate", type=float, default=1.5e-3, help="Adam's learning rate")
    parser.add_argument("--widths", type=int, nargs=5, default=[8, 16, 32, 64, 64])


def run(args: argparse.Namespace) -> None:
    """One piece of the recipe; exports when the last step is done."""
    device = device_of(args)
    if args.tiny:
        args.widths = [4, 4, 4, 8, 8]
    shards = Shards(args.data, held_every=args.held)
    reader = SightReader(shards, device)
    truth, scale = standardised(shards, device)
    torch.manual_seed(args.seed)
    network = begun(Vgg16(args.widths)).to(device)
    readout = Readout(args.widths, truth.shape[1], reader.points, shards.size).to(device)
    parameters = [*network.parameters(), *readout.parameters()]
    adam = torch.optim.AdamW(parameters, lr=args.rate, weight_decay=1e-3)
    piece = Piece(
        args.out,
        "perceptual",
        seed=args.seed,
        steps=args.steps,
        networks={"perceptual": network, "readout": readout},
        optimizers={"adam": adam},
        averaged=("perceptual", "readout"),
        settings={
            "batch": args.batch, "rate": args.rate, "held": args.held, "tiny": args.tiny, "widths": args.widths,
        },
    )  # fmt: skip

    def losses(photo: Tensor, sights_image: Tensor, mask: Tensor, landmarks: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            levels = network(photo.contiguous(memory_format=memory_format_of(device)))
            attributes, points, redrawn = readout(levels)
        clean = F.avg_pool2d(torch.cat([sights_image, mask], 1), 2)
        return {
            "attributes": (attributes.float() - wanted).square().mean(),
            "landmarks": F.smooth_l1_loss(points.float().unflatten(1, (-1, 2)) + 0.5, landmarks, beta=0.02),
            "redrawn": F.l1_loss(redrawn.float(), clean),
        }

    def one_step(step: int) -> dict[str, Tensor]:
        set_rate(adam, args.rate * rate(step, piece.steps))
        sights = reader.read(*reader.pick(args.batch, draws.key(args.seed, "perceptual", "pick", step)))
        photo = snapshots(sights, args.seed, ("perceptual", step))
        network.train()
        readout.train()
        torch.manual_seed(draws.key(args.seed, "perceptual", "dropout", step)[0])
        parts = losses(photo, sights.image, sights.mask, sights.landmarks, truth[sights.heads])
        loss = parts["attributes"] + 10 * parts["landmarks"] + parts["redrawn"]
        adam.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        adam.step()
        return {name: value.detach() for name, value in parts.items()}

    if not (piece.run(one_step, args.minutes, total=args.total, every=100) or args.close):
        return
    piece.average_into("perceptual", network).eval()
    piece.average_into("readout", readout).eval()
    measured = evaluate(network, readout, reader, truth, args)
    print(f"perceptual: {measured}", flush=True)
    export(
        args.out,
        "perceptual",
        network.state_dict(),
        {"class": "facednerf_core.perceptual.Vgg16", "widths": args.widths, "size": shards.size},
        card(
            piece,
            shards,
            device,
            about="VGG16 (narrow, torchvision's names, ImageNet's normalisation): features for the reconstruction loss.",
            recipe="python -m facednerf_starter.train perceptual: attributes, landmarks and the unphotographed picture "
            f"are told from its five levels; {scale} attribute numbers.",
            measured=measured,
            limits="Trained from scratch on the synthetic world; not ImageNet's VGG16, and no LPIPS calibration.",
        ),
    )


def standardised(shards: Shards, device: torch.device) -> tuple[Tensor, int]:
    """Every head's attribute vector (heads, A) with mean 0 and deviation 1 over the training heads, and A."""
    values = shards.field("attributes").take(torch.arange(shards.count)).double()
    mean, deviation = values[shards.training].mean(0), values[shards.training].std(0).clamp_min(1e-2)
    return ((values - mean) / deviation).clamp(-4, 4).float().to(device), values.shape[1]


def begun(network: Vgg16) -> Vgg16:
    """The network with He's initial weights, without which thirteen layers do not start to learn."""
    for layer in network.features:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return network


@torch.no_grad()
def evaluate(
    network: Vgg16, readout: Readout, reader: SightReader, truth: Tensor, args: argparse.Namespace
) -> dict[str, Any]:
    """On photographed held-out heads: variance of the attributes explained, landmark and redrawing errors."""
    heads = reader.shards.held[:256].to(reader.device)
    unexplained, distance, redrawing = [], [], []
    rows: list[list[Tensor]] = []
    for part in heads.split(64):
        sights = reader.read(part, part % reader.shards.views)
        photo = snapshots(sights, args.seed, ("perceptual-held", int(part[0])))
        attributes, points, redrawn = readout(network(photo))
        unexplained.append((attributes - truth[part]).square())
        distance.append((points.unflatten(1, (-1, 2)) + 0.5 - sights.landmarks).norm(dim=-1).mean(1))
        clean = F.avg_pool2d(sights.image, 2)
        redrawing.append((redrawn[:, :3] - clean).abs().mean((1, 2, 3)))
        if not rows:
            rows = [list(sights.image[:8]), list(photo[:8]), list(F.interpolate(redrawn[:8, :3], scale_factor=2.0))]
    sheet(args.out / "perceptual.png", rows)
    return {
        "attribute_variance_explained": round(1 - float(torch.cat(unexplained).mean()), 4),
        "landmark_error_image_widths": round(float(torch.cat(distance).mean()), 4),
        "redrawing_mean_absolute_error": round(float(torch.cat(redrawing).mean()), 4),
    }
