"""Where tensors live and where random numbers come from."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from facednerf_core.errors import InputError

if TYPE_CHECKING:
    import torch


def rng(seed: int, *names: str | int) -> torch.Generator:
    """A CPU random generator that is a pure function of the seed and the names.

    The same names give the same numbers whatever else the program draws, so that adding a term changes nothing in
    the others, and a resumed run equals an uninterrupted one. Draw on the CPU, then move: devices then agree.
    """
    import torch

    text = "/".join(str(part) for part in (seed, *names))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def device(name: str = "auto") -> torch.device:
    """The device that a name means: 'auto' (CUDA where there is one, else the CPU), 'cpu', 'cuda', 'cuda:1', 'mps'.

    Raises:
        InputError: the name is not a device, or this machine does not have it.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(name)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError) as error:
        have = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        if torch.backends.mps.is_available():
            have.append("mps")
        raise InputError(f"no device {name!r} on this machine; it has: {', '.join(have)}. Use --device auto.") from error
    return found
