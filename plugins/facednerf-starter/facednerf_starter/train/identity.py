"""Trains the starter's identity: an IResNet that knows a head by its shape, skin and eyes whatever its style.

Classification of heads learns their hair and clothes, so the direction of the embedding is regressed instead: the
standardised parameters of a person (`world.attributes.IDENTITY`) under a fixed orthogonal lift. Agreement of two views
of one head, and of the similarities within a batch with those of the parameters, are asked for beside it.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from facednerf_arcface.iresnet import FACE_SIZE, TEMPLATE, IResNet
from torch import Tensor
from torch.nn import functional as F

from facednerf_starter.train import draws, warps
from facednerf_starter.train.arguments import add_run_arguments, device_of, memory_format_of
from facednerf_starter.train.exports import card, export
from facednerf_starter.train.pieces import Piece, rate, set_rate
from facednerf_starter.train.shards import Shards
from facednerf_starter.train.sheets import sheet
from facednerf_starter.train.sights import SightReader, Sights, snapshots
from facednerf_starter.world.attributes import IDENTITY, VECTOR, decode
from facednerf_starter.world.cameras import draw_cameras
from facednerf_starter.world.render import render

_WEAK = {"femininity": 0.3, "ear_size": 0.5, "ear_angle": 0.5, "neck": 0.3, "shoulders": 0.0, "part": 0.0}
"""Parameters that hair tells better than a face does, or that an aligned face hardly shows, count less."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the recipe."""
    add_run_arguments(parser, batch=96)
    parser.add_argument("--rate", type=float, default=2e-3, help="Adam's learning rate")
    parser.add_argument("--widths", type=int, nargs=4, default=[16, 40, 96, 192])
    parser.add_argument("--units", type=int, nargs=4, default=[2, 2, 2, 2])
    parser.add_argument("--embedding", type=int, default=128)


