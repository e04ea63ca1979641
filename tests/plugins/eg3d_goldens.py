"""The EG3D goldens and what their tests share: the shrunken generator and the stated tolerances."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from facednerf_eg3d.network import TriPlaneGenerator
from facednerf_eg3d.sampling import Draws
from safetensors.torch import load_file
from torch import Tensor

GOLDEN = Path(__file__).parents[1] / "golden" / "eg3d"
TINY = load_file(GOLDEN / "golden_tiny.safetensors")
OPS = load_file(GOLDEN / "golden_ops.safetensors")
_TINY_FACTS = json.loads((GOLDEN / "golden_tiny.json").read_text())
_TOLERANCES = _TINY_FACTS["tolerance"]["per_tensor"] | json.loads((GOLDEN / "golden_ops.json").read_text())["fp32_vs_fp64"]


def assert_golden(name: str, value: Tensor) -> None:
    """Equality within ten times the original's own float32 error, never asking for less than 1e-5 of the largest."""
    golden = TINY[name] if name in TINY else OPS[name]
    facts = _TOLERANCES[name]
    tolerance = max(10 * facts["fp32_vs_fp64_maxabs"], 1e-5 * facts["absmax"])
    torch.testing.assert_close(value.reshape(golden.shape), golden, atol=tolerance, rtol=0)


def stored(prefix: str) -> dict[str, Tensor]:
    """Tensors of a golden network; scalars were stored as vectors of one."""
    found = {name.removeprefix(prefix): value for name, value in TINY.items() if name.startswith(prefix)}
    return {name: value.reshape(()) if name.endswith("noise_strength") else value for name, value in found.items()}


def tiny_config(**rendering: object) -> dict[str, object]:
    """Constructor arguments of the shrunken generator, some rendering options changed."""
    config = dict(_TINY_FACTS["init_kwargs"])
    config["rendering_kwargs"] = config["rendering_kwargs"] | rendering
    return config | {
        "plane_resolution": 32,
        "sr_input_resolution": 16,
        "sr_widths": (16, 8),
        "neural_rendering_resolution": 16,
    }


def tiny(**rendering: object) -> TriPlaneGenerator:
    """The shrunken generator."""
    return TriPlaneGenerator.from_state_dict(stored("params."), **tiny_config(**rendering))


def draws(prefix: str = "") -> Draws:
    """The random numbers that the goldens fixed, two subjects with one view each."""
    coarse, fine = TINY[f"{prefix}in.noise_coarse"], TINY[f"{prefix}in.noise_fine"]
    return Draws(coarse[:, None, :, :, 0], fine.view(2, 1, -1, fine.shape[1]))
