"""ONNX files read as data, on files that are written here field by field; the `onnx` package checks the writing."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from facednerf_arcface.onnxfile import Node, read

from facednerf_core.errors import InputError

KINDS = {"float32": 1, "uint8": 2, "int32": 6, "int64": 7, "float16": 10, "float64": 11}


def varint(value: int) -> bytes:
    value %= 2**64
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | float | str | bytes) -> bytes:
    """One field of a message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content


def tensor(name: str, value: np.ndarray) -> bytes:
    """A TensorProto with raw data."""
    head = b"".join(field(1, size) for size in value.shape) + field(2, KINDS[value.dtype.name])
    return head + field(8, name) + field(9, value.tobytes())


def attribute(name: str, value: int | float | bytes | Sequence[int] | np.ndarray) -> bytes:
    if isinstance(value, np.ndarray):
        return field(1, name) + field(5, tensor("", value)) + field(20, 4)
    if isinstance(value, int | float | bytes):
        number, kind = {int: (3, 2), float: (2, 1), bytes: (4, 3)}[type(value)]
        return field(1, name) + field(number, value) + field(20, kind)
    return field(1, name) + b"".join(field(8, item) for item in value) + field(20, 7)


def node(op: str, inputs: Iterable[str], output: str, domain: str = "", **attributes: object) -> bytes:
    content = b"".join(field(1, name) for name in inputs) + field(2, output) + field(4, op)
    content += b"".join(field(5, attribute(name, value)) for name, value in attributes.items())  # type: ignore[arg-type]
    return content + field(7, domain)


def value_info(name: str, shape: Sequence[int]) -> bytes:
    sizes = b"".join(field(1, field(1, size)) for size in shape)
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, sizes)))


def graph(nodes: Sequence[bytes], constants: Sequence[bytes], given: Sequence[bytes], made: Sequence[bytes]) -> bytes:
    parts = [*((1, item) for item in nodes), (2, "g"), *((5, item) for item in constants)]
    parts += [*((11, item) for item in given), *((12, item) for item in made)]
    return b"".join(field(number, value) for number, value in parts)


def write(path: Path, content: bytes, opset: int = 13) -> Path:
    """An ONNX file of a graph."""
    path.write_bytes(field(1, 8) + field(2, "tests") + field(7, content) + field(8, field(1, "") + field(2, opset)))
    return path


def write_one(path: Path, constant: bytes) -> Path:
    """A file that adds one constant to its input."""
    ends = value_info("x", (1,)), value_info("y", (1,))
    return write(path, graph([node("Add", ["x", "c"], "y")], [constant], ends[:1], ends[1:]))


def only(path: Path) -> np.ndarray:
    return read(path).constants["c"]


def test_nodes_attributes_inputs_and_outputs_are_read(tmp_path: Path) -> None:
    made = graph(
        [
            node("Conv", ["x", "w"], "a", strides=[2, 2], group=1, auto_pad=b"NOTSET", alpha=0.5),
            node("Constant", [], "k", value=np.array([1.5, 2.5], np.float32)),
            node("Odd", ["a", "k"], "y", domain="com.example", axis=-1),
        ],
        [tensor("w", np.ones((1, 1, 1, 1), np.float32))],
        [value_info("x", (1, 1, 2, 2)), value_info("w", (1, 1, 1, 1))],
        [value_info("y", (1, 1, 1, 1))],
    )
    found = read(write(tmp_path / "one.onnx", made))
    conv, constant, odd = found.nodes
    assert conv == Node("Conv", ("x", "w"), ("a",), {"strides": [2, 2], "group": 1, "auto_pad": b"NOTSET", "alpha": 0.5})
    assert np.array_equal(constant.attributes["value"], [1.5, 2.5])
    assert (odd.op, odd.attributes) == ("com.example.Odd", {"axis": -1})
    assert (found.inputs, found.outputs) == (("x",), ("y",)), "an input with a constant of its name is no input"


@pytest.mark.parametrize("dtype", KINDS)
def test_raw_tensors_of_each_type_are_read(tmp_path: Path, dtype: str) -> None:
    value = np.arange(6).reshape(2, 3).astype(dtype)
    found = only(write_one(tmp_path / "raw.onnx", tensor("c", value)))
    assert found.dtype == value.dtype
    assert np.array_equal(found, value)


