"""Score distillation: renderings are moved to where a diffusion model, told a sentence, finds less noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from facednerf_core.interfaces import Guidance
from facednerf_core.resampling import fitted, resized
from facednerf_core.terms import Loss, LossFn, Step
from facednerf_core.vocabularies import unknown
from facednerf_sds.denoiser import noised, predicted
from facednerf_sds.options import SdsOptions
from facednerf_sds.pipeline import Pipeline
from facednerf_sds.timesteps import parted

if TYPE_CHECKING:
    from torch import Tensor

    from facednerf_core.scene import Rendering, Subject

REGION_TIMES = (0.55, 0.9)
"""Between which times the region of a sentence is looked for: late enough for whole things, not for grain."""
REGION_DRAWS = 10
"""How many of them."""
SCORE_TIMES = (0.5, 0.7, 0.85)
"""The times at which pictures are scored: small things are told apart at the first, shapes at the last, grain at none."""
SCORED_AT_ONCE = 32
"""Pictures that the denoiser sees together."""


class ScoreDistillation(Guidance):
    """The gradient of score distillation (Poole et al. 2022, "DreamFusion", Eq. 3; the paper's Eq. 4 and 5),

        dL/dx = w(t) / D  (eps(z_t; y, t) - eps)  dz/dx,    w(t) = 1 - alpha_bar_t,

    with z the autoencoder's latents of the image x, D how many numbers z has, and eps(...) guided as in
    `denoiser.guided`. Dividing by D makes a mean of the sum that the official code forms: with 4 x 64 x 64 latents a
    weight of 1 here is 6.1e-5 there. With a source prompt the noise found in the reference under that prompt stands in
    place of eps (Hertz et al. 2023, "Delta Denoising Score"): only the difference of the sentences is left.

    One time and one noise say little of a small thing such as a smile: with the option `draws` several are asked about each
    view, and the mean of their gradients goes back through the autoencoder once.

    The gradient is computed with respect to the image, unscaled and in the networks' own precision, and applied in
    float32: weights that half precision would lose are multiplied afterwards.
    """

    def __init__(self, pipeline: Pipeline, options: SdsOptions) -> None:
        self.pipeline = pipeline
        self.options = options
        steps = len(pipeline.alpha_bars)
        self.times = parted(options.t_min, options.t_max, steps, options.times, options.draws)  # of each draw

    def unknown_words(self, prompt: str) -> tuple[str, ...]:
        """The words that the text encoder has never learnt; empty for an open vocabulary."""
        return unknown(prompt, self.pipeline.prompts.vocabulary)

    def longest_prompt(self, prompt: str) -> tuple[int, int]:
        """How many tokens the prompt takes, and how many there may be."""
        return self.pipeline.prompts.length(prompt)

    def aim(self, prompt: str, subject: Subject, *, source_prompt: str | None = None, negative: str = "") -> LossFn:
        """A loss that falls as a rendering follows `prompt`.

        Its value is a stand-in whose gradient is the one above; the size of that gradient is among its metrics. With a
        source prompt the term must be against a reference. `negative` stands for the absence of text.
        """
        encode = self.pipeline.prompts.encode
        text, without = encode(prompt), encode(negative)
        source = encode(source_prompt) if source_prompt else None

        def loss(rendering: Rendering | None, step: Step) -> Loss:
            if rendering is None:
                raise ValueError("score distillation scores renderings: its term needs a look")
            image = rendering.image
            subjects, views = image.shape[:2]
            t, noise, spread = self._draws(image, step)
            original = None
            if source is not None:
                if step.reference is None:
                    raise ValueError("score distillation with a source prompt needs Term.against")
                with torch.no_grad():
                    z = self.latents(step.reference.image.flatten(0, 1), spread)
                    original = self._noise_in(self._drawn(z, t), t, noise, source, without)
            flat = image.detach().flatten(0, 1)
            gradient, size = self.gradient(flat, t, noise, text, without, spread, original)
            value = (image.float() * gradient.view_as(image)).flatten(1).sum(1) / views
            steps = len(self.pipeline.alpha_bars)
            return Loss(value.view(subjects), {"gradient": size, "t": float(t.double().mean()) / steps})

        return loss

    @torch.no_grad()
    def region(
        self, prompt: str, subject: Subject, *, source_prompt: str | None = None, negative: str = ""
    ) -> Tensor | None:
        """Where the two sentences find different noise in the photo (Couairon et al. 2022, "DiffEdit"), (N, 1, h, w).

        The mean size of the difference over several times and draws of noise, spread a little: 1 where it is well above
        a quarter of its largest, 0 below that. Without a photo, or a source prompt to differ from, it is unknown.
        """
        if subject.image is None or not source_prompt:
            return None
        text, source, without = (self.pipeline.prompts.encode(sentence) for sentence in (prompt, source_prompt, negative))
        z = self.latents(subject.image[:, 0])
        steps = len(self.pipeline.alpha_bars)
        rng = torch.Generator().manual_seed(0)
        total = z.new_zeros(len(z), 1, *z.shape[2:])
        for share in torch.linspace(*REGION_TIMES, REGION_DRAWS).tolist():
            t = torch.full((len(z),), int(share * steps), device=z.device)
            noise = torch.randn(1, *z.shape[1:], generator=rng).to(z).expand_as(z)
            apart = self._noise_in(z, t, noise, text, without) - self._noise_in(z, t, noise, source, without)
            total += apart.square().sum(1, keepdim=True).sqrt()
        total = total.float()
        reach = max(1, round(min(total.shape[2:]) / 12)) * 2 + 1
        total = functional.max_pool2d(total, reach, 1, reach // 2)
        total = functional.avg_pool2d(total, reach, 1, reach // 2, count_include_pad=False)
        top = total.flatten(1).quantile(0.97, dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
        return ((total / top - 0.25) / 0.35).clamp(0, 1)

    @torch.no_grad()
    def score(self, pictures: Tensor, prompt: str, *, source_prompt: str | None = None, negative: str = "") -> Tensor:
        """How much less of a picture's noise is left unfound under the prompt than under the source, or without text where
        there is none: the denoiser as a classifier (Li et al. 2023, "Your Diffusion Model is Secretly a Zero-Shot
        Classifier", Eq. 6), (M,). All pictures share times and noise, and no guidance scale counts."""
        pipeline = self.pipeline
        text, other = (pipeline.prompts.encode(sentence) for sentence in (prompt, source_prompt or negative))
        steps = len(pipeline.alpha_bars)
        found = []
        for part in pictures.split(SCORED_AT_ONCE):
            z = self.latents(part)
            rng = torch.Generator().manual_seed(0)
            total = torch.zeros(len(z), device=z.device)
            for share in SCORE_TIMES:
                t = torch.full((len(z),), int(share * steps), device=z.device)
                noise = torch.randn(1, *z.shape[1:], generator=rng).to(z).expand_as(z)
                noisy = noised(z, noise, t, pipeline.alpha_bars)
                for words, sign in ((text, -1), (other, 1)):
                    left = predicted(pipeline.denoise, noisy, t, words, words, scale=0) - noise
                    total += sign * left.float().square().mean((1, 2, 3))
            found.append(total)
        return torch.cat(found)

    def gradient(
        self,
        image: Tensor,
        t: Tensor,
        noise: Tensor,
        text: Tensor,
        without: Tensor,
        spread: Tensor | None = None,
        original: Tensor | None = None,
    ) -> tuple[Tensor, float]:
        """dL/dx (B, 3, H, W) of images (B, 3, H, W), float32, and the root mean square of the draws' mean
        w(t) (eps(...) - eps).

        Args:
            image: in [-1, 1], any size.
            t: time steps, (B * K,): K draws of each image, side by side.
            noise: eps, of the latents' shape (B * K, c, h, w).
            text: the sentence's embedding, (1, T, D).
            without: the embedding of the negative or empty prompt, (1, T, D).
            spread: normal draws (B, c, h, w) for a sample of the autoencoder's posterior; None takes its mean.
            original: what stands in place of eps, (B * K, c, h, w); None is eps itself.
        """
        with torch.enable_grad():
            x = image.detach().requires_grad_()
            z = self.latents(x, spread)
            eps = self._noise_in(self._drawn(z.detach(), t), t, noise, text, without)
            g = self._weights(t).to(eps) * (eps - (noise if original is None else original).to(eps))
            g = self._clipped(g).unflatten(0, (len(z), -1)).mean(1)
            (found,) = torch.autograd.grad(z, x, g.to(z))
        return found.float() / z[0].numel(), float(g.detach().float().square().mean().sqrt())

    def latents(self, image: Tensor, spread: Tensor | None = None) -> Tensor:
        """The diffusion latents (B, c, h, w) of images (B, 3, H, W), brought to the model's own size first."""
        return self.pipeline.autoencoder.encode(resized(image, self._size(image)), spread)

    def _size(self, image: Tensor) -> tuple[int, int]:
        size = self.options.size or self.pipeline.size
        return fitted(image.shape[-2], image.shape[-1], size, self.pipeline.multiple)

    def _draws(self, image: Tensor, step: Step) -> tuple[Tensor, Tensor, Tensor | None]:
        """Time steps (N * V * K,), noise (N * V * K, c, h, w), and draws (N * V, c, h, w) for the posterior where it is
        sampled: K of each view.

        Each view has its own, on the CPU and in float32; subjects side by side share them.
        """
        subjects, views = image.shape[:2]
        autoencoder = self.pipeline.autoencoder
        height, width = (side // autoencoder.factor for side in self._size(image))

        def normal(draws: int) -> Tensor:
            shape = (views * draws, autoencoder.channels, height, width)
            return torch.randn(shape, generator=step.rng).repeat(subjects, 1, 1, 1).to(image.device)

        t = torch.stack([times.draw(views, step.progress, step.rng) for times in self.times], dim=1).flatten()
        t, noise = t.repeat(subjects).to(image.device), normal(len(self.times))
        return t, noise, normal(1) if autoencoder.posterior else None

    def _drawn(self, z: Tensor, t: Tensor) -> Tensor:
        """Latents (B, c, h, w) repeated for as many draws as t (B * K,) has of each."""
        return z.repeat_interleave(len(t) // len(z), dim=0)

    def _noise_in(self, z: Tensor, t: Tensor, noise: Tensor, text: Tensor, without: Tensor) -> Tensor:
        """The guided noise that the denoiser finds in z, noised to time t."""
        pipeline = self.pipeline
        noisy = noised(z, noise.to(z), t, pipeline.alpha_bars)
        return predicted(pipeline.denoise, noisy, t, text, without, self.options.scale)

    def _weights(self, t: Tensor) -> Tensor:
        """w(t), (B, 1, 1, 1)."""
        if self.options.weighting == "constant":
            return torch.ones(len(t), 1, 1, 1, device=t.device)
        return (1 - self.pipeline.alpha_bars.to(t.device)[t]).view(-1, 1, 1, 1)

    def _clipped(self, g: Tensor) -> Tensor:
        """The gradient (B, c, h, w), made shorter where its root mean square is above the option's."""
        if self.options.clip is None:
            return g
        size = g.float().square().mean((1, 2, 3), keepdim=True).sqrt()
        return g * (self.options.clip / size.clamp_min(self.options.clip)).to(g)
