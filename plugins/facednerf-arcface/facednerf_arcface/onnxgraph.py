"""The parts of a recognition graph: constants worked out, operations that change nothing skipped, scales and shifts merged.

In evaluation a batch normalisation is a scale and a shift per channel, written as BatchNormalization or as Mul, Add, Sub and
Div with constants. `Chain` follows the one value that flows from operation to operation and reads off what an IResNet is
made of; whatever it does not know is an error that names the operation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from facednerf_arcface.onnxfile import Graph, Node
from facednerf_core.errors import InputError

IDLE = ("Identity", "Dropout", "Cast")  # operations that give their first input on, in evaluation
ARITHMETIC: Mapping[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "Mul": np.multiply, "Add": np.add, "Sub": np.subtract, "Div": np.divide,
}  # fmt: skip


@dataclass(frozen=True)
class Affine:
    """x -> scale * x + shift of each channel, both (C,) or of one number, float64."""

    scale: np.ndarray
    shift: np.ndarray

    def then(self, other: Affine) -> Affine:
        """This one, and the other after it."""
        return Affine(self.scale * other.scale, self.shift * other.scale + other.shift)


NOTHING = Affine(np.ones(1), np.zeros(1))


@dataclass(frozen=True)
class Convolution:
    """A convolution (out, in, k, k) with its bias (out,), whatever scales and shifts came after it merged in."""

    weight: np.ndarray
    bias: np.ndarray
    stride: int

    def then(self, after: Affine) -> Convolution:
        """With a scale and a shift after it."""
        return Convolution(
            self.weight * after.scale.reshape(-1, 1, 1, 1), self.bias * after.scale + after.shift, self.stride
        )


class Chain:
    """A graph, and reading it operation by operation."""

    def __init__(self, graph: Graph) -> None:
        self.constants = dict(graph.constants)
        self.aliases: dict[str, str] = {}  # a value that is another one unchanged
        self.takers: dict[str, list[Node]] = {}  # of a value that flows, the operations that take it
        self.flat = False  # whether pictures have become vectors where the chain has come to
        for node in graph.nodes:
            if not self._constant(node):
                self._place(node)
        flowing = [name for name in graph.inputs if name in self.takers]
        if len(flowing) != 1 or len(graph.outputs) != 1:
            raise InputError(
                f"a recognition network has one input and one output; this graph has inputs {list(graph.inputs)} and "
                f"outputs {list(graph.outputs)}."
            )
        self.start, self.end = flowing[0], self.aliases.get(graph.outputs[0], graph.outputs[0])

    def next(self, value: str) -> Node:
        """The one operation that takes a value."""
        nodes = self.takers.get(value, [])
        if len(nodes) != 1:
            said = " and ".join(str(node) for node in nodes) or "nothing"
            raise InputError(f"the value {value!r} should go to one operation and goes to {said}.")
        return nodes[0]

    def branches(self, value: str) -> list[Node]:
        """All operations that take a value."""
        return self.takers.get(value, [])

    def affine(self, value: str) -> tuple[Affine, str]:
        """All scales and shifts that follow a value, as one, and the value after them."""
        total = NOTHING
        while value != self.end and len(self.branches(value)) == 1:
            found = self._affine(self.next(value), value)
            if found is None:
                break
            total, value = total.then(found), self.next(value).outputs[0]
        return total, value

    def normalisation(self, node: Node, value: str) -> tuple[Affine, str]:
        """What an operation on a value, and all scales and shifts after it, make of it; and the value after them."""
        first = self._affine(node, value)
        if first is None:
            raise InputError(f"a BatchNormalization should stand where {node} is.")
        rest, after = self.affine(node.outputs[0])
        return first.then(rest), after

    def sums(self, node: Node) -> bool:
        """Whether an operation is the sum of two values that flow."""
        return node.op == "Add" and not any(name in self.constants for name in node.inputs)

    def convolution(self, node: Node, size: int) -> tuple[Convolution, str]:
        """A square convolution that keeps its picture's size but for the stride, with all that merges into it."""
        if node.op != "Conv":
            raise InputError(f"a convolution should stand where {node} is.")
        weight = self.constant(node, 1).astype(np.float64)
        bias = self.constant(node, 2).astype(np.float64) if len(node.inputs) > 2 else np.zeros(len(weight))
        strides, pads = self._numbers(node, "strides", [1, 1]), self._numbers(node, "pads", [0, 0, 0, 0])
        plain = (
            weight.shape[2:] == (size, size)
            and strides[0] == strides[-1]
            and set(pads) == {size // 2}
            and set(self._numbers(node, "dilations", [1, 1])) == {1}
            and node.attributes.get("group", 1) == 1
            and node.attributes.get("auto_pad", b"NOTSET") in (b"NOTSET", b"")
        )
        if not plain:
            raise InputError(
                f"{node} should be a {size} x {size} convolution with padding {size // 2} in one group; its weight is "
                f"{weight.shape}, its attributes are {dict(node.attributes)}."
            )
        after, value = self.affine(node.outputs[0])
        return Convolution(weight, bias, int(strides[0])).then(after), value

    def slopes(self, value: str, channels: int) -> tuple[np.ndarray, str]:
        """The slopes (C,) of the PReLU that takes a value, and the value after it."""
        node = self.next(value)
        if node.op != "PRelu":
            raise InputError(f"a PRelu should stand where {node} is.")
        slopes = self.constant(node, 1).reshape(-1)
        if slopes.size not in (1, channels):
            raise InputError(f"{node} has {slopes.size} slopes for {channels} channels.")
        return np.broadcast_to(slopes, (channels,)), node.outputs[0]

    def linear(self, value: str) -> tuple[np.ndarray, np.ndarray, str]:
        """The layer that takes all numbers of a picture: weight (out, in), bias (out,), and the value after it."""
        self.flat = True
        node = self.next(value)
        while node.op in ("Flatten", "Reshape"):
            if node.op == "Flatten" and node.attributes.get("axis", 1) != 1:
                raise InputError(f"{node} should keep pictures apart, along axis 1.")
            value = node.outputs[0]
            node = self.next(value)
        if node.op == "MatMul":
            weight = self.constant(node, 1).astype(np.float64).T
            bias = np.zeros(len(weight))
        elif node.op == "Gemm" and not node.attributes.get("transA", 0):
            weight = self.constant(node, 1).astype(np.float64) * _number(node, "alpha", 1.0)
            weight = weight if node.attributes.get("transB", 0) else weight.T
            bias = np.zeros(len(weight))
            if len(node.inputs) > 2:
                bias = bias + self.constant(node, 2).reshape(-1) * _number(node, "beta", 1.0)
        else:
            raise InputError(f"a fully connected layer (Gemm or MatMul) should stand where {node} is.")
        return weight, bias, node.outputs[0]

    def constant(self, node: Node, position: int) -> np.ndarray:
        """The constant that an operation takes."""
        name = node.inputs[position] if position < len(node.inputs) else ""
        if name not in self.constants:
            raise InputError(f"input {position} of {node} should be a constant of the file and is not.")
        return self.constants[name]

    def _constant(self, node: Node) -> bool:
        """Whether an operation only depends on constants; if so, what it gives is one too."""
        if node.op == "Constant":
            named = {key: value for key, value in node.attributes.items() if key.startswith("value")}
            if len(named) != 1 or isinstance(next(iter(named.values())), bytes):
                raise InputError(f"the constant {node.outputs[0]!r} has no numbers.")
            self.constants[node.outputs[0]] = np.asarray(next(iter(named.values())))
            return True
        given = [name for name in node.inputs if name]
        if not given or any(name not in self.constants for name in given):
            return False
        values = [self.constants[name] for name in given]
        self.constants[node.outputs[0]] = _worked_out(node, values)
        return True

    def _place(self, node: Node) -> None:
        flowing = [self.aliases.get(name, name) for name in node.inputs if name and name not in self.constants]
        if node.op in IDLE:
            self.aliases[node.outputs[0]] = flowing[0]
            return
        if node.op == "Shape":  # of a Reshape that flattens for any number of pictures
            return
        renamed = Node(node.op, tuple(self.aliases.get(name, name) for name in node.inputs), node.outputs, node.attributes)
        for name in dict.fromkeys(flowing):
            self.takers.setdefault(name, []).append(renamed)

    def _affine(self, node: Node, value: str) -> Affine | None:
        """What an operation scales and shifts; None if it does something else."""
        if node.op == "BatchNormalization":
            if node.attributes.get("training_mode", 0):
                raise InputError(f"{node} is in training mode; export the network in evaluation mode.")
            weight, bias, mean, variance = (self.constant(node, index).astype(np.float64) for index in range(1, 5))
            scale = weight / np.sqrt(variance + _number(node, "epsilon", 1e-5))
            return Affine(scale, bias - mean * scale)
        if node.op not in ARITHMETIC or len(node.inputs) != 2:
            return None
        left, right = node.inputs
        other = right if left == value else left
        if other not in self.constants:
            return None
        if node.op == "Div" and other == left:
            raise InputError(f"{node} divides by what flows.")
        number = _per_channel(self.constants[other], node, self.flat)
        if node.op == "Mul":
            return Affine(number, np.zeros(1))
        if node.op == "Div":
            return Affine(1 / number, np.zeros(1))
        if node.op == "Add":
            return Affine(np.ones(1), number)
        return Affine(np.ones(1), -number) if other == right else Affine(-np.ones(1), number)

    @staticmethod
    def _numbers(node: Node, name: str, default: list[int]) -> list[int]:
        found = node.attributes.get(name, default)
        return found if isinstance(found, list) and found else default  # type: ignore[return-value]


def _number(node: Node, name: str, default: float) -> float:
    found = node.attributes.get(name, default)
    if not isinstance(found, int | float):
        raise InputError(f"the attribute {name!r} of {node} is not a number.")
    return float(found)


def _per_channel(constant: np.ndarray, node: Node, flat: bool) -> np.ndarray:
    """A constant as (C,) or one number, float64, if it is the same all over a picture; `flat`: pictures are vectors."""
    shape = constant.shape
    channels = shape[-1:] if flat else shape[-3:-2] if shape[-2:] == (1, 1) else ()
    if constant.size != 1 and (not channels or constant.size != channels[0]):
        raise InputError(f"{node} has a constant of shape {shape}, which is not one number per channel.")
    return constant.reshape(-1).astype(np.float64)


def _worked_out(node: Node, values: list[np.ndarray]) -> np.ndarray:
    """What an operation makes of constants."""
    first = values[0]
    if node.op in IDLE:
        return first
    if node.op in ARITHMETIC and len(values) == 2:
        return ARITHMETIC[node.op](*values)
    if node.op == "Reshape":
        shape = [first.shape[index] if size == 0 else int(size) for index, size in enumerate(values[1])]
        return first.reshape(shape)
    if node.op == "Transpose":
        order = node.attributes.get("perm")
        return np.transpose(first, [int(axis) for axis in order] if isinstance(order, list) else None)
    if node.op in ("Unsqueeze", "Squeeze"):
        axes = values[1].tolist() if len(values) > 1 else node.attributes.get("axes", [])
        return _squeezed(first, node.op, [int(axis) for axis in axes])  # type: ignore[union-attr]
    if node.op == "Concat":
        return np.concatenate(values, int(_number(node, "axis", 0)))
    raise InputError(f"{node} works on constants in a way that is not known here.")


def _squeezed(value: np.ndarray, op: str, axes: list[int]) -> np.ndarray:
    if op == "Unsqueeze":
        return np.expand_dims(value, tuple(axes))
    return np.squeeze(value, tuple(axes) if axes else None)
