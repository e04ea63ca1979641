"""The starter's CLIP as a folder that open_clip reads: `local-dir:FOLDER` names it there (Radford et al. 2021).

open_clip_config.json says how the networks are built, open_clip_model.safetensors holds them, and the tokenizer's files
stand beside them. Pictures are read as they are, in [-1, 1]: mean and deviation of the preprocessing are a half.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from facednerf_core.resampling import resized
from facednerf_starter.train import tokenizer
from facednerf_starter.train.pieces import write_json

CONFIG, MODEL = "open_clip_config.json", "open_clip_model.safetensors"
SIZE = 128
"""Height and width of the pictures, in pixels."""
VISION: dict[str, dict[str, Any]] = {
    "guide": {
        "image_size": SIZE, "patch_size": 8, "layers": 6, "width": 128, "head_width": 32, "mlp_ratio": 2.0,
        "pool_type": "avg",
    },
    "judge": {"image_size": SIZE, "layers": [2, 3, 3, 1], "width": 12, "head_width": 32},
}  # fmt: skip
"""A transformer for guidance, and residual convolutions (open_clip's ModifiedResNet) for measuring."""
TINY: dict[str, dict[str, Any]] = {
    "guide": {
        "image_size": 32, "patch_size": 16, "layers": 1, "width": 16, "head_width": 8, "mlp_ratio": 1.0,
        "pool_type": "avg",
    },
    "judge": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 2, "head_width": 8},
}  # fmt: skip


def architecture(tokens: int, *, judge: bool = False, tiny: bool = False) -> dict[str, Any]:
    """open_clip's `model_cfg` for a vocabulary of `tokens`, the last of which ends a text."""
    width = 16 if tiny else 96
    return {
        "embed_dim": 8 if tiny else 128 if not judge else 96,
        "vision_cfg": (TINY if tiny else VISION)["judge" if judge else "guide"],
        "text_cfg": {
            "context_length": tokenizer.TOKENS,
            "vocab_size": tokens,
            "hf_tokenizer_name": "starter",  # whatever it says: of a local folder open_clip reads the files beside
            "tokenizer_kwargs": {"local_files_only": True},
            "width": width,
            "heads": width // (8 if tiny else 32),
            "layers": 1 if tiny else 3,
            "mlp_ratio": 1.0 if tiny else 2.5,
        },
    }


def build(config: Mapping[str, Any]) -> nn.Module:
    """A network of this `model_cfg`, by chance."""
    from open_clip.model import CLIP

    return CLIP(config["embed_dim"], dict(config["vision_cfg"]), dict(config["text_cfg"]))


def write(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Writes a folder in half precision; the tensors whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.write(folder)
    half = {
        key: (value.detach().half() if value.is_floating_point() else value.detach()).cpu().contiguous().clone()
        for key, value in tensors.items()
    }
    fresh = folder / f"{MODEL}.part"
    save_file(half, fresh, metadata={"format": "pt"})
    fresh.replace(folder / MODEL)
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "shortest"}
    write_json(folder / CONFIG, {"model_cfg": dict(config), "preprocess_cfg": preprocess})


def load(folder: Path, device: torch.device) -> nn.Module:
    """The network of a folder, as open_clip itself reads it, for evaluation."""
    import open_clip

    shown = logging.root.level
    logging.root.setLevel(logging.ERROR)  # open_clip narrates on the root logger
    try:
        network: nn.Module = open_clip.create_model(f"local-dir:{folder}", device=device)
    finally:
        logging.root.setLevel(shown)
    return network.eval().requires_grad_(False)


def pictured(network: Any, image: Tensor) -> Tensor:
    """Unit vectors (B, D) of pictures (B, 3, H, W) in [-1, 1]."""
    side = network.visual.image_size
    height, width = side if isinstance(side, tuple) else (side, side)
    found: Tensor = network.encode_image(resized(image.clamp(-1, 1), (height, width)), normalize=True)
    return found.float()


def worded(network: Any, tokens: Tensor) -> Tensor:
    """Unit vectors (B, D) of texts' token numbers (B, TOKENS)."""
    found: Tensor = network.encode_text(tokens.long(), normalize=True)
    return found.float()
