"""What several tests of the core begin with."""

from __future__ import annotations

from pathlib import Path

import pytest

from facednerf_core.plugins import Shelves
from facednerf_core.weights import Registry
from tests.toy_plugin import Toys


@pytest.fixture
def shelves(tmp_path: Path) -> Shelves:
    found = Shelves(toys=Toys(tmp_path))
    assert not found.broken
    return found


@pytest.fixture
def registry(shelves: Shelves, tmp_path: Path) -> Registry:
    return Registry(shelves.weights, tmp_path / "cache")
