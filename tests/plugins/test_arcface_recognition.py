"""insightface's ONNX files become IResNets of ours: with normalisations merged or not, and equal to onnxruntime."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from facednerf_arcface.conversion import difference
from facednerf_arcface.iresnet import IResNet, IResNetUnit
from facednerf_arcface.irse import IrSe
from facednerf_arcface.recognition import recognition
from safetensors.torch import load_file
from torch import Tensor, nn

from facednerf_core.errors import InputError
from tests.plugins.test_arcface_onnxfile import graph, node, tensor, value_info, write
from tests.portable_tensors import tensors, values
from tests.smooth import he

GOLDEN = Path(__file__).parents[1] / "golden" / "arcface"


@dataclass
class Exporter:
    """Writes an IResNet as an ONNX file, in one of the ways in which exporters do."""

    fold: bool = True  # normalisations merged into the convolutions before them
    merge_head: bool = False  # the last normalisation merged into the last layer
    arithmetic: bool = False  # normalisations as Mul and Add
    pixels: bool = False  # the graph takes pixels of 0 to 255 and normalises them itself, as MXNet's exports do
    plain_matmul: bool = False  # the last layer as Reshape, MatMul and Add
    decorated: bool = False  # with Identity, Dropout, and slopes that are made by operations
    epsilon: float = 1e-5
    nodes: list[bytes] = field(default_factory=list)
    constants: list[bytes] = field(default_factory=list)
    count: int = 0

    def name(self) -> str:
        """A new anonymous name, as torch's exporter gives them."""
        self.count += 1
        return str(self.count)

    def constant(self, value: Tensor | np.ndarray) -> str:
        name = self.name()
        numbers = value.detach().numpy() if isinstance(value, Tensor) else value
        self.constants.append(tensor(name, np.ascontiguousarray(numbers)))
        return name

    def add(self, op: str, *inputs: str, **attributes: object) -> str:
        name = self.name()
        self.nodes.append(node(op, inputs, name, **attributes))
        return name

    def norm(self, x: str, norm: nn.BatchNorm2d | nn.BatchNorm1d) -> str:
        if not self.arithmetic:
            parts = [self.constant(part) for part in (norm.weight, norm.bias, norm.running_mean, norm.running_var)]
            return self.add("BatchNormalization", x, *parts, epsilon=self.epsilon, momentum=0.9)
        scale, shift = self.affine(norm)
        shape = (-1, 1, 1) if isinstance(norm, nn.BatchNorm2d) else (1, -1)
        x = self.add("Mul", x, self.constant(scale.reshape(shape).float()))
        return self.add("Add", self.constant(shift.reshape(shape).float()), x)

    def affine(self, norm: nn.BatchNorm2d | nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
        scale = norm.weight.double() / (norm.running_var.double() + self.epsilon).sqrt()
        return scale, norm.bias.double() - norm.running_mean.double() * scale

    def conv(self, x: str, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> str:
        size, stride = conv.kernel_size[0], conv.stride[0]
        shape = {"kernel_shape": [size] * 2, "strides": [stride] * 2, "pads": [size // 2] * 4, "dilations": [1, 1]}
        if not self.fold:
            return self.norm(self.add("Conv", x, self.constant(conv.weight), **shape, group=1), norm)
        scale, shift = self.affine(norm)
        weight = (conv.weight.double() * scale.view(-1, 1, 1, 1)).float()
        return self.add("Conv", x, self.constant(weight), self.constant(shift.float()), **shape, group=1)

    def prelu(self, x: str, prelu: nn.PReLU) -> str:
        if not self.decorated:
            return self.add("PRelu", x, self.constant(prelu.weight.view(-1, 1, 1)))
        axes = self.add("Constant", value=np.array([1, 2]))
        same = self.add("Identity", self.constant(prelu.weight))
        return self.add("PRelu", x, self.add("Unsqueeze", same, axes))

    def unit(self, x: str, unit: IResNetUnit) -> str:
        y = self.conv(self.norm(x, unit.bn1), unit.conv1, unit.bn2)
        y = self.conv(self.prelu(y, unit.prelu), unit.conv2, unit.bn3)
        if unit.downsample is None:
            return self.add("Add", x, y)
        conv, norm = unit.downsample
        return self.add("Add", y, self.conv(x, conv, norm))

    def head(self, x: str, network: IResNet) -> str:
        x = self.norm(x, network.bn2)
        if self.decorated:
            x = self.add("Dropout", x)
        weight, bias = network.fc.weight, network.fc.bias
        if self.merge_head:
            scale, shift = self.affine(network.features)
            weight, bias = (weight.double() * scale.view(-1, 1)).float(), (bias.double() * scale + shift).float()
        if self.plain_matmul:
            x = self.add("Reshape", x, self.constant(np.array([-1, weight.shape[1]])))
            x = self.add("Add", self.add("MatMul", x, self.constant(weight.T)), self.constant(bias))
        else:
            x = self.add("Flatten", x, axis=1)
            x = self.add("Gemm", x, self.constant(weight), self.constant(bias), alpha=1.0, beta=1.0, transB=1)
        return x if self.merge_head else self.norm(x, network.features)

    def write(self, path: Path, network: IResNet, end: str | None = None) -> Path:
        """The file; `end` is an operation after the last one."""
        x = "input.1"
        if self.pixels:
            x = self.add("Mul", self.add("Sub", x, self.constant(np.float32([127.5]))), self.constant(np.float32([1 / 128])))
        x = self.prelu(self.conv(x, network.conv1, network.bn1), network.prelu)
        for unit in (unit for stage in range(1, 5) for unit in getattr(network, f"layer{stage}")):
            x = self.unit(x, unit)
        x = self.head(x, network)
        x = self.add(end, x) if end else x
        ends = [value_info("input.1", (1, 3, 112, 112))], [value_info(x, (1, network.embedding))]
        return write(path, graph(self.nodes, self.constants, *ends))


def lively(network: nn.Module, epsilon: float = 1e-5) -> nn.Module:
    """The network with random weights and statistics, as trained ones have."""
    draws = torch.Generator().manual_seed(1)

    def around(like: Tensor, low: float, high: float) -> Tensor:
        return torch.rand(like.shape, generator=draws) * (high - low) + low

    with torch.no_grad():
        for module in he(network).modules():
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
                module.eps = epsilon
                module.weight.copy_(around(module.weight, 0.5, 1.5))
                module.bias.copy_(around(module.bias, -0.3, 0.3))
                module.running_mean.copy_(around(module.running_mean, -0.3, 0.3))
                module.running_var.copy_(around(module.running_var, 0.5, 1.5))
            elif isinstance(module, nn.PReLU):
                module.weight.copy_(around(module.weight, 0.0, 0.5))
    return network.eval()


def small(epsilon: float = 1e-5) -> IResNet:
    network = lively(IResNet((4, 6, 6, 8), (2, 1, 2, 1), 10), epsilon)
    assert isinstance(network, IResNet)
    return network


def faces(count: int = 2) -> Tensor:
    return torch.rand(count, 3, 112, 112, generator=torch.Generator().manual_seed(5)) * 2 - 1


def relative(value: Tensor, reference: Tensor) -> float:
    return float((value - reference).detach().abs().max() / reference.detach().abs().max())


WAYS: dict[str, dict[str, float]] = {
    "folded": {},
    "not folded": {"fold": False},
    "merged head": {"merge_head": True},
    "arithmetic": {"fold": False, "arithmetic": True, "epsilon": 2e-5},
    "mxnet": {"fold": False, "pixels": True, "epsilon": 2e-5},
    "folded pixels": {"pixels": True},
    "matmul": {"plain_matmul": True},
    "decorated": {"fold": False, "decorated": True},
}


@pytest.mark.parametrize("way", WAYS)
def test_however_it_was_exported_the_network_is_the_same(tmp_path: Path, way: str) -> None:
    exporter = Exporter(**WAYS[way])
    network = small(exporter.epsilon)
    found = recognition(exporter.write(tmp_path / "w600k.onnx", network))
    ours = IResNet.from_state_dict(found.tensors, num_features=10)
    assert ours.folded
    assert (ours.widths, ours.units, ours.embedding) == (network.widths, network.units, network.embedding)
    # MXNet's models divide by 128: they see pictures a little paler than [-1, 1]
    seen = faces() * (127.5 / 128) if exporter.pixels else faces()
    assert relative(ours(faces()), network(seen)) < 1e-5
    assert found.pixels == exporter.pixels


@pytest.mark.parametrize("way", WAYS)
def test_it_equals_onnxruntime(tmp_path: Path, way: str) -> None:
    pytest.importorskip("onnxruntime")
    exporter = Exporter(**WAYS[way])
    file = exporter.write(tmp_path / "w600k.onnx", small(exporter.epsilon))
    found = recognition(file)
    apart = difference(file, found, IResNet.from_state_dict(found.tensors))
    assert apart is not None
    assert apart < 1e-5


def test_gradients_are_those_of_the_network_that_was_exported(tmp_path: Path) -> None:
    network = small()
    ours = IResNet.from_state_dict(recognition(Exporter().write(tmp_path / "w600k.onnx", network)).tensors)
    gradients = []
    for of in (ours, network):
        picture = faces(1).requires_grad_()
        gradients.append(torch.autograd.grad(torch.nn.functional.normalize(of(picture))[0, 0], picture)[0])
    assert relative(*gradients) < 1e-4


def test_the_full_network_equals_the_golden_embedding_and_onnxruntime(tmp_path: Path) -> None:
    entries = json.loads((GOLDEN / "state_dict_keys_iresnet50.json").read_text())
    network = IResNet.from_state_dict({name: torch.from_numpy(value) for name, value in tensors(entries).items()})
    file = Exporter().write(tmp_path / "w600k_r50.onnx", network)
    del network
    found = recognition(file)
    ours = IResNet.from_state_dict(found.tensors)
    golden = load_file(GOLDEN / "golden_iresnet50.safetensors")["embedding"]
    face = torch.from_numpy(values("iresnet50.x112", (1, 3, 112, 112))).float()
    embedding = ours(face)
    assert relative(embedding, golden) < 1e-5
    for dtype, allowed in ((torch.bfloat16, 0.03), (torch.float16, 0.005)):
        with torch.autocast("cpu", dtype=dtype):
            assert relative(ours(face).float(), embedding) < allowed
    pytest.importorskip("onnxruntime")
    apart = difference(file, found, ours)
    assert apart is not None
    assert apart < 1e-5


LEGACY = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the exporter that insightface used


@LEGACY
@pytest.mark.parametrize("constants_folded", [True, False])
def test_a_file_of_torchs_own_exporter_is_read(tmp_path: Path, constants_folded: bool) -> None:
    pytest.importorskip("onnx")
    network, file = small(), tmp_path / "w600k.onnx"
    mode = torch.onnx.TrainingMode.EVAL if constants_folded else torch.onnx.TrainingMode.PRESERVE
    torch.onnx.export(network, (faces(1),), file, dynamo=False, do_constant_folding=constants_folded, training=mode)
    assert relative(IResNet.from_state_dict(recognition(file).tensors)(faces()), network(faces())) < 1e-5


def squeezing() -> IrSe:
    return IrSe((4, 6, 8, 10), (1, 1, 1, 1), 6, reduction=2).eval()


@LEGACY
def test_another_network_is_refused_by_its_first_odd_operation(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    torch.onnx.export(squeezing(), (faces(1),), tmp_path / "irse.onnx", dynamo=False)
    with pytest.raises(
        InputError, match=r"irse\.onnx is not an IResNet as insightface exports them: .*unit.*BatchNormal.*Slice"
    ):
        recognition(tmp_path / "irse.onnx")


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    file = tmp_path / "odd.onnx"
    with pytest.raises(InputError, match="should end after its last layer, and goes on with Softmax"):
        recognition(Exporter().write(file, small(), end="Softmax"))

    def changed(change: str, **options: bool) -> Path:
        network, exporter = small(), Exporter(**options)
        if change == "stages":
            network.layer4 = nn.Sequential()
            network.bn2 = nn.BatchNorm2d(6)
        elif change == "first":
            network.layer1[0].downsample = None
            network.layer1[0].conv2.stride = (1, 1)
        elif change == "strides":
            network.layer2[0].conv2.stride = (1, 1)
        elif change == "kernel":
            network.layer3[0].conv1 = nn.Conv2d(6, 6, 5, padding=2, bias=False)
        elif change == "grid":
            network.fc = nn.Linear(8 * 25, 10)
        elif change == "stem":
            network.conv1 = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        elif change == "slopes":
            network.prelu = nn.PReLU(3)
        return exporter.write(file, network)

    for change, message in {
        "stages": "four stages of residual units; this graph has 3",
        "first": "the first residual unit should go round a 1 x 1 convolution, and is BatchNormalization",
        "strides": r"strides \[1, 1, 2\]",
        "kernel": "should be a 3 x 3 convolution with padding 1",
        "grid": "reads 200 numbers; 8 channels of 7 x 7 are 392",
        "stem": "should read RGB",
        "slopes": "3 slopes for 4 channels",
    }.items():
        with pytest.raises(InputError, match=message):
            recognition(changed(change))


def one(path: Path, nodes: list[bytes], inputs: int = 1) -> Path:
    given = [value_info(f"x{index}" if index else "x", (1, 3, 112, 112)) for index in range(inputs)]
    kernel = tensor("w", np.ones((4, 3, 3, 3), np.float32))
    vector = tensor("v", np.ones(3, np.float32))
    return write(path, graph(nodes, [kernel, vector], given, [value_info("y", (1, 4))]))


@pytest.mark.parametrize(
    ("nodes", "inputs", "message"),
    [
        ([node("Sigmoid", ["x"], "y")], 1, "a convolution should stand where Sigmoid of 'x' is"),
        ([node("Conv", ["x", "x1"], "y")], 2, "one input and one output"),
        ([node("Conv", ["x", "w"], "y", pads=[1] * 4, group=3)], 1, "in one group"),
        ([node("Conv", ["x", "w"], "y", auto_pad=b"SAME_UPPER")], 1, "with padding 1"),
        ([node("Sub", ["x", "v"], "a"), node("Conv", ["a", "w"], "y", pads=[1] * 4)], 1, "not one number per channel"),
        ([node("Mul", ["x", "k"], "a"), node("Constant", [], "k", value=np.ones(1, np.float32))], 1, "goes to"),
        ([node("Sin", ["v"], "a"), node("Conv", ["x", "a"], "y")], 1, "works on constants in a way"),
        ([node("Constant", [], "a", value_string=b"text"), node("Conv", ["x", "a"], "y")], 1, "has no numbers"),
    ],
)
def test_odd_graphs_are_refused(tmp_path: Path, nodes: list[bytes], inputs: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        recognition(one(tmp_path / "odd.onnx", nodes, inputs))


def test_a_normalisation_in_training_mode_and_odd_pixels_are_refused(tmp_path: Path) -> None:
    class Training(Exporter):
        def norm(self, x: str, norm: nn.BatchNorm2d | nn.BatchNorm1d) -> str:
            parts = [self.constant(part) for part in (norm.weight, norm.bias, norm.running_mean, norm.running_var)]
            return self.add("BatchNormalization", x, *parts, training_mode=1)

    with pytest.raises(InputError, match="training mode"):
        recognition(Training().write(tmp_path / "training.onnx", small()))

    class Pale(Exporter):
        def constant(self, value: Tensor | np.ndarray) -> str:
            odd = isinstance(value, np.ndarray) and value.size == 1 and float(value[0]) == 127.5
            return super().constant(np.float32([100.0]) if odd else value)

    with pytest.raises(InputError, match=r"not about 127\.5"):
        recognition(Pale(pixels=True).write(tmp_path / "pale.onnx", small()))
