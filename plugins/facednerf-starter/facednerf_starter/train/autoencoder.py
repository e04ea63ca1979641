"""The autoencoder of the starter's diffusion model: diffusers' AutoencoderKL, a quarter of the size, four channels.

It learns on random crops of the world's images over white, some over plain colours (on whole images colours were
lost). At the end the mean and deviation of every latent channel are folded into the convolutions beside the latent,
so that latents have mean 0, deviation 1 and `scaling_factor` is 1.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F

from facednerf_starter.train import draws
from facednerf_starter.train.arguments import add_run_arguments, device_of
from facednerf_starter.train.exports import card
from facednerf_starter.train.pieces import Piece, rate, set_rate, write_json
from facednerf_starter.train.shards import Field, Shards
from facednerf_starter.train.sheets import sheet

LEARNING_RATE = 1e-3
KL_WEIGHT = 1e-6
COLOURED = 0.3
"""Share of the training images laid over a plain colour instead of white."""


def build(*, tiny: bool = False) -> AutoencoderKL:
    """The network: 0.9 million parameters, images (N, 3, H, W) in [-1, 1] to latents (N, 4, H/4, W/4)."""
    widths = (8, 8, 8) if tiny else (32, 64, 64)
    return AutoencoderKL(
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4 if tiny else 16,
        sample_size=128,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )


def crops(size: int, step: int, seed: int) -> int:
    """The side of the crops of a step: the whole image, three quarters or half of it, in multiples of 16."""
    choice = int(draws.integers((1,), 4, draws.key(seed, "autoencoder", "side", step)))
    return max(16, int(size * (1.0, 0.75, 0.75, 0.5)[choice]) // 16 * 16)


class Crops:
    """Random crops of the training heads, mirrored half of the time, some over plain colours."""

    def __init__(self, shards: Shards, device: torch.device, seed: int) -> None:
        self.image: Field = shards.field("image", device)
        self.mask: Field = shards.field("mask", device)
        self.heads = shards.training.to(device)
        self.views, self.size, self.seed, self.device = shards.views, shards.size, seed, device

    def draw(self, step: int, batch: int) -> Tensor:
        """The images (batch, 3, S, S) in [-1, 1] of a step."""

        def key(what: str) -> draws.Key:
            return draws.key(self.seed, "autoencoder", what, step)

        device = self.device
        side = crops(self.size, step, self.seed)
        heads = self.heads[draws.integers((batch,), len(self.heads), key("head"), device)]
        views = draws.integers((batch,), self.views, key("view"), device)
        corner = draws.integers((2, batch), self.size - side + 1, key("corner"), device)
        span = torch.arange(side, device=device)
        rows, columns = corner[0, :, None] + span, corner[1, :, None] + span  # (B, S)
        mirror = draws.integers((batch, 1), 2, key("mirror"), device) == 1
        columns = torch.where(mirror, columns.flip(1), columns)
        at = torch.arange(batch, device=device)[:, None, None], rows[:, :, None], columns[:, None, :]
        image = over_colours(
            self.image.take(heads, views)[at],
            self.mask.take(heads, views)[at],
            draws.uniform((batch, 3), key("colour"), device),
            draws.uniform((batch,), key("coloured"), device) < COLOURED,
        )
        return image.permute(0, 3, 1, 2).contiguous()


def over_colours(image: Tensor, mask: Tensor, colours: Tensor, coloured: Tensor) -> Tensor:
    """Lays images over white (B, H, W, 3) uint8, where `coloured` (B,), over `colours` (B, 3) in [0, 1] instead.

    mask: (B, H, W) uint8. Gives float32 (B, H, W, 3) in [-1, 1]."""
    unit = image.float() / 255
    behind = torch.where(coloured[:, None], colours, torch.ones_like(colours))
    unit = unit + (1 - mask.float() / 255)[..., None] * (behind - 1)[:, None, None]
    return unit * 2 - 1


def detail(image: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of the first differences and of the Laplacian, at two scales."""
    error, total = image - target, image.new_zeros(())
    for scale in range(2):
        if scale:
            error = F.avg_pool2d(error, 2)
        along, down = error.diff(dim=3), error.diff(dim=2)
        curve = along.diff(dim=3)[:, :, 1:-1] + down.diff(dim=2)[:, :, :, 1:-1]
        total = total + along.abs().mean() + down.abs().mean() + curve.abs().mean()
    return total


def loss(vae: AutoencoderKL, image: Tensor, noise: Tensor, device: torch.device) -> dict[str, Tensor]:
    """Reconstruction from a sampled latent, and the divergence of the latents from a standard normal."""
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
        posterior = vae.encode(image).latent_dist
        mean, spread = posterior.mean.float(), posterior.logvar.float()
        output = vae.decode(mean + (0.5 * spread).exp() * noise).sample
    output = output.float()
    absolute, squared = F.l1_loss(output, image), F.mse_loss(output, image)
    kl = 0.5 * (mean.square() + spread.exp() - 1 - spread).sum((1, 2, 3)).mean()
    total = absolute + squared + 0.5 * detail(output, image) + KL_WEIGHT * kl
    return {"loss": total, "l1": absolute, "mse": squared, "kl": kl}


