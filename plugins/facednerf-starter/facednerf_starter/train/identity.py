"""Trains the starter's identity: an IResNet that knows a head by its shape, skin and eyes whatever its style.

Classification of heads learns their hair and clothes, so a person is learned from pairs of pictures that share nothing but
the person: another style, expression, age, light and view, often another hand that drew it (`sitters`; the judge of people
learns likewise, from others). Who belongs together is to be found among the batch. The direction of the embedding is
regressed beside it: the standardised parameters of a person (`world.attributes.IDENTITY`) under a fixed orthogonal lift;
and the similarities within a batch shall be those of the parameters. On a GPU the steps are recorded and replayed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from facednerf_arcface.iresnet import FACE_SIZE, TEMPLATE, IResNet
from torch import Tensor
from torch.nn import functional as F

from facednerf_starter.train import draws, warps
from facednerf_starter.train.albums import Portraitist
from facednerf_starter.train.arguments import add_run_arguments, device_of, memory_format_of
from facednerf_starter.train.capture import Captured, adamw_of
from facednerf_starter.train.exports import card, export
from facednerf_starter.train.exposures import placed
from facednerf_starter.train.pieces import Piece, rate, set_rate
from facednerf_starter.train.recognition import confusion, told_apart
from facednerf_starter.train.shards import Shards
from facednerf_starter.train.sheets import sheet
from facednerf_starter.train.sights import SightReader, Sights, snapshots
from facednerf_starter.train.sitters import PairReader, Sitting
from facednerf_starter.world.attributes import IDENTITY, VECTOR, decode
from facednerf_starter.world.cameras import draw_cameras
from facednerf_starter.world.photos import photograph
from facednerf_starter.world.render import render

_WEAK = {"femininity": 0.3, "ear_size": 0.5, "ear_angle": 0.5, "neck": 0.3, "shoulders": 0.0, "part": 0.0}
"""Parameters that hair tells better than a face does, or that an aligned face hardly shows, count less."""

APART = 32452843
"""Added to the seed of the pairs, so that other styles and views are drawn than those that the judges learn from."""
PHOTOGRAPHED = 0.25
"""Share of the pictures that go through the camera with which the network is measured; the rest through a lighter one."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the recipe."""
    add_run_arguments(parser, batch=256)
    parser.add_argument("--generator", type=Path, help="generator.safetensors (designed W), whose pictures are read too")
    parser.add_argument("--restyled", type=int, default=4096, help="people whom the world draws in a second style")
    parser.add_argument("--compile", action="store_true", help="compile the world's distance function for those")
    parser.add_argument("--rate", type=float, default=2e-3, help="Adam's learning rate")
    parser.add_argument("--widths", type=int, nargs=4, default=[16, 32, 72, 104])
    parser.add_argument("--units", type=int, nargs=4, default=[2, 2, 2, 2])
    parser.add_argument("--embedding", type=int, default=64)


