"""A network with some tensors replaced, without copying the others and without touching the original."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TypeVar

from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


def with_tensors(network: Network, tensors: Mapping[str, Tensor]) -> Network:
    """The network with `tensors` in place of the parameters of these names; gradients flow to what is given.

    Raises:
        KeyError: the network has no parameter of this name.
        ValueError: a tensor has another shape.
    """
    known = dict(network.named_parameters())
    for name, tensor in tensors.items():
        if name not in known:
            raise KeyError(f"the network has no tensor {name!r}")
        if tensor.shape != known[name].shape:
            raise ValueError(f"{name} is {tuple(known[name].shape)}, not {tuple(tensor.shape)}")
    # to a deep copy, the memo says that every parameter has already been copied: to itself, or to its replacement
    memo = {id(parameter): tensors.get(name, parameter) for name, parameter in known.items()}
    return copy.deepcopy(network, memo)
