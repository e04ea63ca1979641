"""Trains a small CLIP on the world's captioned heads, and writes it in open_clip's own format.

Pictures and texts of the same head are drawn together, those of others apart (Radford et al. 2021). Heads are seen as the
world draws them and, given a generator, as that draws them; mirrored, moved, before any background. The default network is
for guidance. With --judge it is another: residual convolutions, another seed, other sentences; it measures what the first
one guided.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facednerf_starter.train import draws, openclip, tokenizer
from facednerf_starter.train.albums import Album, Portraitist, drawn_by_generator, seen_from
from facednerf_starter.train.arguments import add_run_arguments, device_of, memory_format_of
from facednerf_starter.train.asking import measured
from facednerf_starter.train.exports import card
from facednerf_starter.train.exposures import exposed
from facednerf_starter.train.pieces import Piece, rate, set_rate, write_json
from facednerf_starter.train.sayings import Sayings, sayings
from facednerf_starter.train.shards import Shards
from facednerf_starter.train.sights import SightReader
from facednerf_starter.world.attributes import decode

APART = 15485863
"""Added to the judge's seed, from which no other recipe begins."""
SHARPEST = math.log(100)
"""The logarithm of the largest scale of similarities."""
DRAWN = 0.4
"""Share of the pictures that a generator draws, if there is one."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the recipe."""
    add_run_arguments(parser, batch=512)
    parser.add_argument("--judge", action="store_true", help="the network for measuring, not the one for guidance")
    parser.add_argument("--generator", type=Path, help="generator.safetensors (designed W), whose pictures are read too")
    parser.add_argument("--rate", type=float, default=1e-3, help="Adam's learning rate")
    parser.add_argument("--decay", type=float, default=0.05, help="Adam's weight decay")


def run(args: argparse.Namespace) -> None:
    """One piece of the recipe, preparation included in its minutes; exports when the last step is done."""
    began = time.monotonic()
    device = device_of(args)
    name = "clip-judge" if args.judge else "clip"
    seed = args.seed + (APART if args.judge else 0)
    shards = Shards(args.data, held_every=args.held)
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer.write(args.out / "tokenizer")
    words = tokenizer.load(args.out / "tokenizer")
    painter = Portraitist.from_file(args.generator, device) if args.generator else None
    pairs = PairReader(shards, device, sayings(shards, words, seed, fresh=args.judge), seed, painter)
    config = openclip.architecture(len(words), judge=args.judge, tiny=args.tiny)
    torch.manual_seed(seed)
    network: Any = openclip.build(config).to(device).to(memory_format=memory_format_of(device))
    adam = torch.optim.AdamW(weighed(network, args.decay), lr=args.rate, betas=(0.9, 0.98), fused=device.type == "cuda")
    piece = Piece(
        args.out,
        name,
        seed=seed,
        steps=args.steps,
        networks={"clip": network},
        optimizers={"adam": adam},
        averaged=("clip",),
        ema=0.998,
        settings={
            "batch": args.batch, "rate": args.rate, "decay": args.decay, "held": args.held, "tiny": args.tiny,
            "judge": args.judge, "generator": painter is not None, "words": len(words),
        },
    )  # fmt: skip
    print(f"{name}: {sum(p.numel() for p in network.parameters()) / 1e6:.2f} M parameters", flush=True)

    def one_step(step: int) -> dict[str, Tensor]:
        set_rate(adam, args.rate * rate(step, piece.steps, warm=500))
        image, heads, tokens, texts = pairs.read(args.batch, step)
        image = image.contiguous(memory_format=memory_format_of(device))
        network.train()
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            seen, heard = openclip.pictured(network, image), openclip.worded(network, tokens)
        loss, right = contrast(seen, heard, network.logit_scale.exp(), rivals(heads, texts))
        adam.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        adam.step()
        with torch.no_grad():
            network.logit_scale.clamp_(0, SHARPEST)
        return {"loss": loss.detach(), "right": right, "scale": network.logit_scale.detach().exp()}

    if not (piece.run_rest(one_step, args.minutes, began, total=args.total, every=100) or args.close):
        return
    openclip.write(args.out / name, config, piece.averages["clip"])
    finish(piece, shards, pairs, words, device, painter, judge=args.judge)