def run(args: argparse.Namespace) -> None:
    """One piece of the recipe, preparation included in its minutes; exports when the last step is done."""
    began = time.monotonic()
    device = device_of(args)
    if args.tiny:
        args.widths, args.units, args.embedding = [4, 8, 8, 12], [1, 1, 1, 1], 48
    shards = Shards(args.data, held_every=args.held)
    painter = Portraitist.from_file(args.generator, device) if args.generator else None
    pairs = PairReader(
        shards, device, args.out, seed=args.seed + APART, people=args.restyled, painter=painter, compile=args.compile
    )
    people = person_directions(shards, args.embedding, device)
    torch.manual_seed(args.seed)
    config: dict[str, Any] = {"widths": args.widths, "units": args.units, "embedding": args.embedding}
    layout = memory_format_of(device)
    network = IResNet(**config).to(device).to(memory_format=layout)
    adam = adamw_of([p for p in network.parameters() if p.requires_grad], args.rate, device, decay=1e-3)
    piece = Piece(
        args.out,
        "identity",
        seed=args.seed,
        steps=args.steps,
        networks={"identity": network},
        optimizers={"adam": adam},
        averaged=("identity",),
        settings={
            "batch": args.batch, "rate": args.rate, "held": args.held, "tiny": args.tiny, "restyled": args.restyled,
            "generator": painter is not None, **config,
        },
    )  # fmt: skip
    print(f"identity: {sum(p.numel() for p in network.parameters()) / 1e6:.2f} M parameters", flush=True)

    def learn(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One step of AdamW on aligned faces and the people whom they show."""
        adam.zero_grad(set_to_none=True)
        network.train()
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda", cache_enabled=False):
            embedded = network(given["faces"].contiguous(memory_format=layout))
        found = F.normalize(embedded.float(), dim=-1)  # (B, D)
        wanted = people[given["people"]]
        parts = {
            "person": confusion(found, given["people"]),
            "direction": (1 - (found * wanted).sum(-1)).mean(),
            "relation": (found @ found.T - wanted @ wanted.T).square().mean(),
        }
        (parts["person"] + 2 * parts["direction"] + parts["relation"]).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        adam.step()
        return {name: value.detach() for name, value in parts.items()}

    recorded = Captured(learn, device)

    def one_step(step: int) -> dict[str, Tensor]:
        set_rate(adam, args.rate * rate(step, piece.steps))
        sitting = pairs.read(args.batch // 2, args.seed, ("identity", step))
        return recorded({"faces": disguised_faces(sitting, args.seed, ("identity", step)), "people": sitting.people})

    if not (piece.run_rest(one_step, args.minutes, began, total=args.total, every=100) or args.close):
        return
    reader = SightReader(shards, device)
    best = IResNet(**config).to(device).eval()
    piece.average_into("identity", best)
    measured = evaluate(best, reader, people, args)
    print(f"identity: {measured}", flush=True)
    export(
        args.out,
        "identity",
        best.state_dict(),
        {"class": "facednerf_arcface.iresnet.IResNet", **config},
        card(
            piece,
            shards,
            device,
            about="IResNet (narrow) that embeds a face of the starter world, aligned to ArcFace's template, 112 px.",
            recipe="python -m facednerf_starter.train identity: contrast of people by pairs in other styles, ages, lights "
            "and views; cosine regression of the lifted identity parameters, relations within the batch; pictures of the "
            "world" + (" and of the generator" if painter else "") + " as photos may show them, misaligned a little.",
            measured=measured,
            limits="Knows the starter's synthetic people. On photos of real people its similarity is a rough likeness "
            "of proportions and skin; it must not be used to recognise anybody.",
        ),
    )


def person_directions(shards: Shards, embedding: int, device: torch.device) -> Tensor:
    """Unit vectors (heads, embedding): the standardised identity parameters of each head under an orthogonal lift."""
    names = [n for n in VECTOR if n in IDENTITY or n.split("=")[0] in IDENTITY]
    values = shards.field("attributes").take(torch.arange(shards.count))[:, [VECTOR.index(n) for n in names]].double()
    weight = torch.tensor([_WEAK.get(name, 1.0) for name in names], dtype=torch.float64)
    mean, deviation = values[shards.training].mean(0), values[shards.training].std(0).clamp_min(1e-6)
    standard = (values - mean) / deviation * weight
    gaussian = draws.normal((embedding, len(names)), draws.key(0, "identity", "lift")).double()
    lift = torch.linalg.qr(gaussian).Q  # (embedding, parameters), orthonormal columns
    return F.normalize(standard @ lift.T, dim=-1).float().to(device)


def aligned(image: Tensor, landmarks: Tensor, wander: Tensor | None = None) -> Tensor:
    """Faces (B, 3, 112, 112) warped by their first five landmarks to ArcFace's template, black outside.

    `wander` (B, 4) spoils the alignment: shift x, y in face widths, log of the scale, angle in radians.
    """
    template = (torch.tensor(TEMPLATE, device=image.device) + 0.5) / FACE_SIZE  # pixel centres to edges 0 and 1
    maps = warps.similarity(landmarks[:, :5], template.expand(len(image), -1, -1))
    if wander is not None:
        spoil = warps.about_centre(wander[:, 2].exp(), wander[:, 3], torch.ones_like(wander[:, 3]), wander[:, :2])
        maps = torch.cat([spoil[..., :2] @ maps[..., :2], spoil[..., :2] @ maps[..., 2:] + spoil[..., 2:]], dim=-1)
    return warps.warped(image + 1, maps, FACE_SIZE) - 1


def misaligned(image: Tensor, landmarks: Tensor, at: draws.Key) -> Tensor:
    """Aligned faces (B, 3, 112, 112), with small errors of shift, scale and angle."""
    device = image.device
    wander = draws.normal((len(image), 4), at, device).clamp(-2.5, 2.5)
    return aligned(image, landmarks, wander * torch.tensor([0.02, 0.02, 0.05, 0.05], device=device))


def photographed_faces(sights: Sights, seed: int, names: tuple[str | int, ...]) -> Tensor:
    """Photos of the sights, aligned with small errors; (B, 3, 112, 112)."""
    return misaligned(snapshots(sights, seed, names), sights.landmarks, draws.key(seed, *names, "wander"))


def disguised_faces(sitting: Sitting, seed: int, names: tuple[str | int, ...]) -> Tensor:
    """What may be seen of a sitting in photos, aligned with small errors; (B, 3, 112, 112)."""
    count, device = len(sitting.image), sitting.image.device
    image = placed(sitting.image, sitting.mask, seed, names)
    order = draws.uniform((count,), draws.key(seed, *names, "order"), device).argsort()
    few = order[: max(1, round(PHOTOGRAPHED * count))]
    photos = photograph(sitting.image[few], sitting.mask[few], draws.generator(seed, *names, "photo"))
    return misaligned(image.index_copy(0, few, photos), sitting.landmarks, draws.key(seed, *names, "wander"))


@torch.no_grad()
def evaluate(network: IResNet, reader: SightReader, people: Tensor, args: argparse.Namespace) -> dict[str, Any]:
    """How well held-out heads are told apart: in another view and photo; in another view, style, age and light; and so
    again from pictures as they were drawn, which no camera spoiled."""
    heads = reader.shards.held[:400].to(reader.device)
    few = heads[: 128 if reader.device.type == "cuda" else 4]

    def known(faces: Tensor) -> Tensor:
        return F.normalize(network(faces).float(), dim=-1)

    found, drawn, shown = [], [], []
    for view in range(min(4, reader.shards.views)):
        embedded, plain = [], []
        for part in heads.split(64):
            sights = reader.read(part, torch.full_like(part, view))
            faces = photographed_faces(sights, args.seed, ("identity-held", view, int(part[0])))
            embedded.append(known(faces))
            plain.append(known(aligned(sights.image, sights.landmarks)))
            if int(part[0]) == int(heads[0]):
                shown.append(list(faces[:8]))
        found.append(torch.cat(embedded))
        drawn.append(torch.cat(plain))
    similar = [found[i] @ found[j].T for i in range(len(found)) for j in range(i + 1, len(found))]
    again, redrawn, dressed = [], [], []
    for part in few.split(16):
        sights = restyled(reader, part, args.seed)
        faces = photographed_faces(sights, args.seed, ("identity-restyled", int(part[0])))
        again.append(known(faces))
        redrawn.append(known(aligned(sights.image, sights.landmarks)))
        dressed += list(faces)
    shown.append(dressed[:8])
    if all(len(row) == len(shown[0]) for row in shown):
        sheet(args.out / "identity.png", shown)
    return {
        "other_view": told_apart(similar),
        "other_view_and_style": told_apart([view[: len(few)] @ torch.cat(again).T for view in found]),
        "other_view_and_style_as_drawn": told_apart([view[: len(few)] @ torch.cat(redrawn).T for view in drawn]),
        "cosine_with_parameters": round(float((torch.stack(found) * people[heads]).sum(-1).mean()), 4),
    }


def restyled(reader: SightReader, heads: Tensor, seed: int) -> Sights:
    """The people of these heads in the style, expression, age and light of new ones, from new cameras."""
    z = reader.shards.field("z").take(heads.cpu())
    people = decode(z).dressed_as(decode(draws.normal(tuple(z.shape), draws.key(seed, "style", int(heads[0])))))
    cameras = draw_cameras(seed + 1, int(heads[0]), len(heads), 1, yaw=0.6)
    seen = render(people.to(reader.device), cameras.to(reader.device), reader.shards.size)
    return Sights(heads, seen.image[:, 0], seen.mask[:, 0], seen.landmarks[:, 0], cameras[:, 0].to(reader.device))
