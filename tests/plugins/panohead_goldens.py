"""The PanoHead goldens and what their tests share: the shrunken generator and the stated tolerances."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from facednerf_eg3d.sampling import Draws
from facednerf_panohead.network import TriGridGenerator
from safetensors.torch import load_file
from torch import Tensor

GOLDEN = Path(__file__).parents[1] / "golden" / "panohead"
TINY = {
    name: value
    for part in ("params", "values", "variants")
    for name, value in load_file(GOLDEN / f"golden_tiny_{part}.safetensors").items()
}
FACTS = json.loads((GOLDEN / "golden_tiny.json").read_text())
PARAMS = {name.removeprefix("params."): value for name, value in TINY.items() if name.startswith("params.")}
CAMERA = TINY["in.c"][:, None]  # (2, 1, 25)
RAYS = 12


def error(name: str) -> float:
    """The original's own float32 error, largest absolute."""
    return float(FACTS["tolerance"]["per_tensor"][name]["fp32_vs_fp64_maxabs"])


def assert_golden(name: str, value: Tensor) -> None:
    """Equality within ten times the original's own float32 error, never asking for less than 1e-5 of the largest."""
    golden = TINY[name]
    tolerance = max(10 * error(name), 1e-5 * FACTS["tolerance"]["per_tensor"][name]["absmax"])
    torch.testing.assert_close(value.reshape(golden.shape), golden, atol=tolerance, rtol=0)


def tiny_config(**rendering: object) -> dict[str, Any]:
    """The official constructor's arguments of the shrunken generator, some rendering options changed."""
    config: dict[str, Any] = copy.deepcopy(FACTS["init_kwargs"])
    config["rendering_kwargs"] |= rendering
    return config | {"neural_rendering_resolution": RAYS}


def tiny(**rendering: object) -> TriGridGenerator:
    """The shrunken generator."""
    return TriGridGenerator.from_state_dict(PARAMS, **tiny_config(**rendering))


def draws(prefix: str = "") -> Draws:
    """The random numbers that the goldens fixed, two subjects with one view each."""
    coarse, fine = TINY[f"{prefix}in.noise_coarse"], TINY[f"{prefix}in.noise_fine"]
    return Draws(coarse[:, None, :, :, 0], fine.view(2, 1, -1, fine.shape[1]))
