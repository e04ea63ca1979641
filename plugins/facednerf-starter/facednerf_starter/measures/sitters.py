"""The heads that a benchmark inverts, each once, however many sections ask for it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from facednerf_core.views import Orbit, orbited
from facednerf_starter.measures.effort import Effort
from facednerf_starter.measures.inversions import SIDES, Inversion, inverted
from facednerf_starter.measures.people import SIZE, held_out, looked_at, one_thread, portrait
from facednerf_starter.world.attributes import LABELS, Attributes
from facednerf_starter.world.render import WorldRendering, render


def plain(heads: Attributes) -> Tensor:
    """Heads of whom every sentence of an edit asks something new: grown up, not old, with some hair that is not long,
    without hat, glasses or beard, not smiling."""
    bare = (heads.hat == 0) & (heads.glasses == 0) & (heads.beard == 0) & (heads.moustache == 0)
    style, words = heads.hair_style, LABELS["hair_style"]
    some_hair = (style != words.index("bald")) & (style != words.index("long"))
    earnest = heads.expression != LABELS["expression"].index("smile")
    natural = heads.hair_color < LABELS["hair_color"].index("blue")
    return bare & some_hair & earnest & natural & (heads.age > 0.2) & (heads.age < 0.5)


@dataclass
class Sitters:
    """Plain held-out heads, what the world shows of them, and their inversions as they are asked for."""

    effort: Effort
    heads: Attributes
    cameras: Tensor  # (N, 25)
    _seen: dict[int, WorldRendering] = field(default_factory=dict)
    _inversions: dict[int, Inversion] = field(default_factory=dict)

    @classmethod
    def of(cls, effort: Effort) -> Sitters:
        """As many as the effort inverts or edits."""
        count = max(effort.inverted, effort.edited)
        return cls(effort, held_out(count, wanted=plain), looked_at(count))

    def truth(self, head: int) -> WorldRendering:
        """What the world shows of a head from its portrait's camera and from both sides, (1, 3, ...)."""
        if head not in self._seen:
            yaw = torch.tensor((0.0, *SIDES))
            cameras = orbited(self.cameras[head].expand(len(yaw), -1), Orbit(), yaw, torch.zeros_like(yaw))
            with one_thread():
                self._seen[head] = render(self.heads[[head]], cameras[None], SIZE)
        return self._seen[head]

    def inversion(self, head: int) -> Inversion:
        """A head's inversion from its portrait alone."""
        if head not in self._inversions:
            subject = portrait(self.truth(head), 0, self.cameras[head])
            self._inversions[head] = inverted(subject, self.effort)
        return self._inversions[head]
