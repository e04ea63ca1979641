"""The blobs keep the contract of generators; `pytest` in this folder runs it."""

from pathlib import Path

import facednerf_blobs
import torch
from facednerf_blobs.plugin import build, register_weights

from facednerf_core.cards import LocalWeights, WeightsCard
from facednerf_core.interfaces import Generator
from facednerf_core.testing import GeneratorContract


class TestBlobs(GeneratorContract):
    def make(self) -> Generator:
        cards: list[WeightsCard] = []
        register_weights(cards.append)
        (card,) = cards
        paths = {role: Path(facednerf_blobs.__file__).with_name(file) for role, file in card.files.items()}
        return build(torch.device("cpu"), LocalWeights(card, paths))
