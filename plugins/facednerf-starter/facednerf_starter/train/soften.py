"""Softens a trained generator of designed W: halfway between a bald head and a curly one lies a blend of both, not a cliff.

The world knows glasses or none, so that a generator trained on it learns a threshold: along the line in W from one to the
other nothing happens, then everything. A search by gradient finds no slope there. Here a copy of the generator learns,
from the generator itself, to draw on that line the blend of what stands at its two ends. Only planes and decoder move, and
only what rays bring back is compared: no picture of the world is needed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from facednerf_eg3d.sampling import Draws
from facednerf_panohead.network import TriGridGenerator
from safetensors.torch import load_file
from torch import Tensor

from facednerf_core.errors import InputError
from facednerf_starter.train import draws, showing
from facednerf_starter.train.architectures import ARCHITECTURES, Network
from facednerf_starter.train.arguments import add_run_arguments, device_of
from facednerf_starter.train.exports import export, hardware
from facednerf_starter.train.generator import HeadReader
from facednerf_starter.train.mapping import Design, numbers
from facednerf_starter.train.pieces import Piece, rate, set_rate
from facednerf_starter.train.shards import Shards
from facednerf_starter.world.attributes import LABELS, Attributes, decode, draw
from facednerf_starter.world.cameras import PIVOT, draw_cameras

TURNED = {
    "glasses": 4, "beard": 4, "moustache": 2, "hat": 2, "hair_style": 3, "hair_color": 2, "lipstick": 2, "expression": 3,
}  # fmt: skip
"""The attributes that are turned over, and how often."""
SPARE = 0.15
"""How far beyond its two ends the line is walked; nothing changes there."""
MOVED = ("backbone.synthesis.", "decoder.")
"""What learns."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the recipe."""
    add_run_arguments(parser, batch=4)
    parser.add_argument("--generator", type=Path, required=True, help="the generator's tensors, .json and .card.json beside")
    parser.add_argument("--backbone", choices=sorted(ARCHITECTURES), default="eg3d", help="whose architecture")
    parser.add_argument("--rate", type=float, default=2e-3, help="Adam's learning rate")
    parser.add_argument("--rays", type=int, default=32, help="rays per side of a comparison")
    parser.add_argument("--disturb", type=float, default=0.4, help="largest disturbance of w, in its deviation")
    parser.add_argument("--yaw", type=float, default=0.7, help="largest yaw, radians")


def turned(heads: Attributes, at: draws.Key) -> Attributes:
    """The same heads with one attribute of each turned over to another of its values."""
    rng = draws.generator(at[0], at[1])
    names = [name for name, often in TURNED.items() for _ in range(often)]
    parts = []
    for index in range(len(heads)):
        name = names[int(rng.integers(len(names)))]
        count = len(LABELS[name])
        value = (int(getattr(heads, name)[index]) + 1 + int(rng.integers(count - 1))) % count
        parts.append(heads[index].replace(**{name: value}))
    return Attributes.cat(parts)


