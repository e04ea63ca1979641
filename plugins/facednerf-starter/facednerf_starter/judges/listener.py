"""The judge of sentences: a CLIP of another architecture, seed and wording than the one that guides, for measuring only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from facednerf_clip.encoder import Encoder, load
from torch import Tensor

from facednerf_core.errors import MissingWeights
from facednerf_core.resampling import resized

NAME = "clip-judge"


@dataclass(frozen=True)
class Listener:
    """Says which of two pictures is nearer to a sentence."""

    encoder: Encoder

    @classmethod
    def from_folder(cls, folder: Path, device: torch.device | str = "cpu") -> Listener:
        """Reads the open_clip folder `clip-judge` of a folder.

        Raises:
            MissingWeights: it is not there.
        """
        if not (folder / NAME).is_dir():
            raise MissingWeights(
                f"no '{NAME}' in '{folder}'; train it (python -m facednerf_starter.train clip --judge --help) and copy the "
                "folder there"
            )
        return cls(load(folder / NAME, torch.device(device)))

    @torch.no_grad()
    def agreement(self, image: Tensor, sentence: str) -> float:
        """The mean cosine between pictures (N, 3, H, W), RGB in [-1, 1], and a sentence."""
        side = (self.encoder.size, self.encoder.size)
        seen = self.encoder.pictures(resized(image.float().clamp(-1, 1), side))
        return float((seen @ self.encoder.sentence(sentence)).mean())
