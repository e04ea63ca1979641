"""Trains the starter's light network: DPR's architecture, on heads whose light is known.

The losses are those of Zhou et al. 2019, section 4, without the discriminator: a pair shows one face under two lights, each
picture is relit as the other, the light is told, and the features of the face must not depend on it. The skip branches come
in one by one. Pictures are read as lightness, the world's and, given a generator, the generator's (`studio`), as a photo may
show them (`prints`). Lights are in the camera's frame and in the world's unit, which is DPR's; see `lamps`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from facednerf_dpr.hourglass import LEVELS, Hourglass
from facednerf_dpr.relighter import Dpr
from torch import Tensor

from facednerf_starter.train import draws, lamps
from facednerf_starter.train.albums import Portraitist
from facednerf_starter.train.arguments import add_run_arguments, device_of, memory_format_of
from facednerf_starter.train.exports import card, export
from facednerf_starter.train.lightmeter import metered
from facednerf_starter.train.likeness import edges
from facednerf_starter.train.pieces import Piece, rate, set_rate
from facednerf_starter.train.prints import Prints, printed
from facednerf_starter.train.shards import Shards
from facednerf_starter.train.studio import LightReader, Studio, by_generator, by_world, seen_from
from facednerf_starter.world.attributes import decode

OUTSIDE = 0.2
"""How much a pixel of the background counts, where one of the face counts 1 more."""
WEIGHTS = {"image": 4.0, "edges": 4.0, "light": 1.0, "face": 0.2}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the recipe."""
    add_run_arguments(parser, batch=128)
    parser.add_argument("--generator", type=Path, help="generator.safetensors (designed W), whose pictures are learned too")
    parser.add_argument("--heads", type=int, default=2048, help="heads that the world draws under several lights")
    parser.add_argument("--drawn", type=int, default=4096, help="heads that the generator draws under several lights")
    parser.add_argument("--lights", type=int, default=4, help="lights of each of them, at least 2")
    parser.add_argument("--compile", action="store_true", help="compile the world's distance function for its heads")
    parser.add_argument("--rate", type=float, default=2e-3, help="Adam's learning rate")
    parser.add_argument("--width", type=int, default=8, help="channels of the outermost level")
    parser.add_argument("--features", type=int, default=16, help="channels that stand for light")
    parser.add_argument("--hidden", type=int, default=64, help="hidden units between those and the nine numbers")
    parser.add_argument("--bare", type=int, default=2000, help="steps in which the skip branches come in one by one")


