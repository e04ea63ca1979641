"""The detector's segmenter, out of the file in which MediaPipe publishes it: nothing is trained.

`selfie_segmentation.tflite` (Google, Apache-2.0) lies in the package `mediapipe` up to 0.10.21.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from facednerf_core.errors import InputError
from facednerf_starter.detector.segmenter import SIZE, PersonSegmenter
from facednerf_starter.train.exports import export

MARK = b"TFL3"  # of a TensorFlow Lite file, from its fifth byte on


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the conversion."""
    parser.add_argument("file", type=Path, help="selfie_segmentation.tflite")
    parser.add_argument("--out", type=Path, required=True, help="folder for the tensors and their card")


def run(args: argparse.Namespace) -> None:
    """Converts, and writes the tensors and a model card."""
    network = converted(args.file)
    args.out.mkdir(parents=True, exist_ok=True)
    about = {
        "about": "People apart from the background, 256 px: MediaPipe's selfie segmentation, published weights in torch.",
        "origin": "selfie_segmentation.tflite of the mediapipe package (Google; general model of 2021)",
        "licence": "Apache-2.0",
        "parameters": sum(part.numel() for part in network.parameters()),
        "recipe": "python -m facednerf_starter.train segmenter selfie_segmentation.tflite: converted, not trained here",
        "limits": "Tells people from the rest, not one person from another, nor hair from a hat.",
    }
    export(args.out, "segmenter", network.state_dict(), {"size": SIZE}, about)


def converted(path: Path) -> PersonSegmenter:
    """The network of a `selfie_segmentation.tflite`: its convolutions, in the order in which they are computed.

    Raises:
        InputError: the file is missing or another one, or the package `tflite`, which reads it, is not installed.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"The file {path} cannot be read ({error}); give selfie_segmentation.tflite.") from error
    if data[4:8] != MARK:
        raise InputError(f"The file {path} is no TensorFlow Lite model; give selfie_segmentation.tflite.")
    try:
        import tflite
    except ImportError as error:
        raise InputError("The conversion reads the file with the package tflite: pip install tflite.") from error
    operation = tflite.BuiltinOperator
    model = tflite.Model.GetRootAsModel(data, 0)
    graph = model.Subgraphs(0)
    operators = [graph.Operators(number) for number in range(graph.OperatorsLength())]
    codes = [model.OperatorCodes(one.OpcodeIndex()) for one in operators]
    kinds = [max(code.BuiltinCode(), code.DeprecatedBuiltinCode()) for code in codes]
    halved = {  # from what dequantising gives to the constant behind it
        one.Outputs(0): one.Inputs(0) for one, kind in zip(operators, kinds, strict=True) if kind == operation.DEQUANTIZE
    }

    def constant(index: int) -> Tensor:
        tensor = graph.Tensors(halved[index])
        values = np.frombuffer(model.Buffers(tensor.Buffer()).DataAsNumpy().tobytes(), np.float16)
        return torch.from_numpy(values.reshape(tensor.ShapeAsNumpy()).astype(np.float32))

    network = PersonSegmenter()
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
    wanted = (operation.CONV_2D, operation.DEPTHWISE_CONV_2D, operation.CUSTOM)  # the custom one is the last, transposed
    found = [(one, kind) for one, kind in zip(operators, kinds, strict=True) if kind in wanted]
    if len(found) != len(layers):
        raise InputError(f"The file {path} has {len(found)} convolutions; selfie_segmentation.tflite has {len(layers)}.")
    for (one, kind), layer in zip(found, layers, strict=True):
        weight, bias = constant(one.Inputs(1)), constant(one.Inputs(2))
        weight = weight.permute(3, 0, 1, 2) if kind == operation.DEPTHWISE_CONV_2D else weight.permute(0, 3, 1, 2)
        if isinstance(layer, nn.ConvTranspose2d):
            weight = weight.transpose(0, 1)
        if weight.shape != layer.weight.shape or layer.bias is None:
            raise InputError(f"A convolution of {path} is {tuple(weight.shape)}, not {tuple(layer.weight.shape)}.")
        layer.weight.data.copy_(weight)
        layer.bias.data.copy_(bias)
    return network
