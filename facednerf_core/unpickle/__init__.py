"""Tensors and constructor arguments out of official checkpoints, by an allow-list, executing nothing.

Official `.pkl` files are pickles of whole networks, and carry source code that the official loader executes. Here no pickle
is ever loaded in Python's sense: its instructions are read one by one, and put together by a machine that knows plain
containers, numbers, text, tensors, and *inert* nodes, which only remember what they were called and what they held.
Whatever else a file asks for is refused by its name. What torch.save writes, today's zip archives and the older streams, is
read by the same machine.
"""

from facednerf_core.unpickle.containers import read
from facednerf_core.unpickle.networks import Network, network
from facednerf_core.unpickle.stored import Node, Refused, StoredTensor

__all__ = ["Network", "Node", "Refused", "StoredTensor", "network", "read"]
