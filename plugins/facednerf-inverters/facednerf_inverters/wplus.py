"""The photo's latent by gradient descent: first in W, with the camera, then a little further, in W+."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from facednerf_core.interfaces import Inverter
from facednerf_core.terms import Ramp, Stage
from facednerf_inverters.options import INVERT, REFINE, WPlusOptions
from facednerf_inverters.weighing import weighed

if TYPE_CHECKING:
    import torch

    from facednerf_core.interfaces import Generator
    from facednerf_core.recipe import Recipe
    from facednerf_core.scene import Latent, Subject
    from facednerf_core.terms import Term


class WPlus(Inverter):
    """From the mean latent, one stage or two.

    `invert` stays in W (all rows of w move together), where every point is a likely head, and finds framing and camera
    with it. `refine`, where it is given steps, frees the rows, at a small rate and with a penalty on the change: free W+
    fits the photo with heads that fall apart from the side (Tov et al. 2021, "Designing an Encoder for StyleGAN Image
    Manipulation", on distortion against editability). Pivotal tuning needs no such pivot.
    """

    def __init__(self, options: WPlusOptions | None = None) -> None:
        self.options = options or WPlusOptions()

    def begin(self, generator: Generator, subject: Subject, rng: torch.Generator) -> Latent:
        """The mean latent, for each subject."""
        mean = generator.mean()
        return mean.with_w(mean.w.repeat(subject.view.camera.shape[0], 1, 1))

    def stages(self, recipe: Recipe, terms: Mapping[str, Term]) -> Sequence[Stage]:
        """`invert` and, where it is given steps, `refine`, on the terms reconstruction, identity, silhouette and latent that
        are offered."""
        own = self.options
        likeness = {"reconstruction": 1.0, "identity": own.identity, "silhouette": own.silhouette}
        stages = [
            Stage(
                INVERT,
                frozenset({"latent", "camera"}),
                weighed(terms, {**likeness, "latent": own.invert_prior}),
                recipe.steps.get(INVERT, own.invert_steps),
                {"latent": own.invert_rate, "camera": own.camera_rate},
                Ramp(rise=0.05, fall=0.3),
                tied=True,
                size=recipe.size,
            ),
        ]
        if own.refine_steps or REFINE in recipe.steps:
            stages.append(
                Stage(
                    REFINE,
                    frozenset({"latent", "camera"}),
                    weighed(terms, {**likeness, "latent": own.refine_prior}),
                    recipe.steps.get(REFINE, own.refine_steps),
                    {"latent": own.refine_rate, "camera": own.camera_refine_rate},
                    Ramp(rise=0.1, fall=0.4),
                    size=recipe.size,
                )
            )
        return stages
