"""Weights for full-size golden tests, made from the tensors' names: a frozen formula on numpy's legacy generator."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def normals(key: str, shape: Sequence[int]) -> NDArray[np.float32]:
    """Standard normals keyed by a name."""
    rng = np.random.RandomState(zlib.crc32(key.encode()) & 0xFFFFFFFF)
    return np.asarray(rng.standard_normal(size=tuple(shape)), dtype=np.float32)


def weights(tag: str, name: str, shape: Sequence[int], sigma_bias: float) -> NDArray[np.float32]:
    """The tensor `name` of case `tag`: normals, scaled by what kind of tensor it is."""
    value = normals(f"{tag}/{name}", shape)
    kind = name.rsplit(".", 1)[-1]
    of_mapping = "mapping.fc" in name and not name.startswith("t_mapping")
    if kind == "noise_strength":
        value = np.float32(0.3) * value + np.where(value >= 0, np.float32(0.2), np.float32(-0.2))
    elif kind == "w_avg":
        value = np.float32(0.4) * value
    elif kind == "bias":
        value = 1 + np.float32(0.25) * value if ".affine." in name else np.float32(20 if of_mapping else 0.3) * value
    elif kind == "weight":
        value = np.float32(100 if of_mapping else 0.3 if name.startswith("t_mapping") else 1) * value
    value = np.array(value, dtype=np.float32)
    if name == "decoder.net.2.weight":
        value[0] *= np.float32(3)
    if name == "decoder.net.2.bias":
        value[0] = sigma_bias
    return value
