"""The judges judged: on held-out heads of the world, on people that a generator draws, across styles and lights."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from facednerf_starter.judges.panel import Judges
from facednerf_starter.judges.questions import Answers, Truth, right, shares, truth
from facednerf_starter.train import draws
from facednerf_starter.train.albums import Album, Portraitist, drawn_by_generator, drawn_by_world, restyled, seen_from
from facednerf_starter.train.exposures import exposed
from facednerf_starter.train.recognition import told_apart
from facednerf_starter.train.shards import Shards
from facednerf_starter.train.sheets import sheet
from facednerf_starter.world.attributes import decode, draw

FRESH = 1024
"""Fresh draws whom the generator shows, on a GPU."""
FEW = 4
"""Heads that are drawn anew on a CPU."""


def heard(
    judges: Judges, shards: Shards, device: torch.device, args: argparse.Namespace, painter: Portraitist | None
) -> tuple[dict[str, Any], float]:
    """What was measured, and the agreement that different people reach in 1 % of the pairs, over all kinds of pictures.

    Writes `judges.png`: in each row people as the world and the generator show them, in one style and in another.
    """
    measured: dict[str, Any] = {}
    measured["world"], measured["world_disguised"] = world(judges, shards, device, args.seed)
    if painter is not None:
        measured["generator"] = fresh(judges, painter, shards.size, device, args.seed)
    albums = gallery(shards, device, args, painter)
    shown = torch.arange(min(8, len(albums["world"])), device=device)
    sheet(args.out / "judges.png", [list(album.take(shown)[0]) for album in albums.values()])
    known = {name: embedded(judges, album) for name, album in albums.items()}
    kinds = {"world": ("world", "world again")}
    if painter is not None:
        kinds |= {"generator": ("generator", "generator again"), "world_to_generator": ("world", "generator again")}
    similar = {kind: known[one] @ known[other].T for kind, (one, other) in kinds.items()}
    together = told_apart(list(similar.values()))
    measured["person"] = {kind: told_apart([matrix]) for kind, matrix in similar.items()} | {"all": together}
    measured["people"] = len(next(iter(similar.values())))
    return measured, together["threshold"]


def world(judges: Judges, shards: Shards, device: torch.device, seed: int) -> tuple[dict[str, float], dict[str, float]]:
    """Shares of right answers on all views of held-out heads, as drawn and disguised."""
    heads = shards.held
    told = truth(decode(shards.field("z").take(heads)))
    images, masks = shards.field("image"), shards.field("mask")
    plain, disguised, wanted = [], [], []
    for view in range(shards.views):
        for part in torch.arange(len(heads)).split(64):
            views = torch.full_like(part, view)
            image = images.take(heads[part], views).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
            mask = masks.take(heads[part], views).to(device).unsqueeze(1).float() / 255
            plain.append(judges.tell(image))
            disguised.append(judges.tell(exposed(image, mask, seed, ("judges-held", view, int(part[0])))))
            wanted.append(told[part])
    return score(plain, wanted), score(disguised, wanted)


def fresh(judges: Judges, painter: Portraitist, size: int, device: torch.device, seed: int) -> dict[str, float]:
    """Shares of right answers on a generator's pictures of heads that nobody saw, within the album's angles."""
    first, _ = draws.key(seed, "judges", "fresh")
    heads = decode(draw(first, 0, FRESH if device.type == "cuda" else FEW))
    cameras = seen_from(seed, "fresh", len(heads))
    album = drawn_by_generator(painter.network, painter.latents(heads), cameras, size, device)
    told, rows = truth(heads), torch.arange(len(heads), device=device)
    parts = rows.split(64)
    return score([judges.tell(album.take(part)[0]) for part in parts], [told[part.cpu()] for part in parts])


def score(found: list[Answers], wanted: list[Truth]) -> dict[str, float]:
    """Shares of right answers of several batches, and the mean error of the numbers."""
    names, numbers = found[0].logits, found[0].numbers
    all_found = Answers(
        {name: torch.cat([a.logits[name] for a in found]).cpu() for name in names},
        {name: torch.cat([a.numbers[name] for a in found]).cpu() for name in numbers},
    )
    told = Truth.cat(wanted)
    errors = {
        f"{name}_error": round(float((all_found.numbers[name] - told.numbers[:, column]).abs().mean()), 4)
        for column, name in enumerate(numbers)
    }
    return shares(right(all_found, told)) | errors


def gallery(
    shards: Shards, device: torch.device, args: argparse.Namespace, painter: Portraitist | None
) -> Mapping[str, Album]:
    """Held-out people in one style and in another, as the world and, if there is one, the generator show them."""
    held = shards.held if device.type == "cuda" else shards.held[:FEW]
    z = shards.field("z").take(held)
    albums: dict[str, Album] = {}
    for again in ("", " again"):
        heads = restyled(z, args.seed, f"held{again}", numbers=held)
        cameras = seen_from(args.seed, f"held{again}", len(held))
        albums[f"world{again}"] = drawn_by_world(heads, cameras, shards.size, device)
        if painter is not None:
            ws = painter.latents(heads)
            albums[f"generator{again}"] = drawn_by_generator(painter.network, ws, cameras, shards.size, device)
    return albums


def embedded(judges: Judges, album: Album) -> Tensor:
    """Unit vectors (M, D) of an album's pictures."""
    rows = torch.arange(len(album), device=album.image.device)
    return torch.cat([judges.embed(album.take(part)[0]) for part in rows.split(64)])
