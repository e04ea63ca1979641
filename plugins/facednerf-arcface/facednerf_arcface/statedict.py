"""Tensors by official names into a network: every name and shape is held against what the network has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from facednerf_core.errors import InputError
from facednerf_core.statedicts import COUNTER, check

Network = TypeVar("Network", bound=nn.Module)


def filled(make: Callable[[], Network], tensors: Mapping[str, Tensor], what: str) -> Network:
    """The network that `make` constructs with copies of these tensors, frozen and in evaluation mode.

    It is float64 where a tensor is, else float32, and lies where the tensors lie. Counters of batches may be missing.

    Args:
        make: constructs the network; nothing is allocated or drawn by it.
        tensors: by official names.
        what: the network's name in errors, such as "an IResNet".

    Raises:
        InputError: tensors are missing, superfluous or of another shape; the first five are named.
    """
    with torch.device("meta"):
        network = make()
    wanted = network.state_dict()
    check(tensors, wanted, what)
    double = any(value.dtype == torch.float64 for value in tensors.values())
    device = next(iter(tensors.values())).device
    network.to(torch.float64 if double else torch.float32).to_empty(device=device)
    counters = {name: torch.zeros((), dtype=torch.int64) for name in wanted if name.endswith(COUNTER)}
    network.load_state_dict({**counters, **tensors})
    return network.requires_grad_(False).eval()


def width(tensors: Mapping[str, Tensor], name: str, what: str) -> int:
    """The length of a tensor's first side.

    Raises:
        InputError: there is no such tensor.
    """
    if name not in tensors or tensors[name].ndim == 0:
        raise InputError(f"these are not the tensors of {what}: {name!r} is missing.")
    return int(tensors[name].shape[0])


def agreed(what: str, **pairs: tuple[object, object]) -> None:
    """Holds what the caller says against what the tensors say, as pairs under the argument's name; None says nothing.

    Raises:
        InputError: they differ.
    """
    for name, (said, found) in pairs.items():
        if said is not None and said != found:
            raise InputError(f"{name} is {said!r}, but these tensors are of {what} with {name} {found!r}.")
