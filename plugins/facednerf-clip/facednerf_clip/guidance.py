"""Guidance by a CLIP: renderings are moved to where its vector of the picture points as its vector of the sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from facednerf_clip.crops import Crops
from facednerf_clip.encoder import Encoder
from facednerf_clip.options import ClipOptions
from facednerf_core.interfaces import Guidance
from facednerf_core.resampling import fitted, resized
from facednerf_core.terms import Loss, LossFn, Step
from facednerf_core.vocabularies import unknown

if TYPE_CHECKING:
    from torch import Tensor

    from facednerf_core.scene import Rendering, Subject

REGION_DRAWS = 24
"""Noisy pictures over which the region of a sentence is averaged (Smilkov et al. 2017, "SmoothGrad")."""
REGION_NOISE = 0.15
SCORED_AT_ONCE = 64


class ClipGuidance(Guidance):
    """The loss is 1 - cos, the mean over views and random crops; the networks stay as they are.

    Plain, the cosine is that of the picture and the sentence. With a source prompt it is that of two differences (Gal et al.
    2022, "StyleGAN-NADA", Eq. 3),

        dI = E(rendering) - E(reference),    dT = E(sentence) - E(source),    <dI, dT> / (sqrt(|dI|^2 + floor^2) |dT|),

    rendering and reference being cropped alike. The floor is ours: where an edit begins the pictures are the same, and their
    difference has no direction yet.
    """

    def __init__(self, encoder: Encoder, options: ClipOptions) -> None:
        self.encoder, self.options = encoder, options

    def unknown_words(self, prompt: str) -> tuple[str, ...]:
        """The words that the text encoder has never learnt; empty for an open vocabulary."""
        return unknown(prompt, self.encoder.vocabulary)

    def longest_prompt(self, prompt: str) -> tuple[int, int]:
        """How many tokens the prompt takes, and how many there may be."""
        return self.encoder.length(prompt)

    def aim(self, prompt: str, subject: Subject, *, source_prompt: str | None = None, negative: str = "") -> LossFn:
        """A loss that falls as a rendering follows `prompt`.

        With a source prompt, unless the options say otherwise, the term must be against a reference. `negative` is what the
        picture is led away from: plainly, its vector is taken off the sentence's; beside a source prompt it is averaged in.
        """
        goal = self.direction(prompt, source_prompt, negative)
        by_difference = bool(source_prompt) and self.options.directional

        def loss(rendering: Rendering | None, step: Step) -> Loss:
            if rendering is None:
                raise ValueError("clip scores renderings: its term needs a look")
            image = rendering.image
            crops = self._crops(image.shape[1], step.rng)
            seen = self.encoder.pictures(crops.of(image))  # (N, V, K, D)
            if not by_difference:
                agreement = seen @ goal
                return Loss(1 - agreement.mean((1, 2)), {"cosine": float(agreement.detach().mean())})
            if step.reference is None:
                raise ValueError("clip with a source prompt needs Term.against")
            with torch.no_grad():
                before = self.encoder.pictures(crops.of(step.reference.image))
            moved = seen - before
            size = (moved.square().sum(-1) + self.options.floor**2).sqrt()
            agreement = (moved @ goal) / size
            metrics = {"cosine": float(agreement.detach().mean()), "moved": float(moved.detach().norm(dim=-1).mean())}
            return Loss(1 - agreement.mean((1, 2)), metrics)

        return loss

    def direction(self, prompt: str, source_prompt: str | None = None, negative: str = "") -> Tensor:
        """The unit vector (D,) along which pictures should lie, or move: the sentence's, less what it is to differ from."""
        goal = self.encoder.sentence(prompt)
        source = source_prompt if self.options.directional else None
        apart = [self.encoder.sentence(text) for text in (source, negative) if text]
        if apart:
            goal = goal - functional.normalize(torch.stack(apart).mean(0), dim=0)
        return functional.normalize(goal, dim=0)

    def region(
        self, prompt: str, subject: Subject, *, source_prompt: str | None = None, negative: str = ""
    ) -> Tensor | None:
        """Where the photo's pixels tell the sentence from the source, (N, 1, h, w).

        The mean size of the gradient of their agreement over noisy pictures, spread a little: 1 where it is well above a
        quarter of its largest, 0 below that. Without a photo, or a source prompt to differ from, it is unknown.
        """
        if subject.image is None or not source_prompt:
            return None
        image = subject.image[:, 0].float()
        side = self.encoder.size
        image = resized(image, fitted(image.shape[-2], image.shape[-1], side))
        goal = self.direction(prompt, source_prompt, negative)
        rng = torch.Generator().manual_seed(0)
        total = image.new_zeros(len(image), 1, *image.shape[-2:])
        for _ in range(REGION_DRAWS):
            crops = Crops.draw(1, 1, side, rng, smallest=self.options.smallest, noise=REGION_NOISE)
            with torch.enable_grad():
                x = image.detach().requires_grad_()
                agreement = (self.encoder.pictures(crops.of(x.unsqueeze(1))) @ goal).sum()
                (found,) = torch.autograd.grad(agreement, x)
            total += found.square().sum(1, keepdim=True).sqrt()
        reach = max(1, round(min(image.shape[-2:]) / 16)) * 2 + 1
        total = functional.avg_pool2d(total, reach, 1, reach // 2, count_include_pad=False)
        total = functional.avg_pool2d(total, reach, 1, reach // 2, count_include_pad=False)
        top = total.flatten(1).quantile(0.97, dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
        return ((total / top - 0.25) / 0.35).clamp(0, 1)

    @torch.no_grad()
    def score(self, pictures: Tensor, prompt: str, *, source_prompt: str | None = None, negative: str = "") -> Tensor:
        """The cosine of each whole picture with the direction of the sentence, (M,)."""
        side = self.encoder.size
        goal = self.direction(prompt, source_prompt, negative)
        return torch.cat(
            [self.encoder.pictures(resized(part, (side, side))) @ goal for part in pictures.split(SCORED_AT_ONCE)]
        )

    def _crops(self, views: int, rng: torch.Generator) -> Crops:
        chosen = self.options
        return Crops.draw(
            views,
            chosen.crops,
            self.encoder.size,
            rng,
            smallest=chosen.smallest,
            mirror=chosen.mirror,
            noise=chosen.noise,
        )
