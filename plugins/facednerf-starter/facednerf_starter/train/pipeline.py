"""The starter's text-to-image pipeline: a small Stable Diffusion, as a complete diffusers folder.

The UNet (Rombach et al., 2022) attends to the words at 16x16 and 8x8 of its 32x32 latents; the text encoder is CLIP's
transformer (Radford et al., 2021) with the starter's own vocabulary, trained together with the UNet.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import diffusers
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from facednerf_core.statedicts import check
from facednerf_starter.train import draws, tokenizer
from facednerf_starter.train.sheets import sheet

STEPS = 1000
"""Time steps of the diffusion."""


def build_unet(*, tiny: bool = False) -> UNet2DConditionModel:
    """The denoiser: latents (N, 4, 32, 32), time steps (N,) and words (N, TOKENS, C) to the noise in the latents."""
    return UNet2DConditionModel(
        sample_size=32,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 8, 16) if tiny else (48, 64, 96),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=16 if tiny else 96,
        attention_head_dim=2 if tiny else 4,  # diffusers means the number of heads
        norm_num_groups=4 if tiny else 16,
    )


def build_text_encoder(tokens: int, end: int, *, tiny: bool = False) -> CLIPTextModel:
    """The text encoder for a vocabulary of `tokens`, whose last is `end`, the one before it the begin."""
    width = 16 if tiny else 96
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=tokens,
            hidden_size=width,
            intermediate_size=2 * width if tiny else 384,
            projection_dim=width,
            num_hidden_layers=1 if tiny else 3,
            num_attention_heads=2 if tiny else 4,
            max_position_embeddings=tokenizer.TOKENS,
            hidden_act="quick_gelu",
            bos_token_id=end - 1,
            eos_token_id=end,
            pad_token_id=end,
        )
    )


def build_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise: `scaled_linear` betas 0.00085 to 0.012, epsilon prediction."""
    return DDIMScheduler(
        num_train_timesteps=STEPS,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="epsilon",
    )


def encode_words(texts: Sequence[str], words: tokenizer.CLIPTokenizer) -> Tensor:
    """Token numbers (N, TOKENS) int64 of texts; longer ones are cut."""
    cut = words(list(texts), padding="max_length", truncation=True, max_length=tokenizer.TOKENS, return_tensors="pt")
    numbers: Tensor = cut.input_ids
    return numbers


def write(folder: Path, vae: Path, unet: UNet2DConditionModel, text_encoder: CLIPTextModel) -> None:
    """Writes a pipeline folder in half precision; `vae` is the folder of the autoencoder, copied as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(vae, folder / "vae", dirs_exist_ok=True)
    unet.to("cpu", memory_format=torch.contiguous_format).half().save_pretrained(folder / "unet")
    _write_text_encoder(folder / "text_encoder", text_encoder)
    tokenizer.write(folder / "tokenizer")
    build_scheduler().save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": diffusers.__version__,
        "vae": ["diffusers", "AutoencoderKL"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _write_text_encoder(folder: Path, text_encoder: CLIPTextModel) -> None:
    """In half precision, under the key names of all released CLIP text encoders (some transformers versions drop
    their prefix); its config says float32, so that it is loaded so unless asked otherwise, as the others are."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        "text_model." + key.removeprefix("text_model."): value.detach().half().cpu().contiguous()
        for key, value in text_encoder.state_dict().items()
        if value.is_floating_point()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {**text_encoder.config.to_dict(), "architectures": ["CLIPTextModel"], "dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load_weights(folder: Path, unet: UNet2DConditionModel, text_encoder: CLIPTextModel) -> None:
    """Fills networks of the same widths from a pipeline folder.

    Raises:
        VocabularyError: its vocabulary is another.
        InputError: its networks have other widths.
    """
    if (folder / "tokenizer" / "vocabulary.txt").read_text(encoding="utf-8").split() != list(tokenizer.words()):
        raise tokenizer.VocabularyError(f"'{folder}' was trained with other words than today's; train without --start")
    own = text_encoder.state_dict()
    prefix = "text_model." if any(key.startswith("text_model.") for key in own) else ""
    saved = load_file(folder / "text_encoder" / "model.safetensors")
    found = {**own, **{prefix + key.removeprefix("text_model."): value for key, value in saved.items()}}
    denoiser = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    hint = f"'{folder}' has other widths than what is trained today; train without --start."
    check(denoiser, unet.state_dict(), "the UNet to be trained", hint=hint)
    check(found, own, "the text encoder to be trained", hint=hint)
    unet.load_state_dict(denoiser)
    text_encoder.load_state_dict(found)


@torch.no_grad()
def sample(
    folder: Path,
    prompts: Sequence[str],
    *,
    steps: int = 30,
    guidance: float = 7.5,
    negative: str = "",
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Images (N, 3, H, W) in [-1, 1] of prompts, from a pipeline folder.

    DDIM (Song et al., 2021) with classifier-free guidance (Ho and Salimans, 2021)."""
    words = tokenizer.load(folder / "tokenizer")
    text = CLIPTextModel.from_pretrained(folder / "text_encoder", local_files_only=True, dtype=torch.float32)
    text = text.to(device).eval()
    unet = (
        UNet2DConditionModel.from_pretrained(folder / "unet", local_files_only=True, low_cpu_mem_usage=False)
        .to(device)
        .eval()
    )
    vae = AutoencoderKL.from_pretrained(folder / "vae", local_files_only=True, low_cpu_mem_usage=False).to(device).eval()
    scheduler = DDIMScheduler.from_pretrained(folder / "scheduler", local_files_only=True)
    numbers = encode_words([negative] * len(prompts) + list(prompts), words).to(device)
    hidden = text(numbers).last_hidden_state
    side = unet.config.sample_size
    latent = draws.normal((len(prompts), 4, side, side), draws.key(seed, "sample"), device)
    scheduler.set_timesteps(steps, device=device)
    for t in scheduler.timesteps:
        without, given = unet(torch.cat([latent, latent]), t, hidden).sample.chunk(2)
        latent = scheduler.step(without + guidance * (given - without), t, latent).prev_sample
    return vae.decode(latent / vae.config.scaling_factor).sample.clamp(-1, 1)


def sample_sheet(
    folder: Path, prompts: Sequence[str], path: Path, *, rows: int = 3, seed: int = 0, device: torch.device | str = "cpu"
) -> None:
    """Writes a contact sheet: a column per prompt, `rows` seeds; the prompts in order beside it as PATH.txt."""
    images = sample(folder, [*prompts] * rows, seed=seed, device=device)
    sheet(path, [list(part) for part in images.split(len(prompts))])
    path.with_suffix(".txt").write_text("\n".join(prompts) + "\n", encoding="utf-8")
