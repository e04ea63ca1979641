"""Trains the starter's detector of landmarks, pose and foreground, on views of the world disguised as photos.

It has to work on real photos after having seen rendered heads only. So heads are mirrored, moved, turned, scaled and
stretched, recoloured, put before every kind of background, photographed, filtered by random layers and occluded.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from facednerf_core.views import angles
from facednerf_starter.detector.network import CROP_SIZE, FaceReader, Reading
from facednerf_starter.train import disguises, draws, warps
from facednerf_starter.train.arguments import add_run_arguments, device_of, memory_format_of
from facednerf_starter.train.exports import card, export
from facednerf_starter.train.pieces import Piece, rate, set_rate
from facednerf_starter.train.portrait import show_portrait
from facednerf_starter.train.shards import Shards
from facednerf_starter.train.sheets import marked, sheet
from facednerf_starter.train.sights import SightReader, Sights, snapshots
from facednerf_starter.world.landmarks import LANDMARKS


@dataclass(frozen=True)
class Crops:
    """Disguised crops with their truth."""

    image: Tensor  # (B, 3, 128, 128)
    landmarks: Tensor  # (B, K, 2)
    pose: Tensor  # (B, 3) yaw, pitch, roll
    mask: Tensor  # (B, 1, 128, 128)
    judged: Tensor  # (B, 1, 128, 128) bool: where the mask is asked for


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the recipe."""
    add_run_arguments(parser, batch=96)
    parser.add_argument("--rate", type=float, default=2e-3, help="Adam's learning rate")
    parser.add_argument("--widths", type=int, nargs=5, default=[16, 32, 64, 96, 128])


def run(args: argparse.Namespace) -> None:
    """One piece of the recipe; exports when the last step is done."""
    device = device_of(args)
    if args.tiny:
        args.widths = [4, 4, 8, 8, 8]
    shards = Shards(args.data, held_every=args.held)
    reader = SightReader(shards, device)
    torch.manual_seed(args.seed)
    config: dict[str, Any] = {"landmarks": reader.points, "widths": args.widths}
    network = FaceReader(**config).to(device)
    adam = torch.optim.AdamW(network.parameters(), lr=args.rate, weight_decay=1e-3)
    piece = Piece(
        args.out,
        "detector",
        seed=args.seed,
        steps=args.steps,
        networks={"detector": network},
        optimizers={"adam": adam},
        averaged=("detector",),
        settings={"batch": args.batch, "rate": args.rate, "held": args.held, "tiny": args.tiny, **config},
    )

    def one_step(step: int) -> dict[str, Tensor]:
        set_rate(adam, args.rate * rate(step, piece.steps))
        sights = reader.read(*reader.pick(args.batch, draws.key(args.seed, "detector", "pick", step)))
        crops = disguised(sights, args.seed, ("detector", step))
        network.train()
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            reading = network(crops.image.contiguous(memory_format=memory_format_of(device)))
        parts = losses(reading, crops)
        loss = 10 * parts["landmarks"] + 3 * parts["pose"] + parts["mask"]
        adam.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        adam.step()
        return {name: value.detach() for name, value in parts.items()}

    if not (piece.run(one_step, args.minutes, total=args.total, every=100) or args.close):
        return
    best = FaceReader(**config).to(device).eval()
    piece.average_into("detector", best)
    measured = evaluate(best, reader, args)
    show_portrait(best.cpu(), args.out / "detector-portrait.png")
    print(f"detector: {measured}", flush=True)
    names = list(LANDMARKS)
    export(
        args.out,
        "detector",
        best.state_dict(),
        {"class": "facednerf_starter.detector.network.FaceReader", **config, "names": names, "size": CROP_SIZE},
        card(
            piece,
            shards,
            device,
            about="Landmarks, pose of the head and foreground mask of a loose square crop around a face, 128 px.",
            recipe="python -m facednerf_starter.train detector: heat-map landmarks, pose, mask; views of the world "
            "mirrored, scaled 0.45 to 1.3, turned up to 25 degrees, recoloured, photographed, randomly filtered, occluded.",
            measured=measured,
            limits="Never saw a real photo in training. Looked at on one (scikit-image's astronaut, detector-portrait.png).",
        ),
    )


def losses(reading: Reading, crops: Crops) -> dict[str, Tensor]:
    """Mean errors: landmarks in crop widths (Charbonnier), pose in radians, mask by cross-entropy and overlap."""
    inside = ((crops.landmarks > -0.2) & (crops.landmarks < 1.2)).all(-1)  # (B, K)
    distance = ((reading.landmarks.float() - crops.landmarks).square().sum(-1) + 1e-5).sqrt()
    logits, truth, judged = reading.mask.float(), crops.mask, crops.judged.float()
    entropy = F.binary_cross_entropy_with_logits(logits, truth, weight=judged)
    person = logits.sigmoid()
    both = (judged * person * truth).sum((1, 2, 3))
    overlap = (2 * both + 1) / ((judged * (person + truth)).sum((1, 2, 3)) + 1)
    return {
        "landmarks": (distance * inside).sum() / inside.sum().clamp_min(1),
        "pose": F.smooth_l1_loss(reading.pose.float(), crops.pose, beta=0.1),
        "mask": entropy + 0.5 * (1 - overlap).mean(),
    }


def roll(cameras: Tensor) -> Tensor:
    """How far, in radians (...), the world's vertical leans clockwise in the images of camera labels (..., 25)."""
    upward = cameras[..., 4:7]  # row y of the rotation: the world's vertical in the camera's axes
    return torch.atan2(upward[..., 0], -upward[..., 1])


