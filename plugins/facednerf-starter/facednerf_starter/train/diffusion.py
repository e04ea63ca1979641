"""The starter's diffusion model: the UNet and its text encoder, trained together on the world's captioned images.

Images become latents once (the posterior's mean, also of the mirrored image) and stay in OUT/latents.npy. Noise,
time steps and texts are functions of (seed, step), equal on every device. A third of the texts are captions; a third are
captions dressed as a user may phrase them (`make it ...`) or with plain words, so that these words learn to say nothing; a
third name a single attribute, as an edit does that tells only the difference. On a GPU the steps are recorded and replayed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F

from facednerf_starter.train import draws, pipeline, tokenizer
from facednerf_starter.train.arguments import add_run_arguments, device_of
from facednerf_starter.train.capture import Captured, adamw_of
from facednerf_starter.train.exports import card
from facednerf_starter.train.pieces import Piece, PieceError, rate, set_rate, write_json
from facednerf_starter.train.sayings import Sayings, sayings
from facednerf_starter.train.shards import Shards

DROPPED = 0.12
"""Share of the samples that see the empty prompt (classifier-free guidance)."""
SNR_LIMIT = 5.0
"""Weight of a time step: min(SNR, limit) / SNR (Hang et al., 2023)."""
OFTEN = {"age": 2.5, "expression": 2.5, "hair style": 2.0, "eyes": 0.5, "skin": 0.5, "clothes": 0.5}
"""How often single attributes are of a topic (see `sayings.OFTEN`): what is hardest to follow in an edit, most."""
PROMPTS = (
    "a face", "a bald man with a thick mustache", "an old woman with glasses and grey hair", "glasses", "blue hair",
    "a man with a beard", "a woman with long blond hair", "curly red hair", "a smiling man", "a person wearing a red hat",
    "an old man", "a young woman with dark skin", "old", "smiling", "long hair", "a man without a hat",
)  # fmt: skip


def hashed(path: Path) -> str:
    """The sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@torch.no_grad()
