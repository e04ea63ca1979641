"""insightface's recognition networks out of ONNX files, as tensors of a folded IResNet by our names.

Initialisers of such files have anonymous names in the exporter's order, and normalisations may be merged into their
convolutions or not. So operations are followed from the picture to the embedding and mapped by what they are; what can be
merged exactly is merged, in float64, whatever the exporter did.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from facednerf_arcface.iresnet import FACE_SIZE
from facednerf_arcface.onnxfile import Graph, Node, read
from facednerf_arcface.onnxgraph import NOTHING, Affine, Chain, Convolution
from facednerf_core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

GRID = FACE_SIZE // 16  # height and width of the last features
EPSILON = 1e-5  # of torch's batch normalisation
PIXEL_MIDDLE, PIXEL_HALF = 127.5, 127.5  # 0 to 255 is -1 to 1


@dataclass(frozen=True)
class Recognition:
    """What an ONNX file holds: the tensors of a folded IResNet, and what pictures the file itself wants."""

    tensors: Mapping[str, Tensor]  # float32, for pictures in [-1, 1]
    pixels: bool  # whether the file's own graph takes pixels of 0 to 255 and normalises them

    def input(self, faces: Tensor) -> Tensor:
        """Faces (B, 3, 112, 112) in [-1, 1] as the file's own graph takes them."""
        return (faces + 1) * PIXEL_HALF if self.pixels else faces


def recognition(path: Path) -> Recognition:
    """The network of an ONNX file.

    Raises:
        InputError: it is not an ONNX file, or not of an IResNet; the first operation that does not fit is named.
    """
    try:
        return of_graph(read(path))
    except InputError as error:
        if str(path) in str(error):
            raise
        raise InputError(f"{path} is not an IResNet as insightface exports them: {error}") from error


def of_graph(graph: Graph) -> Recognition:
    """The network of a graph."""
    chain = Chain(graph)
    found: dict[str, np.ndarray] = {}
    before, value = chain.affine(chain.start)
    stem, value = chain.convolution(chain.next(value), 3)
    if stem.weight.shape[1] != 3 or stem.stride != 1:
        raise InputError(f"the first convolution should read RGB with stride 1; its weight is {stem.weight.shape}.")
    _put(found, "conv1", _from_pixels(stem, before))
    channels = len(stem.weight)
    found["prelu.weight"], value = chain.slopes(value, channels)
    stage = index = 0
    while len(chain.branches(value)) == 2:
        starts = any(_pointwise(chain, node) for node in chain.branches(value))
        stage, index = (stage + 1, 0) if starts else (stage, index + 1)
        if stage == 0:
            found_instead = " and ".join(str(node) for node in chain.branches(value))
            raise InputError(f"the first residual unit should go round a 1 x 1 convolution, and is {found_instead}.")
        channels, value = _unit(chain, value, channels, found, f"layer{stage}.{index}")
    if stage != 4:
        raise InputError(f"an IResNet has four stages of residual units; this graph has {stage}.")
    _head(chain, value, channels, found)
    tensors = {name: torch.from_numpy(np.array(tensor, np.float32)) for name, tensor in found.items()}
    return Recognition(tensors, pixels=before is not NOTHING)