def finish(
    piece: Piece,
    shards: Shards,
    pairs: PairReader,
    words: tokenizer.CLIPTokenizer,
    device: torch.device,
    painter: Portraitist | None,
    *,
    judge: bool,
) -> None:
    """Measures the folder that was written, as open_clip reads it, and writes its card into it."""
    folder = piece.out / piece.name
    network = openclip.load(folder, device)
    found: dict[str, Any] = measured(network, pairs.sights, pairs.said, words, piece.seed, painter)
    found["parameters"] = sum(p.numel() for p in network.parameters())
    print(f"{piece.name}: {found}", flush=True)
    purpose = "For measuring only: no loss uses it" if judge else "For guidance; measure with another"
    about = card(
        piece,
        shards,
        device,
        about=f"a small CLIP of the starter world's heads, 128 px, in open_clip's format. {purpose}.",
        recipe=f"python -m facednerf_starter.train clip{' --judge' if judge else ''}: symmetric contrast of pictures and "
        "texts (sentences, sentences as users phrase them, single attributes); equal texts and equal heads do not compete; "
        "pictures of the world" + (" and of the generator" if painter else "") + ", mirrored, before varied backgrounds, "
        "shifted, exposed, blurred, noisy; averaged weights",
        measured=found,
        limits=f"knows {len(tokenizer.words())} words (vocabulary.txt), others do nothing; heads only. On real photos what "
        "it finds is an indication.",
    )
    size = sum(path.stat().st_size for path in folder.iterdir() if path.name != "card.json")
    write_json(folder / "card.json", {**about, "bytes": size})
    print(f"{piece.name}: {size / 1e6:.2f} MB in '{folder}'", flush=True)


class PairReader:
    """Pictures of training heads with something that is said of each."""

    def __init__(
        self, shards: Shards, device: torch.device, said: Sayings, seed: int, painter: Portraitist | None = None
    ) -> None:
        self.sights = SightReader(shards, device)
        self.said, self.seed, self.device = said.to(device), seed, device
        self._training = shards.training.to(device)
        self._drawn: Album | None = None
        if painter is not None:
            people = decode(shards.field("z").take(shards.training))
            cameras = seen_from(seed, "clip", shards.count)[shards.training]
            self._drawn = drawn_by_generator(painter.network, painter.latents(people), cameras, shards.size, device)

    def read(self, count: int, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Pictures (B, 3, H, W) in [-1, 1], their heads (B,), token numbers (B, TOKENS), and the texts' numbers (B,)."""

        def key(what: str) -> draws.Key:
            return draws.key(self.seed, "clip", what, step)

        number = draws.integers((3, count), 1 << 30, key("pick"), self.device)
        rows = number[0] % len(self._training)
        heads = self._training[rows]
        sights = self.sights.read(heads, number[1] % self.sights.shards.views)
        image, mask = sights.image, sights.mask
        if self._drawn is not None:
            few = round(DRAWN * count)
            drawn, cover = self._drawn.take(rows[:few])
            image, mask = torch.cat([drawn, image[few:]]), torch.cat([cover, mask[few:]])
        mirrored = draws.uniform((count, 1, 1, 1), key("mirror"), self.device) < 0.5
        image, mask = torch.where(mirrored, image.flip(-1), image), torch.where(mirrored, mask.flip(-1), mask)
        tokens, texts = self.said.take(heads, number[2] % self.said.numbers.shape[1])
        return exposed(image, mask, self.seed, ("clip", step)), heads, tokens, texts


def weighed(network: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Adam's groups: matrices and kernels decay; biases, scales and positions do not."""
    named = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    free = {name for name, p in named if p.ndim < 2 or "embedding" in name}
    return [
        {"params": [p for name, p in named if name not in free], "weight_decay": decay},
        {"params": [p for name, p in named if name in free], "weight_decay": 0.0},
    ]


def rivals(heads: Tensor, texts: Tensor) -> Tensor:
    """Which picture (rows) and text (columns) of a batch compete, (B, B): its own, and those of other heads with other
    texts. `heads` and `texts` (B,) are numbers, equal where the head or the text is the same."""
    same = (heads[:, None] == heads[None, :]) | (texts[:, None] == texts[None, :])
    return ~same | torch.eye(len(heads), dtype=torch.bool, device=heads.device)


def contrast(seen: Tensor, heard: Tensor, scale: Tensor, compete: Tensor) -> tuple[Tensor, Tensor]:
    """The symmetric contrast (Radford et al. 2021, Fig. 3) of unit vectors (B, D) of pictures and texts, and the share of
    the pictures whose text is found."""
    logits = (scale * seen @ heard.T).masked_fill(~compete, float("-inf"))
    row = torch.arange(len(seen), device=seen.device)
    loss = (F.cross_entropy(logits, row) + F.cross_entropy(logits.T, row)) / 2
    return loss, (logits.detach().argmax(1) == row).float().mean()