def blended(one: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """What stands at `share` (N,) of the way from one (N, ...) to the other."""
    return torch.lerp(one, other, share.clamp(0, 1).view(-1, *[1] * (one.ndim - 1)))


def looked_at(network: Network, ws: Tensor, cameras: Tensor, jitter: Draws, rays: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features (N, V, C, r, r), opacity and depth (N, V, 1, r, r) that rays bring back."""
    if isinstance(network, TriGridGenerator):
        found = network.render(network.grids(ws), cameras, ws, network.background(ws), resolution=rays, draws=jitter)
        return found.feature, found.alpha, found.depth
    volume = network.render(network.planes(ws), cameras, resolution=rays, draws=jitter)
    return volume.feature, volume.alpha, volume.depth


def run(args: argparse.Namespace) -> None:
    """One piece of the recipe; exports when the last step is done."""
    device = device_of(args)
    kind = ARCHITECTURES[args.backbone]
    config: dict[str, Any] = json.loads(args.generator.with_suffix(".json").read_text("utf-8"))
    told_of: dict[str, Any] = json.loads(args.generator.with_suffix(".card.json").read_text("utf-8"))
    if not told_of["settings"]["mapping"].get("designed"):
        raise InputError(
            f"the W of '{args.generator}' was learned; two heads that differ in one thing are known only in a designed one."
        )
    named = config.pop("class")
    tensors = {name: value.float() for name, value in load_file(args.generator).items()}
    teacher = kind.plain.from_state_dict(tensors, **config).to(device)
    student = kind.plain.from_state_dict({name: value.clone() for name, value in tensors.items()}, **config).to(device)
    for name, value in student.named_parameters():
        value.requires_grad_(name.startswith(MOVED))
    design = Design(config["w_dim"], told_of["settings"]["seed"], device)
    adam = torch.optim.Adam([p for p in student.parameters() if p.requires_grad], lr=args.rate, betas=(0.9, 0.99))
    piece = Piece(
        args.out,
        kind.file,
        seed=args.seed,
        steps=args.steps,
        networks={"student": student},
        optimizers={"adam": adam},
        averaged=("student",),
        ema=0.99,
        settings={"batch": args.batch, "rate": args.rate, "rays": args.rays, "disturb": args.disturb, "yaw": args.yaw},
    )
    pivot = 0.0 if args.backbone == "panohead" else PIVOT[2]

    def one_step(step: int) -> dict[str, Tensor]:
        def at(name: str) -> draws.Key:
            return draws.key(args.seed, "soften", name, step)

        set_rate(adam, args.rate * rate(step, piece.steps, warm=20))
        one = decode(draw(at("heads")[0], 0, args.batch))
        w = torch.stack([design(numbers(heads).to(device)) for heads in (one, turned(one, at("turn")))])
        size = draws.uniform((args.batch, 1), at("size"), device) * args.disturb
        w = w + size * draws.normal((args.batch, w.shape[-1]), at("move"), device)
        w = w[:, :, None].repeat(1, 1, student.num_ws, 1)
        share = draws.uniform((args.batch,), at("share"), device) * (1 + 2 * SPARE) - SPARE
        cameras = draw_cameras(at("cameras")[0], 0, args.batch, 1, args.yaw, depth=pivot).to(device)
        options, rays = teacher.options, args.rays**2
        jitter = Draws(
            draws.uniform((1, 1, rays, options.coarse), at("coarse"), device),
            draws.uniform((1, 1, rays, options.fine), at("fine"), device),
        )
        with torch.no_grad():
            ends = [looked_at(teacher, ws, cameras, jitter, args.rays) for ws in w]
        wanted = [blended(first, last, share) for first, last in zip(*ends, strict=True)]
        found = looked_at(student, blended(w[0], w[1], share), cameras, jitter, args.rays)
        solid = ((ends[0][1] > 0.95) & (ends[1][1] > 0.95)).float()
        off = [(x - y).abs() for x, y in zip(found, wanted, strict=True)]
        parts = {
            "feature": off[0].mean() + off[0][:, :, :3].mean(),
            "alpha": off[1].mean(),
            "depth": (off[2] * solid).sum() / solid.sum().clamp_min(1),
        }
        loss = parts["feature"] + parts["alpha"] + 2.0 * parts["depth"]
        adam.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in student.parameters() if p.requires_grad], 5.0)
        adam.step()
        return {name: value.detach() for name, value in parts.items()}

    if not (piece.run(one_step, args.minutes, total=args.total, every=20) or args.close):
        return
    piece.average_into("student", student)
    reader = HeadReader(Shards(args.data, held_every=args.held), device)
    halved = {k: v.half().float() if v.is_floating_point() else v for k, v in student.state_dict().items()}
    frozen = kind.plain.from_state_dict(halved, **config)
    measured = showing.measure(frozen, reader, args.out, design)
    before = showing.measure(teacher, reader, args.out / "before", design)
    print(f"{kind.file}: {measured}, before {before}", flush=True)
    export(
        args.out,
        kind.file,
        student.state_dict(),
        {"class": named, **config},
        {
            **told_of,
            "softened": {
                "recipe": f"python -m facednerf_starter.train soften --backbone {args.backbone}: on the line in W between "
                "two heads that differ in one attribute, it learns to draw the blend of what it draws at the ends.",
                "settings": piece.settings,
                "steps": piece.step,
                "seconds": round(piece.seconds, 1),
                "hardware": hardware(device),
                "on_the_same_heads": {"before": before, "after": measured},
            },
        },
    )
