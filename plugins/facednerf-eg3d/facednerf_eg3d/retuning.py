"""A network with some tensors replaced, without copying the others and without touching the original."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TypeVar

from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


def with_tensors(network: Network, tensors: Mapping[str, Tensor]) -> Network:
    """The network with `tensors` in place of the parameters and buffers of these names.

    The modules are copied, their tensors shared; gradients flow to the given tensors, which need not be parameters.

    Raises:
        KeyError: the network has no tensor of this name.
        ValueError: a tensor has another shape.
    """
    known = dict(network.named_parameters()) | dict(network.named_buffers())
    for name, tensor in tensors.items():
        if name not in known:
            raise KeyError(f"the network has no tensor {name!r}")
        if tensor.shape != known[name].shape:
            raise ValueError(f"{name} is {tuple(known[name].shape)}, not {tuple(tensor.shape)}")
    return _replaced(network, tensors, "")


def _replaced(module: Network, tensors: Mapping[str, Tensor], prefix: str) -> Network:
    twin = copy.copy(module)
    entries = vars(twin)
    for group in ("_parameters", "_buffers"):
        entries[group] = {name: tensors.get(prefix + name, value) for name, value in entries[group].items()}
    entries["_modules"] = {
        name: child if child is None else _replaced(child, tensors, f"{prefix}{name}.")
        for name, child in entries["_modules"].items()
    }
    return twin
