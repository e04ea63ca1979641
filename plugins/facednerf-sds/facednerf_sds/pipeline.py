"""A diffusers pipeline folder, read offline: official Stable Diffusion 1.x and 2.x, and the starter's small one alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from facednerf_core import vocabularies
from facednerf_core.errors import InputError, Unsupported
from facednerf_sds.denoiser import Denoiser, denoiser
from facednerf_sds.prompts import Prompts

if TYPE_CHECKING:
    from torch import Tensor

PARTS = ("vae", "unet", "text_encoder", "tokenizer", "scheduler")


class Autoencoder:
    """Images to the latents that the diffusion model knows."""

    def __init__(self, vae: Any, *, posterior: bool = False) -> None:
        self.vae = vae
        self.posterior = posterior
        self.factor: int = 2 ** (len(vae.config.block_out_channels) - 1)  # pixels of an image per pixel of a latent
        self.channels: int = vae.config.latent_channels

    def encode(self, image: Tensor, noise: Tensor | None = None) -> Tensor:
        """Latents (B, c, h, w) of images (B, 3, H, W) in [-1, 1]: the posterior's mean, or with `noise` a sample of it."""
        found = self.vae.encode(image.to(self.vae.dtype)).latent_dist
        z = found.mean if noise is None else found.mean + found.std * noise.to(found.mean)
        return (z - (self.vae.config.shift_factor or 0.0)) * self.vae.config.scaling_factor


@dataclass(frozen=True)
class Pipeline:
    """The parts of a latent diffusion model that score distillation needs, frozen."""

    autoencoder: Any  # an Autoencoder
    denoise: Denoiser
    prompts: Prompts
    alpha_bars: Tensor  # (steps,) float64: the share of the image's variance that is left at each time step
    size: int  # pixels of the images it was trained on
    multiple: int = 8  # sides of an image are multiples of this


def load(folder: Path, device: torch.device, dtype: torch.dtype, *, posterior: bool = False) -> Pipeline:
    """The pipeline in a folder; nothing is fetched and no pickle is read.

    Raises:
        InputError: a part is missing or cannot be read.
        Unsupported: a model with two text encoders (SDXL), or that predicts neither noise nor velocity.
    """
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
    from transformers import CLIPTextModel, CLIPTokenizer

    missing = [part for part in PARTS if not (folder / part).is_dir()]
    if missing:
        raise InputError(f"{folder} is no diffusers pipeline: it has no folder {', '.join(missing)}.")
    if (folder / "text_encoder_2").is_dir():
        raise Unsupported("sds reads Stable Diffusion 1.x and 2.x; a model with two text encoders (SDXL) is not among them.")

    def part(kind: Any, name: str, **given: Any) -> Any:
        plain = any((folder / name).glob("*model.safetensors")) or any((folder / name).glob("*index.json"))
        if not plain:
            given["variant"] = "fp16"
        try:
            network = kind.from_pretrained(
                str(folder / name), local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False, **given
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise InputError(f"cannot read {name} of the pipeline {folder} (it must be safetensors): {error}") from error
        return network.eval().requires_grad_(False)

    layout: Any = {"device": device, "memory_format": torch.channels_last}  # a fifth faster, on CPUs too
    vae = part(AutoencoderKL, "vae", torch_dtype=dtype).to(**layout)
    unet = part(UNet2DConditionModel, "unet", torch_dtype=dtype).to(**layout)
    with _without_progress_bar():
        encoder = part(CLIPTextModel, "text_encoder").to(device=device, dtype=dtype)
    tokenizer = CLIPTokenizer.from_pretrained(str(folder / "tokenizer"), local_files_only=True)
    scheduler: Any = DDPMScheduler.from_pretrained(str(folder / "scheduler"), local_files_only=True)
    alpha_bars = scheduler.alphas_cumprod.double()
    autoencoder = Autoencoder(vae, posterior=posterior)
    return Pipeline(
        autoencoder,
        denoiser(unet, scheduler.config.prediction_type, alpha_bars),
        Prompts(tokenizer, encoder, vocabularies.read(folder / "tokenizer")),
        alpha_bars,
        unet.config.sample_size * autoencoder.factor,
        autoencoder.factor * 2 ** (len(unet.config.block_out_channels) - 1),
    )


@contextmanager
def _without_progress_bar() -> Iterator[None]:
    """Progress is the observers' to show: transformers draws a bar of its own while it reads weights."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
