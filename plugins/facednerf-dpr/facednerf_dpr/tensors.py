"""The official tensors under one name each.

An official file has 250 names for 112 tensors: each level of the hourglass stands by itself (`HG1.low1...`) and inside every
outer one (`HG2.middle.low1...`), and the light network inside the innermost (`HG0.middle...`). Ours is the flat form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from facednerf_core.statedicts import COUNTER, check


def flat(name: str) -> str:
    """The flat form of an official name; any other name as it is."""
    found = re.fullmatch(r"HG([0-3])((?:\.middle)+)\.(.+)", name)
    if found is None:
        return name
    level = int(found[1]) - found[2].count("middle")
    if level < -1:
        return name
    return f"light.{found[3]}" if level == -1 else f"HG{level}.{found[3]}"


def official(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under flat names, copied and float32 at least, checked against those of a network.

    Counters of batches, which nothing reads, may be missing.

    Raises:
        InputError: tensors are missing, unknown, or of another shape, or two names of one tensor disagree.
    """
    given: dict[str, Tensor] = {}
    faults = []
    for name, value in tensors.items():
        known = given.setdefault(flat(name), value)
        if known.shape != value.shape or not torch.equal(known, value):
            faults.append(f"{name} differs from another {flat(name)}")
    given |= {name: torch.zeros((), dtype=torch.int64) for name in wanted if name.endswith(COUNTER) and name not in given}
    check(given, wanted, "this DPR network", faults=faults, hint="A narrower network needs its configuration.")
    return {name: _copied(given[name]) for name in wanted}


def _copied(value: Tensor) -> Tensor:
    single = torch.promote_types(value.dtype, torch.float32) if value.is_floating_point() else value.dtype
    return value.detach().to(single, copy=True)
