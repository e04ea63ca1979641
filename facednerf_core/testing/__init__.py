"""Contracts: what the loop relies on, as tests that a plugin author inherits.

    class TestMine(GeneratorContract):
        def make(self) -> Generator:
            return MyGenerator()

Each class is collected by pytest once it has a subclass whose name begins with Test; nothing here imports pytest, so the
methods can be called by hand as well. `make` is called once or more for each test: cache what is dear.
"""

from __future__ import annotations

from facednerf_core.testing.detectors import DetectorContract
from facednerf_core.testing.generators import GeneratorContract
from facednerf_core.testing.inverters import InverterContract
from facednerf_core.testing.relighters import RelighterContract
from facednerf_core.testing.verdicts import GuidanceContract, IdentityContract, LossContract

__all__ = [
    "DetectorContract",
    "GeneratorContract",
    "GuidanceContract",
    "IdentityContract",
    "InverterContract",
    "LossContract",
    "RelighterContract",
]
