"""What the tests of the starter's recipes share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six heads of the world in two views each, 64 px."""
    from facednerf_starter.train.__main__ import main

    root = tmp_path_factory.mktemp("shards")
    main(["data", "--out", str(root), "--heads", "6", "--views", "2", "--size", "64", "--shard", "6"])
    return root
