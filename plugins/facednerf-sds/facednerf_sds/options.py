"""What a user can set: `--option sds.scale=30`, or [options.sds] in TOML."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from facednerf_core.errors import InputError


@dataclass(frozen=True)
class SdsOptions:
    """Options of score distillation. Times are fractions of the diffusion process: 0 is a clean image, 1 is noise."""

    scale: float = 14.0  # s in eps = eps_text + s (eps_text - eps_uncond), the paper's; the usual guidance scale is s + 1
    t_min: float = 0.1
    t_max: float = 0.95
    times: Literal["uniform", "annealed"] = "uniform"  # annealed: from t_max down to t_min as the stage goes on
    draws: int = 1  # noises of a view in a step, whose gradients are averaged; uniform: each at a time from its own part
    weighting: Literal["variance", "constant"] = "variance"  # w(t): 1 - alpha_bar (the paper's), or 1
    clip: float | None = None  # the largest root mean square of the gradient at the diffusion latents
    posterior: bool = False  # sample the autoencoder's posterior (the official code does), or take its mean
    size: int | None = None  # pixels of the image that is judged, None: the size the diffusion model was trained at
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"  # auto: float16 on CUDA, float32 elsewhere

    def __post_init__(self) -> None:
        if not 0 <= self.t_min <= self.t_max <= 1:
            raise InputError(f"sds wants 0 <= t_min <= t_max <= 1, not t_min={self.t_min}, t_max={self.t_max}.")
        if self.draws < 1:
            raise InputError(f"sds wants at least one draw, not draws={self.draws}.")
        if self.clip is not None and self.clip <= 0:
            raise InputError(f"sds wants a clip above 0, not {self.clip}; leave it out for none.")
