"""Trains the starter's judges: attributes and identity, for measuring only.

Their architecture and seeds are those of no network that a loss uses. They see heads as the world draws them and, given a
generator, as that draws them, always disguised. A person is learned from pairs of pictures that share nothing but the
person: another style, expression, age, light and view (`Attributes.dressed_as`), often another hand that drew it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facednerf_starter.judges.network import SIZE, Judge, PersonJudge
from facednerf_starter.judges.panel import Judges, fitted
from facednerf_starter.judges.questions import CHOICES, HIDDEN, NUMBERS, OUTPUTS, Answers, Truth, answers
from facednerf_starter.train import hearing
from facednerf_starter.train.albums import Portraitist
from facednerf_starter.train.arguments import add_run_arguments, device_of, memory_format_of
from facednerf_starter.train.exports import card, export
from facednerf_starter.train.exposures import exposed
from facednerf_starter.train.pieces import Piece, rate, set_rate
from facednerf_starter.train.recognition import confusion
from facednerf_starter.train.shards import Shards
from facednerf_starter.train.sitters import PairReader


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the recipe."""
    add_run_arguments(parser, batch=384)
    parser.add_argument("--generator", type=Path, help="generator.safetensors (designed W), whose pictures are judged too")
    parser.add_argument("--restyled", type=int, default=4096, help="people whom the world draws in a second style")
    parser.add_argument("--compile", action="store_true", help="compile the world's distance function for those")
    parser.add_argument("--rate", type=float, default=2e-3, help="Adam's learning rate")
    parser.add_argument("--widths", type=int, nargs=4, default=[32, 56, 80, 100])
    parser.add_argument("--blocks", type=int, nargs=4, default=[1, 2, 2, 2])
    parser.add_argument("--embedding", type=int, default=96)


def run(args: argparse.Namespace) -> None:
    """One piece of the recipe, preparation included in its minutes; exports when the last step is done."""
    began = time.monotonic()
    device = device_of(args)
    if args.tiny:
        args.widths, args.blocks, args.embedding = [4, 8, 8, 8], [1, 1, 1, 1], 8
    shards = Shards(args.data, held_every=args.held)
    painter = Portraitist.from_file(args.generator, device) if args.generator else None
    pairs = PairReader(shards, device, args.out, seed=args.seed, people=args.restyled, painter=painter, compile=args.compile)
    torch.manual_seed(args.seed + 7919)  # no other recipe begins from this seed
    shape: dict[str, Any] = {"widths": args.widths, "blocks": args.blocks}
    layout = memory_format_of(device)
    attributes = Judge(OUTPUTS, **shape).to(device).to(memory_format=layout)
    person = PersonJudge(args.embedding, **shape).to(device).to(memory_format=layout)
    reading = nn.Linear(args.embedding, pairs.traits.shape[1]).to(device)  # only while training
    networks: dict[str, nn.Module] = {"attributes": attributes, "person": person, "reading": reading}
    adam = torch.optim.AdamW([p for n in networks.values() for p in n.parameters()], lr=args.rate, weight_decay=2e-2)
    piece = Piece(
        args.out,
        "judges",
        seed=args.seed,
        steps=args.steps,
        networks=networks,
        optimizers={"adam": adam},
        averaged=("attributes", "person"),
        ema=0.998,
        settings={
            "batch": args.batch, "rate": args.rate, "held": args.held, "tiny": args.tiny, "restyled": args.restyled,
            "generator": painter is not None, "embedding": args.embedding, **shape,
        },
    )  # fmt: skip
    print(f"judges: {sum(p.numel() for p in attributes.parameters()) / 1e6:.2f} M parameters each", flush=True)

    def one_step(step: int) -> dict[str, Tensor]:
        set_rate(adam, args.rate * rate(step, piece.steps))
        sitting = pairs.read(args.batch // 2, args.seed, ("judges", step))
        image = fitted(exposed(sitting.image, sitting.mask, args.seed, ("judges", step))).contiguous(memory_format=layout)
        attributes.train()
        person.train()
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            told, known = attributes(image), person(image)
        parts = blame(answers(told), sitting.truth)
        parts["person"] = confusion(known, sitting.people)
        parts["traits"] = (reading(known) - pairs.traits[sitting.people]).square().mean()
        loss = parts["choices"] + 10 * parts["numbers"] + parts["person"] + parts["traits"]
        adam.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for n in networks.values() for p in n.parameters()], 5.0)
        adam.step()
        return {name: value.detach() for name, value in parts.items()}

    if not (piece.run_rest(one_step, args.minutes, began, total=args.total, every=100) or args.close):
        return
    best = {"attributes": Judge(OUTPUTS, **shape), "person": PersonJudge(args.embedding, **shape)}
    tensors = {
        f"{name}.{key}": value.cpu()
        for name, network in best.items()
        for key, value in piece.average_into(name, network).state_dict().items()
    }
    config: dict[str, Any] = {
        "class": "facednerf_starter.judges.panel.Judges", **shape, "embedding": args.embedding, "threshold": 1.0,
        "choices": list(CHOICES), "numbers": list(NUMBERS), "size": SIZE,
    }  # fmt: skip
    halved = {key: value.half().float() if value.is_floating_point() else value for key, value in tensors.items()}
    measured, config["threshold"] = hearing.heard(Judges.from_tensors(halved, config, device), shards, device, args, painter)
    print(f"judges: {measured}", flush=True)
    export(
        args.out,
        "judges",
        tensors,
        config,
        card(
            piece,
            shards,
            device,
            about="Two judges of pictures of the starter world's heads, 128 px: attributes, and who it is. For measuring "
            "only: no loss uses them, and no loss's network has their architecture or seed.",
            recipe="python -m facednerf_starter.train judges: cross-entropy of attributes that can be seen; people by "
            "contrast of pairs in other styles, ages, lights and views; pictures of the world"
            + (" and of the generator" if painter else "")
            + " before varied backgrounds, shifted, exposed, blurred, noisy.",
            measured=measured,
            limits="Know the starter's synthetic people. On real photos their words are indications, and agreement of two "
            "photos is no proof of anything: they must not be used to recognise anybody.",
        ),
    )


def blame(found: Answers, wanted: Truth) -> dict[str, Tensor]:
    """Mean cross-entropy of the choices that can be seen, averaged over the questions, and mean square of the numbers."""
    entropies = []
    for column, name in enumerate(CHOICES):
        target = wanted.choices[:, column]
        total = F.cross_entropy(found.logits[name], target, ignore_index=HIDDEN, reduction="sum")
        entropies.append(total / (target != HIDDEN).sum().clamp_min(1))
    told = torch.stack([found.numbers[name] for name in NUMBERS], dim=1)
    return {"choices": torch.stack(entropies).sum(), "numbers": (told - wanted.numbers).square().mean()}