def disguised(sights: Sights, seed: int, names: tuple[str | int, ...]) -> Crops:
    """Crops as the detector may meet them, with their truth."""
    device, count = sights.image.device, len(sights.image)

    def at(name: str) -> draws.Key:
        return draws.key(seed, *names, name)

    number = draws.uniform((count, 6), at("frame"), device)
    mirror = number[:, 0] < 0.5
    order = torch.tensor(warps.mirror_order(LANDMARKS), device=device)
    flipped = sights.landmarks[:, order] * torch.tensor([-1.0, 1.0], device=device) + torch.tensor([1.0, 0.0], device=device)
    image = torch.where(mirror[:, None, None, None], sights.image.flip(-1), sights.image)
    mask = torch.where(mirror[:, None, None, None], sights.mask.flip(-1), sights.mask)
    landmarks = torch.where(mirror[:, None, None], flipped, sights.landmarks)
    yaw, pitch = angles(sights.cameras)
    sign = torch.where(mirror, -1.0, 1.0)
    scale = math.log(0.45) + number[:, 1] * (math.log(1.3) - math.log(0.45))
    turn = (number[:, 2] + number[:, 3] - 1) * math.radians(25)
    stretch = ((number[:, 4] - 0.5) * 0.36).exp()
    wander = draws.normal((count, 2), at("shift"), device).clamp(-2.5, 2.5) * 0.09
    maps = warps.about_centre(scale.exp(), turn, stretch, wander)
    bust, placed = run_on(torch.cat([image - 1, mask], dim=1), number[:, 5] < 0.85, maps)
    drawn = warps.warped(bust, placed, CROP_SIZE, supersample=2)
    image, mask = drawn[:, :3] + 1, drawn[:, 3:]  # white outside, as the world's pictures are

    person = disguises.tinted(image, mask, at("tint"))
    filled, open_to = disguises.cluttered(person, mask, at("clutter"))
    photo = snapshots(Sights(sights.heads, filled, open_to, landmarks, sights.cameras), seed, names)
    photo = disguises.random_layer(photo, at("layer"))
    photo, covered = disguises.occluded(photo, at("blob"))
    photo = disguises.developed(photo, at("develop"))
    return Crops(
        image=photo,
        landmarks=warps.moved(landmarks, maps),
        pose=torch.stack([yaw * sign, pitch, roll(sights.cameras) * sign + turn], dim=-1),
        mask=mask,
        judged=~covered,
    )


def run_on(image: Tensor, chosen: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures (B, C, H, W) on canvases (B, C, 2H, 3W) of zeros with the image at the top middle, and their maps.

    In those `chosen` (B,) the bust goes on downwards and, from low in the picture, to the sides, as it does in photos:
    the picture's edge is repeated.
    """
    height, width = image.shape[-2:]
    canvas = F.pad(F.pad(image, (0, 0, 0, height), mode="replicate"), (width, width, 0, 0), mode="replicate")
    row = torch.arange(2 * height, device=image.device)[:, None]
    column = torch.arange(3 * width, device=image.device)[None]
    middle = (column >= width) & (column < 2 * width)
    own = middle & (row < height)
    goes_on = (row >= height) & middle | (row >= 0.85 * height)
    kept = own | goes_on & chosen[:, None, None]
    stretch = torch.tensor([3.0, 2.0], device=image.device)
    corner = torch.tensor([-1.0, 0.0], device=image.device)
    linear = maps[..., :2] * stretch
    shift = maps[..., :2] @ corner + maps[..., 2]
    return canvas * kept[:, None], torch.cat([linear, shift.unsqueeze(-1)], dim=-1)


@torch.no_grad()
def evaluate(network: FaceReader, reader: SightReader, args: argparse.Namespace) -> dict[str, Any]:
    """Errors on held-out heads, disguised as in training."""
    heads = reader.shards.held[:256].to(reader.device)
    distance, pose, overlap = [], [], []
    rows: list[Sequence[Tensor]] = []
    for part in heads.split(64):
        sights = reader.read(part, part % reader.shards.views)
        crops = disguised(sights, args.seed, ("detector-held", int(part[0])))
        reading = network(crops.image)
        inside = ((crops.landmarks > 0) & (crops.landmarks < 1)).all(-1)
        distance.append((reading.landmarks - crops.landmarks).norm(dim=-1)[inside])
        pose.append((reading.pose - crops.pose).abs())
        found, truth = (reading.mask > 0) & crops.judged, (crops.mask > 0.5) & crops.judged
        overlap.append((found & truth).sum((1, 2, 3)) / (found | truth).sum((1, 2, 3)).clamp_min(1))
        if not rows:
            for i in range(min(8, len(part))):
                shown = reading.mask[i].sigmoid().repeat_interleave(2, 1).repeat_interleave(2, 2)
                true = crops.mask[i].repeat_interleave(2, 1).repeat_interleave(2, 2)
                pair = [marked(crops.image[i], points[i]) for points in (crops.landmarks, reading.landmarks)]
                rows.append([*pair, true, shown])
    sheet(args.out / "detector.png", rows)
    degrees = torch.cat(pose).mean(0) * 180 / math.pi
    return {
        "landmark_error_crop_widths": round(float(torch.cat(distance).mean()), 4),
        "landmark_error_median": round(float(torch.cat(distance).median()), 4),
        "pose_error_degrees": {name: round(float(v), 2) for name, v in zip(("yaw", "pitch", "roll"), degrees, strict=True)},
        "mask_overlap": round(float(torch.cat(overlap).mean()), 4),
    }
