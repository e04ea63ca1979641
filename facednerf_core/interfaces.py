"""Where a stranger plugs in: the abstract classes that plugins implement."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from facednerf_core.errors import Unsupported

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

    from facednerf_core.recipe import Recipe
    from facednerf_core.scene import Atlas, Latent, Rendering, Scene, Subject
    from facednerf_core.terms import LossFn, Stage, Term
    from facednerf_core.views import Orbit, View


class Generator(ABC):
    """A frozen 3D GAN: a latent becomes a scene, a scene becomes renderings.

    Attributes:
        orbit: the cameras in which it can be trusted.
        size: height and width of its own images, pixels.
    """

    orbit: Orbit
    size: tuple[int, int]

    @abstractmethod
    def mean(self) -> Latent:
        """The mean latent, w of shape (1, L, C), with the generator's own noise maps."""

    @abstractmethod
    def deviation(self) -> Tensor:
        """The standard deviation of W along each dimension, (C,): the unit of learning rates and of noise on w."""

    def axes(self) -> Tensor:
        """W's principal axes as rows (C, C), each as long as W's deviation along it, but no longer than the root of twice
        W's mean variance; or better ones, where a generator knows along which one thing at a time changes.

        A step along them goes where heads differ, and hardly where no head is. A generator that does not know them has
        its dimensions instead.
        """
        import torch

        return torch.diag(self.deviation())

    def atlas(self) -> Atlas | None:
        """Random heads and their pictures, by which a sentence finds its axes of W (`atlas.heading`); None: there is none,
        and an edit begins where the photo is."""
        return None

    @abstractmethod
    def sample(self, rng: torch.Generator, truncation: float = 0.7) -> Latent:
        """A random latent (1, L, C), pulled towards the mean by `truncation` (1: not at all)."""

    @abstractmethod
    def synthesize(self, latent: Latent) -> Scene:
        """The scene of a latent; called once per step, however many terms and looks there are."""

    @abstractmethod
    def render(
        self, scene: Scene, view: View, *, jitter: Sequence[torch.Generator] | None, size: int | None = None
    ) -> Rendering:
        """All V views of the N scenes at one size, in one call.

        `jitter` has one random generator per view, for the depths sampled along rays (shared by the N subjects);
        None means none: the middle of each interval. `size` is the image's height in pixels, None the generator's own.
        """

    @abstractmethod
    def tunable(self) -> Mapping[str, torch.nn.Parameter]:
        """The parameters that pivotal tuning may move, by their official names."""

    @abstractmethod
    def tuned(self, tensors: Mapping[str, Tensor]) -> Generator:
        """This generator with some tensors replaced, differentiable in them; this one is never changed."""

    def density(self, scene: Scene, points: Tensor, view: View) -> Tensor:
        """Volume density (N, P) at world points (N, P, 3).

        Raises:
            Unsupported: the backbone has no density that can be asked for.
        """
        raise Unsupported(f"{type(self).__name__} gives no density, so it has no mesh; ask for a turntable instead.")


class Guidance(ABC):
    """What makes renderings follow a sentence."""

    @abstractmethod
    def aim(self, prompt: str, subject: Subject, *, source_prompt: str | None = None, negative: str = "") -> LossFn:
        """A loss that falls as a rendering follows `prompt`; the text is encoded here, once."""

    def region(
        self, prompt: str, subject: Subject, *, source_prompt: str | None = None, negative: str = ""
    ) -> Tensor | None:
        """Where in the subject's photo `prompt` asks for something else, (N, 1, h, w) in [0, 1]; None: anywhere.

        What lies outside can be held to the photo, what lies inside must not.
        """
        return None

    def score(self, pictures: Tensor, prompt: str, *, source_prompt: str | None = None, negative: str = "") -> Tensor | None:
        """How much better pictures (M, 3, H, W) in [-1, 1] fit `prompt` than the source or nothing, (M,), each by itself;
        None: it cannot tell.

        An edit begins further along those axes of W along which the heads of a generator's atlas score higher.
        """
        return None

    def unknown_words(self, prompt: str) -> tuple[str, ...]:
        """The words of a prompt that its text encoder has never learnt; empty for an open vocabulary."""
        return ()

    def longest_prompt(self, prompt: str) -> tuple[int, int]:
        """How many tokens the prompt takes, and how many there may be; (0, 0) where there is no limit."""
        return (0, 0)

    def state(self) -> Mapping[str, Tensor]:
        """What it has learnt so far in this run, to be kept in the checkpoint; empty if it does not train."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes up what `state` returned."""


