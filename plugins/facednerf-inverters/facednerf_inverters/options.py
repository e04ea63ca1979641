"""How long the search takes and how far it may go: all the numbers of both inverters stand here.

With the edit's steps the default recipe takes some minutes on two CPU cores, by the machine. Rates are in the
units of `terms.Stage`.
"""

from __future__ import annotations

from dataclasses import dataclass

INVERT, REFINE, TUNE = "invert", "refine", "tune"


@dataclass(frozen=True)
class WPlusOptions:
    """Options of w-plus. Steps can also be given as --steps invert=... and refine=..., which goes before."""

    invert_steps: int = 70
    refine_steps: int = 0  # none: half a decibel nearer to the photo, and pieces that float beside the head
    invert_rate: float = 0.1  # of w, in deviations
    refine_rate: float = 0.03
    camera_rate: float = 0.003  # radians, while the search is in W
    camera_refine_rate: float = 0.0005
    invert_prior: float = 0.3  # weight of the pull towards the mean, while the search is in W
    refine_prior: float = 0.3  # weight of the pull towards what was found in W
    identity: float = 0.2  # weight of the likeness
    silhouette: float = 2.0  # weight of the outline: at a quarter of it white pieces hide on a white background


@dataclass(frozen=True)
class PtiOptions:
    """Options of pti. Steps can also be given as --steps tune=..., which goes before."""

    tune_steps: int = 90
    rate: float = 0.009  # of the generator's tensors, in their own units
    identity: float = 0.1  # weight of the likeness
    silhouette: float = 0.5  # weight of the outline
    locality: float = 0.15  # weight of the locality at nearby latents
    sides: float = 0.3  # share of that weight for the subject's own side views
    every: int = 3  # the localities cost further renderings: each is watched at one step of so many
