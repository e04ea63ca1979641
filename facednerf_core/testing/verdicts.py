"""The contracts of what judges renderings: losses in general, guidances and identities."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from facednerf_core.scene import Latent, Rendering, Scene, Subject
from facednerf_core.terms import LossFn, Step
from facednerf_core.testing.probes import ANGLES, agree, five, pictures, seeded
from facednerf_core.views import Orbit

if TYPE_CHECKING:
    from facednerf_core.interfaces import Guidance, Identity


class LossContract(ABC):
    """What every loss of a guidance, an identity or a relighter keeps: a value per subject, a gradient of its own."""

    size = (64, 48)  # of the pictures, pixels; not square, for nobody may assume a square

    @abstractmethod
    def aimed(self, subject: Subject) -> LossFn:
        """The loss under test, aimed at what the contract looks for."""

    def subject(self, count: int = 1) -> Subject:
        """Who is to be kept: smooth random pictures, with plausible landmarks."""
        return Subject(Orbit().view((0.0, 0.0), subjects=count), pictures(count, 1, self.size), landmarks=five(count, 1))

    def verdict(self, loss: LossFn, image: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
        """The value (N,) of a loss on images (N, V, 3, H, W), and its gradient, of their shape."""
        leaf = image.clone().requires_grad_()
        view = Orbit().view(*ANGLES[: image.shape[1]], subjects=image.shape[0])
        step = Step(3, 10, seeded(seed), Latent(torch.zeros(image.shape[0], 1, 4)))
        value = loss(Rendering(Scene(), view, leaf, landmarks=five(*image.shape[:2])), step).value
        assert value.shape == image.shape[:1], f"a loss is (N,) = {tuple(image.shape[:1])}, not {tuple(value.shape)}"
        assert value.dtype == torch.float32 and value.isfinite().all(), "a loss is float32 and finite"
        assert value.requires_grad, "the gradient reaches the image"
        value.sum().backward()
        assert leaf.grad is not None, "the gradient reaches the image"
        return value.detach(), leaf.grad

    def test_the_gradient_reaches_every_view(self) -> None:
        _, gradient = self.verdict(self.aimed(self.subject()), pictures(1, 2, self.size, 5))
        assert gradient.isfinite().all(), "the gradient is finite"
        assert (gradient.abs().amax(dim=(0, 2, 3, 4)) > 0).all(), "the gradient reaches both views"

    def test_a_verdict_depends_on_its_rng_alone(self) -> None:
        loss, image, state = self.aimed(self.subject()), pictures(1, 1, self.size, 5), torch.get_rng_state()
        one, other = (self.verdict(loss, image, 1) for _ in range(2))
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1]), "the same rng gives the same verdict"
        assert torch.equal(state, torch.get_rng_state()), "a loss must not draw from torch's global generator"

    def test_subjects_are_judged_apart(self) -> None:
        loss, image = self.aimed(self.subject(2)), pictures(2, 1, self.size, 5)
        changed = torch.cat([image[:1], pictures(1, 1, self.size, 8)])
        one, other = self.verdict(loss, image), self.verdict(loss, changed)
        close = (one[1][0] - other[1][0]).abs().max() <= 1e-3 * one[1][0].abs().max()
        assert close, "the gradient of subject 0 does not depend on subject 1"


class GuidanceContract(LossContract):
    """What every guidance keeps: besides the contract of a loss, that the sentence matters and its state comes back."""

    prompt = "an old man with glasses"
    other_prompt = "a young woman with blue hair"

    @abstractmethod
    def make(self) -> Guidance:
        """The guidance to be tested, on the CPU."""

    def aimed(self, subject: Subject) -> LossFn:
        return self.make().aim(self.prompt, subject)

    def test_the_sentence_matters(self) -> None:
        guidance, subject, image = self.make(), self.subject(), pictures(1, 1, self.size, 5)
        one, other = (self.verdict(guidance.aim(prompt, subject), image)[1] for prompt in (self.prompt, self.other_prompt))
        assert not agree(one, other, 1e-6 * float(one.abs().max())), "two sentences pull in two directions"

    def test_words_and_tokens_are_counted(self) -> None:
        guidance = self.make()
        assert set(guidance.unknown_words(self.prompt)) <= set(self.prompt.split()), "unknown words are words of the prompt"
        taken, room = guidance.longest_prompt(self.prompt)
        assert (taken, room) == (0, 0) or 0 < taken <= room, "the contract's prompt takes some tokens and fits"

    def test_its_state_comes_back(self) -> None:
        one, other, image = self.make(), self.make(), pictures(1, 1, self.size, 5)
        subject = self.subject()
        loss, again = one.aim(self.prompt, subject), other.aim(self.prompt, subject)
        self.verdict(loss, image, 1)  # lets a guidance that trains learn something
        other.load_state({name: value.clone() for name, value in one.state().items()})
        assert torch.equal(self.verdict(loss, image, 2)[1], self.verdict(again, image, 2)[1]), "load_state(state()) goes on"


class IdentityContract(LossContract):
    """What every identity keeps: unit embeddings, each subject alone, and a loss that is least for the photo itself."""

    @abstractmethod
    def make(self) -> Identity:
        """The identity to be tested, on the CPU."""

    def aimed(self, subject: Subject) -> LossFn:
        return self.make().aim(subject)

    def test_embeddings_are_unit_vectors(self) -> None:
        identity, image = self.make(), pictures(2, 2, self.size)
        for landmarks in (None, five(2, 2)):
            with torch.no_grad():
                found = identity.embed(image, landmarks)
            assert found.ndim == 3 and found.shape[:2] == (2, 2), f"embeddings are (N, V, D), not {tuple(found.shape)}"
            assert agree(found.norm(dim=-1), torch.ones(2, 2), 1e-4), "embeddings have unit length"

    def test_an_embedding_is_of_one_picture(self) -> None:
        identity, image = self.make(), pictures(2, 2, self.size)
        with torch.no_grad():
            together, alone = identity.embed(image), identity.embed(image[:1, :1])
        assert agree(together[:1, :1], alone, 1e-4), "an embedding does not depend on other pictures of its call"
        assert not agree(together[:1], together[1:], 1e-4), "two pictures have two embeddings"

    def test_the_photo_itself_is_nearest(self) -> None:
        subject = self.subject()
        assert subject.image is not None
        loss = self.aimed(subject)
        same, other = (self.verdict(loss, image)[0] for image in (subject.image, pictures(1, 1, self.size, 5)))
        assert (same < other).all(), "the loss of the photo itself is less than that of another picture"
