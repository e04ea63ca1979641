"""State dicts: tensors by name, held against the names and shapes of the network that is to have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from facednerf_core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

COUNTER = "num_batches_tracked"  # of batch normalisation; it does nothing in evaluation, and old files lack it
NAMED = 5  # how many faults an error names


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
