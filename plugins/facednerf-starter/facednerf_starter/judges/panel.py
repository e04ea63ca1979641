"""The judges of attributes and people, loaded from a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from facednerf_core.errors import MissingWeights
from facednerf_starter.judges.network import SIZE, Judge, PersonJudge
from facednerf_starter.judges.questions import CHOICES, NUMBERS, OUTPUTS, Answers, answers

PARTS = ("attributes", "person")


@dataclass(frozen=True)
class Judges:
    """Both judges, frozen, on one device."""

    attributes: Judge
    person: PersonJudge
    threshold: float  # two pictures whose embeddings agree more show one person, at 1 % false accepts

    @classmethod
    def from_files(cls, folder: Path, device: torch.device | str = "cpu") -> Judges:
        """Reads judges.safetensors and judges.json of a folder.

        Raises:
            MissingWeights: they are not there, or were trained for other questions.
        """
        tensors, config = folder / "judges.safetensors", folder / "judges.json"
        for path in (tensors, config):
            if not path.is_file():
                raise MissingWeights(
                    f"no '{path.name}' in '{folder}'; train the judges (python -m facednerf_starter.train judges --help) "
                    "and copy judges.safetensors, judges.json and judges.card.json there"
                )
        return cls.from_tensors(load_file(tensors), json.loads(config.read_text("utf-8")), device)

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], config: Mapping[str, Any], device: torch.device | str = "cpu"
    ) -> Judges:
        """The judges of a file's tensors (`attributes.*`, `person.*`) and of the settings beside it."""
        if config["choices"] != list(CHOICES) or config["numbers"] != list(NUMBERS):
            raise MissingWeights(
                f"these judges answer {config['choices']} and {config['numbers']}, this version asks {list(CHOICES)} and "
                f"{list(NUMBERS)}; train them again: python -m facednerf_starter.train judges"
            )
        attributes = Judge(OUTPUTS, config["widths"], config["blocks"])
        person = PersonJudge(config["embedding"], config["widths"], config["blocks"])
        for part, network in zip(PARTS, (attributes, person), strict=True):
            own = {key.removeprefix(f"{part}."): value for key, value in tensors.items() if key.startswith(f"{part}.")}
            network.load_state_dict(own)
            network.to(device).requires_grad_(False).eval()
        return cls(attributes, person, float(config["threshold"]))

    @torch.no_grad()
    def tell(self, image: Tensor) -> Answers:
        """The attributes of pictures (N, 3, H, W), RGB in [-1, 1], framed as the starter's generator frames a head."""
        return answers(self.attributes(fitted(image)))

    @torch.no_grad()
    def embed(self, image: Tensor) -> Tensor:
        """Unit vectors (N, D) of the people in pictures (N, 3, H, W): their products are to be held against `threshold`."""
        found: Tensor = self.person(fitted(image))
        return found


def fitted(image: Tensor) -> Tensor:
    """Pictures (N, 3, H, W) at the judges' size, within [-1, 1]."""
    image = image.float().clamp(-1, 1)
    if image.shape[-2:] == (SIZE, SIZE):
        return image
    return F.interpolate(image, (SIZE, SIZE), mode="bilinear", align_corners=False, antialias=True)