@torch.no_grad()
def latent_moments(vae: AutoencoderKL, images: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and deviation (4,) of the latents of whole images over white."""
    latents = torch.cat([vae.encode(batch).latent_dist.mean.float() for batch in images])
    return latents.mean((0, 2, 3)), latents.std((0, 2, 3))


@torch.no_grad()
def fold(vae: AutoencoderKL, mean: Tensor, deviation: Tensor) -> None:
    """Makes latents z become (z - mean) / deviation: the encoder ends so, the decoder begins with the inverse."""
    before, after = vae.quant_conv, vae.post_quant_conv  # 1x1: (8, 8, 1, 1) and (4, 4, 1, 1)
    after.bias += after.weight[:, :, 0, 0] @ mean
    after.weight *= deviation[None, :, None, None]
    before.weight[:4] /= deviation[:, None, None, None]
    before.bias[:4] = (before.bias[:4] - mean) / deviation
    before.bias[4:] -= 2 * deviation.log()  # log-variances


def whole_images(shards: Shards, heads: Tensor, device: torch.device, *, batch: int = 64) -> list[Tensor]:
    """The first view of some heads over white, in batches (B, 3, H, W) in [-1, 1]."""
    field = shards.field("image")
    picked = [field.take(part, torch.zeros_like(part)) for part in heads.split(batch)]
    return [(part.to(device).float() / 127.5 - 1).permute(0, 3, 1, 2).contiguous() for part in picked]


@torch.no_grad()
def measure(vae: AutoencoderKL, images: list[Tensor]) -> dict[str, float]:
    """PSNR of the reconstruction from the posterior's mean, over all pixels, and the moments of the latents."""
    squared, count, latents = 0.0, 0, []
    for image in images:
        latent = vae.encode(image).latent_dist.mean
        squared += float((vae.decode(latent).sample.clamp(-1, 1) - image).square().sum())
        count += image.numel()
        latents.append(latent)
    latent = torch.cat(latents)
    return {
        "psnr_db": 10 * math.log10(4 * count / squared),
        "latent_mean": float(latent.mean()),
        "latent_deviation": float(latent.std()),
    }


def export(vae: AutoencoderKL, folder: Path) -> None:
    """Writes the network in half precision, as a diffusers folder."""
    vae.to("cpu", memory_format=torch.contiguous_format).half().save_pretrained(folder, safe_serialization=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the recipe."""
    add_run_arguments(parser, batch=64)


def run(args: argparse.Namespace) -> None:
    """Trains for a piece; writes OUT/vae (a diffusers folder), OUT/vae.card.json and OUT/vae.png."""
    device = device_of(args)
    shards = Shards(args.data, held_every=args.held)
    torch.manual_seed(args.seed)
    vae = build(tiny=args.tiny).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(
        vae.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=1e-3, fused=device.type == "cuda"
    )
    piece = Piece(
        args.out,
        "autoencoder",
        seed=args.seed,
        steps=args.steps,
        networks={"vae": vae},
        optimizers={"adamw": optimizer},
        averaged=("vae",),
        settings={"batch": args.batch, "tiny": args.tiny, "rate": LEARNING_RATE},
    )
    source = Crops(shards, device, args.seed)

    def one_step(step: int) -> dict[str, Tensor]:
        set_rate(optimizer, LEARNING_RATE * rate(step, piece.steps, warm=100))
        image = source.draw(step, args.batch)
        latent = (args.batch, 4, image.shape[2] // 4, image.shape[3] // 4)
        noise = draws.normal(latent, draws.key(args.seed, "autoencoder", "noise", step), device)
        terms = loss(vae, image.contiguous(memory_format=torch.channels_last), noise, device)
        optimizer.zero_grad(set_to_none=True)
        terms["loss"].backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        return {name: value.detach() for name, value in terms.items()}

    piece.run(one_step, args.minutes, every=5 if args.tiny else 100)
    finish(piece, shards, device, tiny=args.tiny)


def finish(piece: Piece, shards: Shards, device: torch.device, *, tiny: bool) -> None:
    """Folds, measures and writes the averaged network of a piece."""
    vae: Any = piece.average_into("vae", build(tiny=tiny)).to(device).eval()
    pick = shards.training[torch.linspace(0, len(shards.training) - 1, min(1024, len(shards.training))).long()]
    fold(vae, *latent_moments(vae, whole_images(shards, pick, device)))
    held = whole_images(shards, shards.held[:256], device)
    found = measure(vae, held)
    with torch.no_grad():
        rebuilt = vae.decode(vae.encode(held[0][:8]).latent_dist.mean).sample
    sheet(piece.out / "vae.png", [list(held[0][:8]), list(rebuilt)])
    export(vae, piece.out / "vae")
    about = card(
        piece,
        shards,
        device,
        about="AutoencoderKL, a quarter of the size, 4 channels of mean 0 and deviation 1 (scaling_factor 1)",
        recipe="autoencoder.py: L1 + squares + half of differences and Laplacian + 1e-6 KL, random crops, "
        f"{COLOURED:.0%} over plain colours",
        measured=found,
        limits="rendered heads over white or plain colours only; fine texture is softened",
    )
    write_json(piece.out / "vae.card.json", about)
    print(f"autoencoder: {found['psnr_db']:.2f} dB on held-out heads, in '{piece.out / 'vae'}'", flush=True)