def latents(shards: Shards, folder: Path, out: Path, device: torch.device, *, batch: int = 256) -> np.ndarray:
    """Latents (heads, 2 V, 4, h, w) float16, memory-mapped: of every view, then of every view mirrored.

    Kept in `out` with the hash of the autoencoder and the size of the data, and made anew when those change."""
    about = {
        "autoencoder": hashed(folder / "diffusion_pytorch_model.safetensors"),
        "shards": [path.name for path in shards.paths],
        "heads": shards.count,
    }
    path, note = out / "latents.npy", out / "latents.json"
    if path.exists() and note.exists() and json.loads(note.read_text()) == about:
        return np.load(path, mmap_mode="r")
    vae: Any = AutoencoderKL.from_pretrained(folder, local_files_only=True, low_cpu_mem_usage=False)
    vae = vae.to(device, memory_format=torch.channels_last).eval()
    image = shards.field("image")
    side = shards.size // 4
    fresh = out / "latents.part.npy"
    table = np.lib.format.open_memmap(fresh, "w+", np.float16, (shards.count, 2 * shards.views, 4, side, side))
    step = max(1, batch // (2 * shards.views))
    for start in range(0, shards.count, step):
        heads = torch.arange(start, min(start + step, shards.count))
        seen = image.take(heads).to(device).flatten(0, 1).permute(0, 3, 1, 2).float() / 127.5 - 1
        both = torch.stack([seen, seen.flip(-1)]).unflatten(1, (len(heads), shards.views))  # (2, B, V, 3, H, W)
        mean = vae.encode(both.transpose(0, 1).flatten(0, 2)).latent_dist.mean * vae.config.scaling_factor
        table[start : start + len(heads)] = mean.half().cpu().numpy().reshape(len(heads), *table.shape[1:])
    table.flush()
    fresh.replace(path)
    write_json(note, about)
    return np.load(path, mmap_mode="r")


def noise_schedule(device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Cumulative alphas (STEPS,) and the loss weight of every time step (STEPS,)."""
    alphas = pipeline.build_scheduler().alphas_cumprod.to(device)
    snr = alphas / (1 - alphas)
    return alphas, snr.clamp(max=SNR_LIMIT) / snr


class Pairs:
    """Latents with what is said of them, on the device (a GPU) or read as they are drawn (a CPU)."""

    def __init__(
        self, table: np.ndarray, said: Sayings, heads: Tensor, empty: Tensor, device: torch.device, seed: int
    ) -> None:
        self.device, self.seed = device, seed
        self.table: Tensor | np.ndarray = torch.from_numpy(np.array(table)).to(device) if device.type != "cpu" else table
        self.said, self.heads, self.empty = said.to(device), heads.to(device), empty.to(device)

    def take(self, heads: Tensor, views: Tensor) -> Tensor:
        """Latents (B, 4, h, w) float32."""
        if isinstance(self.table, Tensor):
            return self.table[heads, views].float()
        return torch.from_numpy(self.table[heads.numpy(), views.numpy()].astype(np.float32))

    def draw(self, step: int, batch: int, *, run: str = "diffusion") -> dict[str, Tensor]:
        """Of a step: `latent` (B, 4, h, w), `noise` alike, time `steps` (B,) and `tokens` (B, TOKENS)."""

        def key(what: str) -> draws.Key:
            return draws.key(self.seed, run, what, step)

        device = self.device
        heads = self.heads[draws.integers((batch,), len(self.heads), key("head"), device)]
        latent = self.take(heads, draws.integers((batch,), self.table.shape[1], key("view"), device))
        tokens, _ = self.said.take(heads, draws.integers((batch,), self.said.tokens.shape[1], key("caption"), device))
        dropped = draws.uniform((batch, 1), key("dropped"), device) < DROPPED
        return {
            "latent": latent,
            "noise": draws.normal(tuple(latent.shape), key("noise"), device),
            "steps": draws.integers((batch,), pipeline.STEPS, key("time"), device),
            "tokens": torch.where(dropped, self.empty, tokens),
        }


def prediction_error(unet: Any, text_encoder: Any, alphas: Tensor, drawn: Mapping[str, Tensor]) -> Tensor:
    """Mean squared error (B,) of the noise that is predicted for what `Pairs.draw` drew; nothing waits for the device."""
    latent, noise, steps = drawn["latent"], drawn["noise"], drawn["steps"]
    alpha = alphas[steps][:, None, None, None]
    noisy = (alpha.sqrt() * latent + (1 - alpha).sqrt() * noise).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cuda", torch.bfloat16, enabled=latent.device.type == "cuda", cache_enabled=False):
        predicted = unet(noisy, steps, text_encoder(drawn["tokens"]).last_hidden_state).sample
    return F.mse_loss(predicted.float(), noise, reduction="none").mean((1, 2, 3))


@torch.no_grad()
def measure(unet: Any, text_encoder: Any, held: Pairs, *, batches: int, batch: int) -> dict[str, float]:
    """Error of the predicted noise on held-out heads: overall, and by thirds of the time steps (low: little noise)."""
    alphas, _ = noise_schedule(held.device)
    drawn = [held.draw(i, batch, run="held") for i in range(batches)]
    error = torch.cat([prediction_error(unet, text_encoder, alphas, some) for some in drawn])
    steps = torch.cat([some["steps"] for some in drawn])
    third = pipeline.STEPS / 3
    parts = {name: (steps / third).long() == i for i, name in enumerate(("low", "middle", "high"))}
    values = {"noise_error": float(error.mean())}
    return values | {f"noise_error_{name}": float(error[part].mean()) for name, part in parts.items() if part.any()}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the recipe."""
    add_run_arguments(parser, batch=256)
    parser.add_argument("--rate", type=float, default=8e-4, help="AdamW's learning rate")
    parser.add_argument("--autoencoder", type=Path, help="folder of the autoencoder (default OUT/vae)")
    parser.add_argument("--start", type=Path, help="begin from the weights of this pipeline folder (not from chance)")


def run(args: argparse.Namespace) -> None:
    """Trains for a piece, preparation included in its minutes; writes OUT/pipeline (a diffusers folder with card.json) and
    OUT/samples.png."""
    began = time.monotonic()
    device = device_of(args)
    shards = Shards(args.data, held_every=args.held)
    folder = args.autoencoder or args.out / "vae"
    if not (folder / "config.json").exists():
        raise PieceError(f"no autoencoder in '{folder}'; train one there (train autoencoder), or name it: --autoencoder DIR")
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer.write(args.out / "tokenizer")
    words = tokenizer.load(args.out / "tokenizer")
    table = latents(shards, folder, args.out, device)
    said = sayings(shards, words, args.seed, often=OFTEN)
    empty = pipeline.encode_words([""], words)
    torch.manual_seed(args.seed)
    unet: Any = pipeline.build_unet(tiny=args.tiny).to(device, memory_format=torch.channels_last)
    text: Any = pipeline.build_text_encoder(len(words), words.eos_token_id, tiny=args.tiny).to(device)
    if args.start is not None:
        pipeline.load_weights(args.start, unet, text)
    parameters = [*unet.parameters(), *text.parameters()]
    optimizer = adamw_of(parameters, args.rate, device, decay=1e-2)
    piece = Piece(
        args.out,
        "diffusion",
        seed=args.seed,
        steps=args.steps,
        networks={"unet": unet, "text": text},
        optimizers={"adamw": optimizer},
        averaged=("unet", "text"),
        settings={
            "batch": args.batch,
            "tiny": args.tiny,
            "rate": args.rate,
            "words": len(words),
            "widths": [*unet.config.block_out_channels, text.config.hidden_size],
            "start": hashed(args.start / "unet" / "diffusion_pytorch_model.safetensors") if args.start else None,
        },
    )
    pairs = Pairs(table, said, shards.training, empty, device, args.seed)
    alphas, weights = noise_schedule(device)

    def learn(drawn: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One step of AdamW on a batch."""
        optimizer.zero_grad(set_to_none=True)
        error = prediction_error(unet, text, alphas, drawn)
        total = (error * weights[drawn["steps"]]).mean()
        total.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return {"loss": total.detach(), "noise_error": error.detach().mean()}

    recorded = Captured(learn, device)

    def one_step(step: int) -> dict[str, Tensor]:
        set_rate(optimizer, args.rate * rate(step, piece.steps, warm=500))
        return recorded(pairs.draw(step, args.batch))

    piece.run_rest(one_step, args.minutes, began, total=args.total, every=5 if args.tiny else 100)
    held = Pairs(table, said, shards.held, empty, device, args.seed)
    finish(piece, shards, device, folder, held, tiny=args.tiny)


def finish(piece: Piece, shards: Shards, device: torch.device, vae: Path, held: Pairs, *, tiny: bool) -> None:
    """Measures and writes the averaged networks of a piece as a pipeline folder, and samples from it."""
    tokens: int = piece.settings["words"]
    unet: Any = piece.average_into("unet", pipeline.build_unet(tiny=tiny)).to(device).eval()
    text: Any = piece.average_into("text", pipeline.build_text_encoder(tokens, tokens - 1, tiny=tiny)).to(device).eval()
    large = device.type != "cpu"  # how much a judgement may cost
    found: dict[str, Any] = measure(unet, text, held, batches=16 if large else 2, batch=256 if large else 32)
    found["parameters"] = {name: sum(p.numel() for p in net.parameters()) for name, net in (("unet", unet), ("text", text))}
    folder = piece.out / "pipeline"
    pipeline.write(folder, vae, unet, text)
    about = card(
        piece,
        shards,
        device,
        about="a small latent diffusion model of captioned synthetic heads: UNet, CLIP text encoder, AutoencoderKL",
        recipe=f"diffusion.py: noise prediction, min-SNR {SNR_LIMIT}, {DROPPED:.0%} empty prompts; captions, captions "
        "dressed with plain words and single attributes, a third each; mirrored images, averaged weights",
        measured=found,
        limits=f"knows {len(tokenizer.words())} words (tokenizer/vocabulary.txt), others do nothing; 128 px; heads only",
    )
    write_json(folder / "card.json", about)
    shown = PROMPTS[:2] if tiny else PROMPTS
    pipeline.sample_sheet(folder, shown, piece.out / "samples.png", rows=4 if large else 1, device=device)
    print(f"diffusion: held-out noise error {found['noise_error']:.4f}, in '{folder}'", flush=True)