def test_tensors_of_typed_fields_are_read_packed_or_not(tmp_path: Path) -> None:
    numbers = np.array([0.5, -1.25, 3.0])
    head = {kind: field(1, 3) + field(2, kind) + field(8, "c") for kind in (1, 7, 10, 11, 16)}
    signed = b"".join(varint(value) for value in (3, -2, 2**40))
    halves = b"".join(varint(int(bits)) for bits in numbers.astype("<f2").view("<u2"))
    brains = b"".join(varint(int(bits) >> 16) for bits in numbers.astype("<f4").view("<u4"))
    cases = [
        (head[1] + field(4, numbers.astype("<f4").tobytes()), numbers),
        (head[1] + b"".join(field(4, float(number)) for number in numbers), numbers),
        (head[11] + field(10, numbers.astype("<f8").tobytes()), numbers),
        (head[11] + b"".join(varint(10 << 3 | 1) + struct.pack("<d", number) for number in numbers), numbers),
        (head[7] + field(7, signed), [3, -2, 2**40]),
        (head[7] + b"".join(field(7, value) for value in (3, -2, 2**40)), [3, -2, 2**40]),
        (head[10] + field(5, halves), numbers),
        (head[16] + field(5, brains), numbers),
        (head[16] + field(9, (numbers.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()), numbers),
    ]
    for content, expected in cases:
        assert np.array_equal(only(write_one(tmp_path / "typed.onnx", content)), expected)


def test_tensors_in_a_file_beside_are_read(tmp_path: Path) -> None:
    value = np.arange(4, dtype=np.float32)
    (tmp_path / "weights.bin").write_bytes(b"skip" + value.tobytes() + b"rest")

    def outside(**entries: str) -> Path:
        pairs = b"".join(field(13, field(1, key) + field(2, item)) for key, item in entries.items())
        return write_one(tmp_path / "split.onnx", field(1, 4) + field(2, 1) + field(8, "c") + pairs + field(14, 1))

    assert np.array_equal(only(outside(location="weights.bin", offset="4", length="16")), value)
    for entries, message in (
        ({"location": "weights.bin", "offset": "16", "length": "16"}, "cut off"),
        ({"location": "gone.bin"}, "gone.bin, which is missing"),
        ({"location": "../weights.bin"}, "no file beside it"),
        ({"location": "/etc/hostname"}, "no file beside it"),
        ({}, "no file beside it"),
    ):
        with pytest.raises(InputError, match=message):
            read(outside(**entries))


def test_what_is_no_onnx_file_is_refused(tmp_path: Path) -> None:
    whole = write_one(tmp_path / "whole.onnx", tensor("c", np.ones(3, np.float32))).read_bytes()
    file = tmp_path / "bad.onnx"
    for content in (b"", b"\xff" * 40, b"PK\x03\x04 a zip file", whole[:-30], b"hello world", field(7, 5)):
        file.write_bytes(content)
        with pytest.raises(InputError, match=r"bad\.onnx is not an ONNX file that can be read"):
            read(file)
    with pytest.raises(InputError, match=r"cannot read .*gone\.onnx"):
        read(tmp_path / "gone.onnx")
    with pytest.raises(InputError, match="type that is not read here"):
        read(write_one(file, field(1, 1) + field(2, 8) + field(8, "c")))
    with pytest.raises(InputError, match="do not fill its shape"):
        read(write_one(file, field(1, 9) + field(2, 1) + field(8, "c") + field(9, b"\0" * 8)))
    with pytest.raises(InputError, match="sparse"):
        read(write(file, field(15, b"")))


def test_every_beginning_of_a_file_is_refused_and_none_breaks(tmp_path: Path) -> None:
    whole = write_one(tmp_path / "whole.onnx", tensor("c", np.ones(3, np.float32))).read_bytes()
    complete = len(whole) - len(field(8, field(1, "") + field(2, 13)))
    for length in range(len(whole)):
        (tmp_path / "part.onnx").write_bytes(whole[:length])
        if length != complete:  # without its last field it is whole: the version of the operations is not read
            with pytest.raises(InputError):
                read(tmp_path / "part.onnx")


def test_the_onnx_package_reads_the_same(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    value = np.random.default_rng(0).normal(size=(2, 3, 1)).astype(np.float32)
    path = write_one(tmp_path / "one.onnx", tensor("c", value))
    (initializer,) = onnx.load(path).graph.initializer
    assert np.array_equal(onnx.numpy_helper.to_array(initializer), only(path))