def run(args: argparse.Namespace) -> None:
    """One piece of the recipe, preparation included in its minutes; exports when the last step is done."""
    began = time.monotonic()
    device = device_of(args)
    if args.tiny:
        args.width, args.features, args.hidden, args.heads, args.drawn, args.bare = 2, 3, 4, 2, 2, 4
    shards = Shards(args.data, held_every=args.held)
    painter = Portraitist.from_file(args.generator, device) if args.generator else None
    reader = LightReader(shards, studios(shards, painter, device, args), device)
    torch.manual_seed(args.seed)
    config: dict[str, Any] = {
        "width": args.width, "light_features": args.features, "light_hidden": args.hidden, "size": shards.size,
    }  # fmt: skip
    layout = memory_format_of(device)
    network = Hourglass(**config).to(device).to(memory_format=layout)
    adam = torch.optim.AdamW(network.parameters(), lr=args.rate, weight_decay=1e-4)
    piece = Piece(
        args.out,
        "light",
        seed=args.seed,
        steps=args.steps,
        networks={"light": network},
        optimizers={"adam": adam},
        averaged=("light",),
        settings={
            "batch": args.batch, "rate": args.rate, "held": args.held, "tiny": args.tiny, "heads": args.heads,
            "drawn": args.drawn, "lights": args.lights, "bare": args.bare, "generator": painter is not None, **config,
        },
    )  # fmt: skip
    print(f"light: {sum(p.numel() for p in network.parameters()) / 1e6:.2f} M parameters", flush=True)

    def one_step(step: int) -> dict[str, Tensor]:
        set_rate(adam, args.rate * rate(step, piece.steps))
        pairs = reader.read(args.batch // 2, draws.key(args.seed, "light", "read", step))
        prints = printed(pairs, args.seed, "light", step)
        network.train()
        parts = blame(network, prints, skip_count(step, args.bare), layout)
        loss = torch.stack([WEIGHTS[name] * value for name, value in parts.items()]).sum()
        adam.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        adam.step()
        return {name: value.detach() for name, value in parts.items()}

    if not (piece.run_rest(one_step, args.minutes, began, total=args.total, every=100) or args.close):
        return
    best = piece.average_into("light", Hourglass(**config))
    halved = {name: value.half() if value.is_floating_point() else value for name, value in best.state_dict().items()}
    dpr = Dpr(Hourglass.from_state_dict(halved, **config).to(device))
    measured = metered(dpr, shards, device, args.out, args.seed, painter)
    print(f"light: {measured}", flush=True)
    export(
        args.out,
        "light",
        halved,
        {"class": "facednerf_dpr.hourglass.Hourglass", **config},
        card(
            piece,
            shards,
            device,
            about=f"DPR's architecture, narrow, {shards.size} px: the light of a head of the starter world as nine SH "
            "numbers, and the head's lightness under another light. Orthonormal basis without the Condon-Shortley phase, "
            "the camera's frame, the world's unit (a shading of 1 leaves albedo as it is), luminance.",
            recipe="python -m facednerf_starter.train light: pairs of one head under two lights, drawn by the world"
            + (" and by the generator" if painter else "")
            + "; each relit as the other (L1 of lightness and of its edges), the light told (L2), the face's features "
            "alike; mirrored, exposed together with the light, before other backgrounds, soft, noisy.",
            measured=measured,
            limits="Knows the starter's synthetic heads and their lights: a key, a fill and an ambient, or one soft light. "
            "How bright a light is it can only guess, as the albedo is unknown. The network is small: what it relights is "
            "soft, and cast shadows come out faintly. On real photos its numbers are indications.",
        ),
    )


def studios(shards: Shards, painter: Portraitist | None, device: torch.device, args: argparse.Namespace) -> list[Studio]:
    """Training heads under several lights each, by the world and, if there is one, by the generator."""
    found = []
    for name, wanted in (("world", args.heads), ("generator", args.drawn)):
        if name == "generator" and painter is None:
            continue
        chosen = shards.training[:wanted]
        heads, cameras = decode(shards.field("z").take(chosen)), seen_from(args.seed, name, len(chosen))
        if painter is None or name == "world":
            lights = lamps.drawn(len(chosen), args.lights, args.seed, name)
            found.append(by_world(heads, cameras, lights, shards.size, device, compile=args.compile))
        else:
            lights = lamps.of_world(len(chosen), args.lights, args.seed, name)
            found.append(by_generator(painter, heads, cameras, lights, shards.size, device))
    return found


def skip_count(step: int, bare: int) -> int:
    """How many of the outer levels still are without their skip branch: all at first, none after 4 / 5 of `bare` steps."""
    return max(0, LEVELS - (LEVELS + 1) * step // bare) if bare else 0


def blame(network: Hourglass, prints: Prints, without: int, layout: torch.memory_format) -> dict[str, Tensor]:
    """The losses of a batch, each a scalar: lightness and its edges when each picture is relit as the other of its pair, the
    squared error of the light, and by how much the features of a face differ between its two lights, as a share of what two
    pictures of a batch differ by: to be small must gain them nothing."""
    count = len(prints.light) // 2
    device = prints.shown.device
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        bottom, skips = network.descend(prints.shown.contiguous(memory_format=layout), without)
        drawn = network.ascend(bottom, skips, prints.light.roll(count, 0))
        told = network.light.estimate(bottom[:, : network.light_features])
    face = bottom[:, network.light_features :].float()
    wanted, weight = prints.clean.roll(count, 0), prints.mask.roll(count, 0) + OUTSIDE
    return {
        "image": ((drawn - wanted).abs() * weight).sum() / weight.sum(),
        "edges": edges(drawn, wanted, weight, scales=2),
        "light": (told - prints.light).square().sum(1).mean(),
        "face": (face[:count] - face[count:]).square().mean() / (2 * face.var(0, unbiased=False).mean()).clamp_min(1e-8),
    }