def _unit(chain: Chain, value: str, channels: int, found: dict[str, np.ndarray], name: str) -> tuple[int, str]:
    """Reads a residual unit into tensors under its name: how many channels it gives, and the value after it."""
    nodes = chain.branches(value)
    shortcuts = [node for node in nodes if chain.sums(node) or _pointwise(chain, node)]
    bodies = [node for node in nodes if node not in shortcuts]
    if len(shortcuts) != 1 or len(bodies) != 1:
        raise InputError(f"{' and '.join(str(node) for node in nodes)} are no residual unit and its shortcut.")
    shortcut, body = shortcuts[0], bodies[0]
    bn1, inner = chain.normalisation(body, value)
    conv1, inner = chain.convolution(chain.next(inner), 3)
    slopes, inner = chain.slopes(inner, len(conv1.weight))
    conv2, inner = chain.convolution(chain.next(inner), 3)
    starts, around = shortcut.op == "Conv", value
    strides = [conv1.stride, conv2.stride]
    if starts:
        projection, around = chain.convolution(shortcut, 1)
        strides.append(projection.stride)
        _put(found, f"{name}.downsample.0", projection)
    if strides != ([1, 2, 2] if starts else [1, 1]):
        raise InputError(
            f"the convolutions after {body} have strides {strides}; an IResNet's have 1 and 2 in the first unit of a stage, "
            "whose shortcut is a convolution of stride 2, and 1 and 1 in the others."
        )
    end = chain.next(inner)
    if not chain.sums(end) or set(end.inputs) != {inner, around}:
        raise InputError(f"the residual unit that begins with {body} should end in a sum with its shortcut, not in {end}.")
    _put_norm(found, f"{name}.bn1", bn1, channels)
    _put(found, f"{name}.conv1", conv1)
    found[f"{name}.prelu.weight"] = slopes
    _put(found, f"{name}.conv2", conv2)
    return len(conv2.weight), end.outputs[0]


def _head(chain: Chain, value: str, channels: int, found: dict[str, np.ndarray]) -> None:
    """Reads the last layers; both normalisations are merged into the layer between them."""
    bn2, value = chain.affine(value)
    weight, bias, value = chain.linear(value)
    if weight.shape[1] != channels * GRID**2:
        raise InputError(
            f"the last layer reads {weight.shape[1]} numbers; {channels} channels of {GRID} x {GRID} are "
            f"{channels * GRID**2}, for faces of {FACE_SIZE} x {FACE_SIZE} pixels."
        )
    features, value = chain.affine(value)
    if value != chain.end:
        raise InputError(f"the graph should end after its last layer, and goes on with {chain.next(value)}.")
    scale, shift = (
        np.broadcast_to(part, (channels,)).repeat(GRID**2) for part in (bn2.scale, bn2.shift)
    )  # as flattened: channel by channel
    found["fc.weight"] = weight * scale * features.scale.reshape(-1, 1)
    found["fc.bias"] = (weight @ shift + bias) * features.scale + features.shift


def _from_pixels(stem: Convolution, before: Affine) -> Convolution:
    """The first convolution for pictures in [-1, 1], where the graph itself normalises pixels of 0 to 255.

    Raises:
        InputError: the graph normalises in a way that is not about the middle of the range.
    """
    if before is NOTHING:
        return stem
    offset = PIXEL_MIDDLE * before.scale + before.shift
    if np.abs(offset).max() > 1e-6 or before.scale.size != 1:
        raise InputError(
            f"the graph makes {before.scale} * x + {before.shift} of its pixels, which is not about {PIXEL_MIDDLE}, the "
            "middle of 0 to 255."
        )
    return Convolution(stem.weight * before.scale * PIXEL_HALF, stem.bias, stem.stride)


def _pointwise(chain: Chain, node: Node) -> bool:
    """Whether an operation is a 1 x 1 convolution."""
    return node.op == "Conv" and chain.constant(node, 1).shape[2:] == (1, 1)


def _put(found: dict[str, np.ndarray], name: str, convolution: Convolution) -> None:
    found[f"{name}.weight"] = convolution.weight
    found[f"{name}.bias"] = convolution.bias


def _put_norm(found: dict[str, np.ndarray], name: str, affine: Affine, channels: int) -> None:
    """A scale and a shift as a batch normalisation of mean 0 and variance 1."""
    found[f"{name}.weight"] = np.broadcast_to(affine.scale, (channels,))
    found[f"{name}.bias"] = np.broadcast_to(affine.shift, (channels,))
    found[f"{name}.running_mean"] = np.zeros(channels)
    found[f"{name}.running_var"] = np.full(channels, 1 - EPSILON)