class Identity(ABC):
    """What tells whether two pictures show the same individual."""

    @abstractmethod
    def embed(self, image: Tensor, landmarks: Tensor | None = None) -> Tensor:
        """Unit vectors (N, V, D) of images (N, V, 3, H, W) in [-1, 1], aligned by landmarks (N, V, K, 2) where given."""

    @abstractmethod
    def aim(self, subject: Subject) -> LossFn:
        """A loss that falls as a rendering resembles the subject; photo and rendering share the photo's alignment."""


class Relighter(ABC):
    """What estimates and changes the light of a picture, as 9 SH coefficients in the camera's frame."""

    @abstractmethod
    def estimate(self, image: Tensor) -> Tensor:
        """The light (N, V, 9) of images (N, V, 3, H, W) in [-1, 1]."""

    @abstractmethod
    def relight(self, image: Tensor, sh: Tensor) -> Tensor:
        """The images under another light (N, V, 9)."""

    @abstractmethod
    def aim(self, light: Tensor) -> LossFn:
        """A loss that falls as a rendering shows the world light (9,), rotated into each camera's frame."""


@dataclass(frozen=True)
class Face:
    """A face found in a photo; positions in pixels of that photo, x to the right and y down.

    Landmarks, where given, begin with ArcFace's five: left eye, right eye, nose tip, left and right mouth corner
    ('left' as the image shows it).
    """

    box: tuple[float, float, float, float]  # left, top, right, bottom
    landmarks: np.ndarray | None = None  # (K, 2)
    pose: tuple[float, float, float] | None = None  # yaw, pitch, roll in radians
    mask: np.ndarray | None = None  # (H, W) of the whole photo, [0, 1]: the person in front of the background
    score: float = 1.0

    @property
    def area(self) -> float:
        """Of the box, in square pixels."""
        left, top, right, bottom = self.box
        return max(0.0, right - left) * max(0.0, bottom - top)


class Detector(ABC):
    """What finds faces in a photo."""

    @abstractmethod
    def find(self, photo: np.ndarray) -> Sequence[Face]:
        """The faces of an RGB photo (H, W, 3) uint8, largest first; empty where there is none."""


class Inverter(ABC):
    """What brings the generator to the photo: where the search begins, and its stages."""

    @abstractmethod
    def begin(self, generator: Generator, subject: Subject, rng: torch.Generator) -> Latent:
        """The latent that the search starts from, (N, L, C)."""

    @abstractmethod
    def stages(self, recipe: Recipe, terms: Mapping[str, Term]) -> Sequence[Stage]:
        """The stages, in order, made of the terms that compose offers under their names."""


class Metric(ABC):
    """What is measured after a run, with networks that no term used.

    Attributes:
        networks: the names of the networks that judge, besides its weights card; run.json has them beside the numbers.
    """

    networks: Sequence[str] = ()

    @abstractmethod
    def measure(self, before: Rendering | None, after: Rendering, subject: Subject, recipe: Recipe) -> Mapping[str, Any]:
        """Named numbers, or other plain data that JSON can hold, about what a run made.

        Args:
            before: the inversion that the edit came from, at the same V views as `after`; None where there is none (an
                inversion itself, or a recipe that edits from the mean).
            after: the result, (N, V, 3, H, W), as the generator draws it: first the photo's own camera, then one from the
                left and one from the right, where the card says that it `sees` so far.
            subject: the photo, at its camera as it was found at first.
            recipe: what was asked for.
        """
