"""State dicts: tensors by name, read from files that may hold them in eight bits, and held against a network's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from facednerf_core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

COUNTER = "num_batches_tracked"  # of batch normalisation; it does nothing in evaluation, and old files lack it
NAMED = 5  # how many faults an error names
SCALE = ":scale"  # after a tensor's name: what each of its rows of eight-bit numbers is multiplied by


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, floating ones as float32 and packed ones unpacked.

    Raises:
        safetensors.SafetensorError: it is no such file.
        OSError: it cannot be read.
    """
    from safetensors.torch import load_file

    return plain(load_file(path))


def plain(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Stored tensors as a network is to have them: `read`, for tensors that are in memory."""
    return {name: _plain(name, value, stored) for name, value in stored.items() if not name.endswith(SCALE)}


def _plain(name: str, value: Tensor, stored: Mapping[str, Tensor]) -> Tensor:
    """A stored tensor as the network is to have it."""
    scale = stored.get(name + SCALE)
    if scale is not None:
        return value.float() * scale.float().reshape(-1, *[1] * (value.ndim - 1))
    return value.float() if value.is_floating_point() else value


def packed(value: Tensor, name: str) -> dict[str, Tensor]:
    """A tensor (N, ...) in eight bits, under its name and, with `SCALE`, the float16 scales (N,) that `read` wants.

    A row's largest number becomes 127, so that none is off by more than a 254th of it, or 3e-5 in rows of tiny numbers.
    """
    import torch

    largest = value.detach().float().flatten(1).abs().amax(1)
    scale = (largest / 127).clamp_min(torch.finfo(torch.float16).tiny).half()
    rows = scale.float().reshape(-1, *[1] * (value.ndim - 1))
    return {name: (value.detach().float() / rows).round().clamp(-127, 127).to(torch.int8), name + SCALE: scale}


def check(
    given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], what: str, *, faults: Sequence[str] = (), hint: str = ""
) -> None:
    """Holds tensors against a network's own. Counters of batches may be missing.

    Args:
        given: by name.
        wanted: the network's state dict, of which only names and shapes count.
        what: the network's name in the error, such as "an IResNet".
        faults: what the caller has found wrong, such as "a is not finite"; it is named first.
        hint: whole sentences on what to do.

    Raises:
        InputError: tensors are missing, unknown or of another shape, or the caller found a fault; the first five are named.
    """
    wrong = list(faults)
    wrong += [f"{name} is missing" for name in wanted if name not in given and not name.endswith(COUNTER)]
    wrong += [f"{name} is unknown" for name in given if name not in wanted]
    wrong += [
        f"{name} is {tuple(given[name].shape)} instead of {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in given and given[name].shape != value.shape
    ]
    if wrong:
        more = f", and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
        said = f"these are not the tensors of {what}: {'; '.join(wrong[:NAMED])}{more}."
        raise InputError(f"{said} {hint}".rstrip())
