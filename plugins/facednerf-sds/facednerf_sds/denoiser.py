"""Denoisers: whatever a diffusion model was trained to predict, here it says which noise it sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch

from facednerf_core.errors import Unsupported

if TYPE_CHECKING:
    from torch import Tensor


class Denoiser(Protocol):
    """Finds the noise in noisy latents."""

    def __call__(self, noisy: Tensor, t: Tensor, text: Tensor) -> Tensor:
        """The noise eps (B, c, h, w) in latents (B, c, h, w) at time steps (B,), under text (B, T, D)."""
        ...


class Epsilon:
    """A UNet that predicts the noise itself."""

    def __init__(self, unet: Any) -> None:
        self.unet = unet

    def __call__(self, noisy: Tensor, t: Tensor, text: Tensor) -> Tensor:
        return self.unet(noisy, t, encoder_hidden_states=text).sample


class Velocity:
    """A UNet that predicts v = alpha eps - sigma z (Salimans & Ho 2022); with z_t = alpha z + sigma eps that makes
    eps = alpha v + sigma z_t."""

    def __init__(self, unet: Any, alpha_bars: Tensor) -> None:
        self.unet = unet
        self.alpha_bars = alpha_bars  # (steps,)

    def __call__(self, noisy: Tensor, t: Tensor, text: Tensor) -> Tensor:
        alpha, sigma = amplitudes(self.alpha_bars, t, noisy)
        return alpha * self.unet(noisy, t, encoder_hidden_states=text).sample + sigma * noisy


def denoiser(unet: Any, prediction: str, alpha_bars: Tensor) -> Denoiser:
    """The denoiser for what the scheduler's config calls `prediction_type`.

    Raises:
        Unsupported: neither epsilon nor v_prediction.
    """
    if prediction == "epsilon":
        return Epsilon(unet)
    if prediction == "v_prediction":
        return Velocity(unet, alpha_bars)
    raise Unsupported(f"sds reads diffusion models that predict epsilon or v_prediction, not {prediction!r}.")


def amplitudes(alpha_bars: Tensor, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """alpha = sqrt(alpha_bar) and sigma = sqrt(1 - alpha_bar) at time steps (B,), each (B, 1, 1, 1)."""
    alpha_bar = alpha_bars.to(t.device)[t].view(-1, 1, 1, 1)
    return alpha_bar.sqrt().to(like), (1 - alpha_bar).sqrt().to(like)


def guided(with_text: Tensor, without: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance in the paper's convention, eps_text + scale (eps_text - eps_uncond).

    Ho & Salimans' (2022) guidance scale, that of diffusion pipelines, is scale + 1: the paper's 100 is 101 there.
    """
    return with_text + scale * (with_text - without)


def noised(latents: Tensor, noise: Tensor, t: Tensor, alpha_bars: Tensor) -> Tensor:
    """z_t = alpha z + sigma eps."""
    alpha, sigma = amplitudes(alpha_bars, t, latents)
    return alpha * latents + sigma * noise


@torch.no_grad()
def predicted(denoise: Denoiser, noisy: Tensor, t: Tensor, text: Tensor, without: Tensor, scale: float) -> Tensor:
    """The guided noise (B, c, h, w), with and without text (1, T, D) in one pass."""
    count = noisy.shape[0]
    if scale == 0:
        return denoise(noisy, t, text.expand(count, -1, -1))
    both = torch.cat([text.expand(count, -1, -1), without.expand(count, -1, -1)])
    with_text, plain = denoise(torch.cat([noisy, noisy]), torch.cat([t, t]), both).chunk(2)
    return guided(with_text, plain, scale)
