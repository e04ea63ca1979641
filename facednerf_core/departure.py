"""Where an edit departs from the photo: how far along the axes of its sentence, and where in the picture they lead."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from torch.nn import functional as F

from facednerf_core.atlas import heading

if TYPE_CHECKING:
    from torch import Tensor

    from facednerf_core.atlas import Heading
    from facednerf_core.scene import Atlas

FIELDS = 32  # across the picture, in which what changes is compared
MUCH = (0.15, 0.4)  # of the change of the fields that change most: below the first a field is held, above the second spared


class Departure:
    """The opening of an edit, by a generator's atlas.

    The sentence's axes change hair, eyes or a chin and little else, and the generator shows where, on the subject itself:
    the picture at one end of the axes against that at the other. So what a photo has there may go, and the rest is held.
    """

    says = "comparing the sentence with heads that the generator drew, to see where it leads"

    def __init__(
        self,
        atlas: Atlas,
        axes: Tensor,
        score: Callable[[Tensor], Tensor | None],
        otherwise: Callable[[], Tensor | None],
    ) -> None:
        """`score` tells how well pictures (M, 3, S, S) fit the sentence, and `otherwise` finds its region in the photo where
        the scores tell nothing."""
        self.atlas, self.axes, self.score, self.otherwise = atlas, axes, score, otherwise
        self.region: Tensor | None = None

    @cached_property
    def heading(self) -> Heading | None:
        """The axes of the sentence; None where it tells nothing."""
        scores = self.score(self.atlas.pictures)
        return None if scores is None else heading(self.atlas, scores, self.axes)

    def begin(self, w: Tensor) -> Tensor:
        """Latents (N, L, C) brought along the axes, further than most heads of the atlas are."""
        return w if self.heading is None else self.heading.reached(w)

    def spared(self) -> Tensor | None:
        """The region, (N, 1, h, w) in [0, 1], 1 where the sentence leads; None before the edit has begun."""
        return self.region

    def look(self, w: Tensor, draw: Callable[[Tensor], Tensor]) -> None:
        """Finds the region: `draw` makes latents like w (N, L, C) pictures (N, 3, S, S)."""
        if self.heading is None:
            self.region = self.otherwise()
            return
        one, other = (draw(end).clamp(-1, 1) for end in self.heading.ends(w))
        self.region = region((one - other).abs().mean(1, keepdim=True))


def region(change: Tensor) -> Tensor:
    """Where a change (N, 1, S, S) is, spread a little: (N, 1, h, w), from 0 where it is little to 1 where it is much."""
    fields = F.adaptive_avg_pool2d(change, min(FIELDS, *change.shape[-2:]))
    fields = F.avg_pool2d(F.max_pool2d(fields, 3, 1, 1), 3, 1, 1, count_include_pad=False)
    most = fields.flatten(1).quantile(0.97, dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
    low, high = MUCH
    return ((fields / most - low) / (high - low)).clamp(0, 1)
