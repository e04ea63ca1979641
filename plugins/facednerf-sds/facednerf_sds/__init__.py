"""Score distillation from a latent diffusion model, for facednerf."""

__version__ = "0.1.0"