def run(args: argparse.Namespace) -> None:
    """One piece of the recipe; exports when the last step is done."""
    device = device_of(args)
    if args.tiny:
        args.widths, args.units, args.embedding = [4, 8, 8, 12], [1, 1, 1, 1], 48
    shards = Shards(args.data, held_every=args.held)
    reader = SightReader(shards, device)
    people = person_directions(shards, args.embedding, device)
    torch.manual_seed(args.seed)
    config: dict[str, Any] = {"widths": args.widths, "units": args.units, "embedding": args.embedding}
    network = IResNet(**config).to(device)
    adam = torch.optim.AdamW((p for p in network.parameters() if p.requires_grad), lr=args.rate, weight_decay=1e-3)
    piece = Piece(
        args.out,
        "identity",
        seed=args.seed,
        steps=args.steps,
        networks={"identity": network},
        optimizers={"adam": adam},
        averaged=("identity",),
        settings={"batch": args.batch, "rate": args.rate, "held": args.held, "tiny": args.tiny, **config},
    )

    def one_step(step: int) -> dict[str, Tensor]:
        set_rate(adam, args.rate * rate(step, piece.steps))
        heads, first = reader.pick(args.batch // 2, draws.key(args.seed, "identity", "pick", step))
        second = (
            first
            + 1
            + draws.integers(first.shape, max(1, shards.views - 1), draws.key(args.seed, "identity", "second", step), device)
        )
        sights = reader.read(torch.cat([heads, heads]), torch.cat([first, second % shards.views]))
        faces = photographed_faces(sights, args.seed, ("identity", step))
        network.train()
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            embedded = network(faces.contiguous(memory_format=memory_format_of(device)))
        found = F.normalize(embedded.float(), dim=-1)  # (B, D)
        wanted = people[sights.heads]
        direction = (1 - (found * wanted).sum(-1)).mean()
        one, other = found.chunk(2)
        agreement = (1 - (one * other).sum(-1)).mean()
        relation = (found @ found.T - wanted @ wanted.T).square().mean()
        loss = direction + 0.3 * agreement + relation
        adam.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        adam.step()
        return {"direction": direction.detach(), "agreement": agreement.detach(), "relation": relation.detach()}

    if not (piece.run(one_step, args.minutes, total=args.total, every=100) or args.close):
        return
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
            recipe="python -m facednerf_starter.train identity: cosine regression of the lifted identity parameters, "
            "agreement of views, relations within the batch; photographed views, misaligned a little.",
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


def photographed_faces(sights: Sights, seed: int, names: tuple[str | int, ...]) -> Tensor:
    """Photos of the sights, aligned with small errors; (B, 3, 112, 112)."""
    device = sights.image.device
    image = snapshots(sights, seed, names)
    wander = draws.normal((len(image), 4), draws.key(seed, *names, "wander"), device)
    return aligned(image, sights.landmarks, wander.clamp(-2.5, 2.5) * torch.tensor([0.02, 0.02, 0.05, 0.05], device=device))


@torch.no_grad()
def evaluate(network: IResNet, reader: SightReader, people: Tensor, args: argparse.Namespace) -> dict[str, Any]:
    """How well held-out heads are told apart: in another view and photo, and in another view, style, age and light."""
    heads = reader.shards.held[:400].to(reader.device)
    found, shown = [], []
    for view in range(min(4, reader.shards.views)):
        embedded = []
        for part in heads.split(64):
            sights = reader.read(part, torch.full_like(part, view))
            faces = photographed_faces(sights, args.seed, ("identity-held", view, int(part[0])))
            embedded.append(F.normalize(network(faces).float(), dim=-1))
            if int(part[0]) == int(heads[0]):
                shown.append(list(faces[:8]))
        found.append(torch.cat(embedded))
    similar = [found[i] @ found[j].T for i in range(len(found)) for j in range(i + 1, len(found))]
    few = heads[: 128 if reader.device.type == "cuda" else 4]
    again, dressed = [], []
    for part in few.split(16):
        faces = photographed_faces(restyled(reader, part, args.seed), args.seed, ("identity-restyled", int(part[0])))
        again.append(F.normalize(network(faces).float(), dim=-1))
        dressed += list(faces)
    shown.append(dressed[:8])
    if all(len(row) == len(shown[0]) for row in shown):
        sheet(args.out / "identity.png", shown)
    return {
        "other_view": told_apart(similar),
        "other_view_and_style": told_apart([view[: len(few)] @ torch.cat(again).T for view in found]),
        "cosine_with_parameters": round(float((torch.stack(found) * people[heads]).sum(-1).mean()), 4),
    }


def restyled(reader: SightReader, heads: Tensor, seed: int) -> Sights:
    """The people of these heads in the style, expression, age and light of new ones, from new cameras."""
    z = reader.shards.field("z").take(heads.cpu())
    people = decode(z).dressed_as(decode(draws.normal(tuple(z.shape), draws.key(seed, "style", int(heads[0])))))
    cameras = draw_cameras(seed + 1, int(heads[0]), len(heads), 1, yaw=0.6)
    seen = render(people.to(reader.device), cameras.to(reader.device), reader.shards.size)
    return Sights(heads, seen.image[:, 0], seen.mask[:, 0], seen.landmarks[:, 0], cameras[:, 0].to(reader.device))


def told_apart(similar: list[Tensor]) -> dict[str, float]:
    """Of matrices of similarity (P, P) of the same P people: true positives at 1 % false ones, and the means."""
    off = ~torch.eye(len(similar[0]), dtype=torch.bool, device=similar[0].device)
    same = torch.cat([matrix.diagonal() for matrix in similar])
    different = torch.cat([matrix[off] for matrix in similar])
    threshold = different.sort().values[int(0.99 * (len(different) - 1))]
    return {
        "true_positives_at_1_percent_false": round(float((same > threshold).float().mean()), 4),
        "threshold": round(float(threshold), 4),
        "similarity_same": round(float(same.mean()), 4),
        "similarity_different": round(float(different.mean()), 4),
    }
