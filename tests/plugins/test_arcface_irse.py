"""IR-SE50 against golden numbers: its blocks, the whole network, and the identity loss around it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from facednerf_arcface.identity import ArcFace
from facednerf_arcface.irse import UNITS, IrSe, IrUnit, SqueezeExcite
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from facednerf_core.errors import InputError
from facednerf_core.interfaces import Identity
from facednerf_core.scene import Rendering, Scene, Subject
from facednerf_core.testing import IdentityContract
from facednerf_core.views import Orbit
from tests.portable_tensors import tensors, values
from tests.smooth import he, latent, step

GOLDEN = Path(__file__).parents[1] / "golden" / "arcface"
BLOCKS = load_file(GOLDEN / "golden_blocks.safetensors")
FULL = load_file(GOLDEN / "golden_ir_se50_full.safetensors")
FACTS = json.loads((GOLDEN / "golden_ir_se50_full.json").read_text())
KEYS = json.loads((GOLDEN / "state_dict_keys_ir_se50.json").read_text())
# of embeddings in autocast, against float32: the largest difference over the largest number, as measured, times 1.5
AUTOCAST = {torch.bfloat16: 0.018, torch.float16: 0.0028}


def relative(value: Tensor, golden: Tensor) -> float:
    """The largest difference over the largest number of the golden."""
    assert value.shape == golden.shape
    return float((value.detach() - golden).abs().max() / golden.abs().max())


def picture(name: str, size: int = 256) -> Tensor:
    """One of the two golden pictures, (1, 1, 3, size, size)."""
    image = functional.interpolate(FULL[f"img{name}_grid24"], size=(256, 256), mode="bilinear", align_corners=False)
    if size != 256:
        image = functional.interpolate(image, size=(size, size), mode="bilinear", align_corners=False)
    return image[None]


def narrow(**options: object) -> IrSe:
    """A small network of the same layout, random."""
    return he(IrSe((16, 32, 48, 64), (1, 2, 1, 1), 10, **options)).eval()


@pytest.fixture(scope="module")
def ir_se50() -> IrSe:
    state = {name: torch.from_numpy(value) for name, value in tensors(KEYS).items()}
    return IrSe.from_state_dict(state, input_size=112, num_layers=50, mode="ir_se", drop_ratio=0.6, affine=True)


def test_names_shapes_and_order_are_those_of_the_official_file() -> None:
    with torch.device("meta"):
        state = IrSe().state_dict()
    assert {name: list(value.shape) for name, value in state.items()} == {name: KEYS[name]["shape"] for name in KEYS}
    assert list(state) == list(KEYS)


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("irse_16_16_s1", IrUnit(16, 16, 1, 1)),
        ("irse_16_16_s2", IrUnit(16, 16, 2, 1)),
        ("irse_16_32_s2", IrUnit(16, 32, 2, 2)),
        ("ir_16_32_s2", IrUnit(16, 32, 2, 0)),
        ("se_32_r16", SqueezeExcite(32, 2)),
        ("output_layer_c8_7x7_to_12", IrSe((8, 8, 8, 8), (1, 1, 1, 1), 12, reduction=8).output_layer),
    ],
)
def test_blocks_and_their_gradients_equal_the_golden(name: str, block: nn.Module) -> None:
    stored = {key.removeprefix(f"{name}/"): value for key, value in BLOCKS.items() if key.startswith(f"{name}/")}
    parameters = {key.removeprefix("param/"): value for key, value in stored.items() if key.startswith("param/")}
    counters = {key: value for key, value in block.state_dict().items() if key.endswith("num_batches_tracked")}
    block.eval().load_state_dict({**counters, **parameters})
    x = stored["x"].requires_grad_()
    y = block(x)
    assert relative(y, stored["y"]) < 1e-5
    (gradient,) = torch.autograd.grad(y, x, stored["cotangent"])
    assert relative(gradient, stored["grad_x"]) < 1e-5


def test_normalisation_equals_the_golden() -> None:
    assert relative(functional.normalize(BLOCKS["l2_norm/x"], dim=1), BLOCKS["l2_norm/y"]) < 1e-6


def test_the_full_network_equals_the_golden_embedding(ir_se50: IrSe) -> None:
    face = torch.from_numpy(values("irse50.x112", (1, 3, 112, 112))).float()
    before: list[Tensor] = []
    means: dict[int, list[float]] = {}
    hooks = [ir_se50.output_layer.register_forward_hook(lambda _m, _i, output: before.append(output))]
    for index in (2, 6, 20, 23):

        def note(_m: nn.Module, _i: object, output: Tensor, index: int = index) -> None:
            means[index] = [float(output.mean()), float(output.std())]

        hooks.append(ir_se50.body[index].register_forward_hook(note))
    with torch.no_grad():
        embedding = ir_se50(face)
    for hook in hooks:
        hook.remove()
    for index, found in means.items():
        assert found == pytest.approx(FACTS["stages"][f"body{index}_mean_std"], rel=1e-4, abs=1e-5)
    assert relative(before[0], FULL["pre_norm_112"]) < 1e-5
    assert relative(embedding, FULL["emb112"]) < 1e-5


@pytest.mark.parametrize(("name", "size"), [("A_256", 256), ("B_256", 256), ("A_512", 512)])
def test_pictures_are_brought_to_the_network_as_the_original_does(ir_se50: IrSe, name: str, size: int) -> None:
    with torch.no_grad():
        embedding = ArcFace(ir_se50).embed(picture(name[0], size))[0]
    assert relative(embedding, FULL[f"emb{name}path"]) < 1e-5


def test_the_identity_loss_and_its_gradient_equal_the_golden(ir_se50: IrSe) -> None:
    view = Orbit().view((0.0, 0.0))
    # landmarks do not matter: the original has none
    loss = ArcFace(ir_se50).aim(Subject(view, picture("B"), landmarks=torch.rand(1, 1, 5, 2)))
    rendered = picture("A").requires_grad_()
    value = loss(Rendering(Scene(), view, rendered), step(latent())).value
    value.sum().backward()
    gradient = rendered.grad
    assert gradient is not None
    assert float(value.detach()) == pytest.approx(FACTS["id_loss_A_vs_B"], abs=1e-6)
    assert relative(gradient[0, 0, :, ::4, ::4], FULL["grad_A_ds4"]) < 1e-4
    assert float(gradient.norm()) == pytest.approx(FACTS["grad_norm"], rel=1e-5)
    assert float(gradient.abs().sum()) == pytest.approx(FACTS["grad_sum_abs"], rel=1e-5)
    rows, columns = gradient.abs().sum((0, 1, 2)).nonzero().unbind(1)
    box = [int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())]
    assert box == FACTS["grad_nonzero_bbox_rows_cols"]
    assert all(parameter.grad is None for parameter in ir_se50.parameters())


@pytest.mark.parametrize("dtype", AUTOCAST)
def test_half_precision_stays_near(ir_se50: IrSe, dtype: torch.dtype) -> None:
    with torch.no_grad(), torch.autocast("cpu", dtype=dtype):
        embedding = ArcFace(ir_se50).embed(picture("A"))[0]
    assert embedding.dtype == torch.float32
    assert relative(embedding, FULL["embA_256path"]) < AUTOCAST[dtype]


def test_gradients_in_half_precision_are_finite() -> None:
    network, image = narrow(), picture("A").requires_grad_()
    for dtype in AUTOCAST:
        with torch.autocast("cpu", dtype=dtype):
            embedding = ArcFace(network).embed(image)
        (gradient,) = torch.autograd.grad(embedding[..., 0].sum(), image)
        (plain,) = torch.autograd.grad(ArcFace(network).embed(image)[..., 0].sum(), image)
        assert bool(gradient.isfinite().all())
        assert float((gradient - plain).norm() / plain.norm()) < 0.2


def test_an_embedding_too_large_for_half_precision_keeps_its_direction() -> None:
    network, face = narrow(), picture("A")[0, :, :, :112, :112]
    last = network.output_layer[4]
    with torch.no_grad():
        last.weight.mul_(1e3)
        exact = network(face)
        with torch.autocast("cpu", dtype=torch.float16):
            assert relative(network(face), exact) < 0.01


def test_double_precision_is_kept() -> None:
    single = narrow()
    double = IrSe.from_state_dict({name: value.double() for name, value in single.state_dict().items()})
    face = picture("A")[0, :, :, :112, :112]
    assert double(face.double()).dtype == torch.float64
    assert relative(single(face).double(), double(face.double())) < 1e-5


@pytest.mark.parametrize("options", [{}, {"reduction": 0}, {"affine": False}, {"reduction": 8, "input_size": 224}])
def test_tensors_tell_the_network(options: dict[str, object]) -> None:
    network = narrow(**options)
    bare = {name: value for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    found = IrSe.from_state_dict(bare)
    assert (found.widths, found.units, found.embedding) == (network.widths, network.units, 10)
    assert not found.training
    assert not any(parameter.requires_grad for parameter in found.parameters())
    face = torch.rand(1, 3, found.input_size, found.input_size) * 2 - 1
    assert torch.equal(found(face), network(face))
    assert found.input_size == options.get("input_size", 112)


@pytest.mark.parametrize("depth", UNITS)
def test_official_depths_are_known_by_their_number_of_units(depth: int) -> None:
    network = IrSe((4, 4, 4, 4), UNITS[depth], 3, reduction=4)
    assert IrSe.from_state_dict(network.state_dict(), num_layers=depth).units == UNITS[depth]


def test_stages_of_equal_width_must_be_said() -> None:
    network = narrow()
    flat = he(IrSe((8, 8, 8, 16), (1, 2, 1, 1), 5, reduction=8)).eval()
    with pytest.raises(InputError, match=r"units=\(a, b, c, d\)"):
        IrSe.from_state_dict(flat.state_dict())
    assert IrSe.from_state_dict(flat.state_dict(), units=(1, 2, 1, 1)).units == (1, 2, 1, 1)
    with pytest.raises(InputError, match="5 residual units"):
        IrSe.from_state_dict(network.state_dict(), units=(1, 1, 1, 1))


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"input_size": 224}, "input_size is 224.*112"),
        ({"num_layers": 100}, "num_layers is 100.*None"),
        ({"mode": "ir"}, "mode is 'ir'.*'ir_se'"),
        ({"affine": False}, "affine is False.*True"),
        ({"drop_ratio": 1.5}, "drop_ratio"),
    ],
)
def test_arguments_that_contradict_the_tensors_are_refused(argument: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        IrSe.from_state_dict(narrow().state_dict(), **argument)


def test_other_tensors_are_refused_by_name() -> None:
    state = narrow().state_dict()
    with pytest.raises(InputError, match=r"body\.N\.res_layer\.1\.weight"):
        IrSe.from_state_dict({"input_layer.0.weight": state["input_layer.0.weight"]})
    with pytest.raises(InputError, match=r"body\.1\.res_layer\.4\.bias is missing"):
        IrSe.from_state_dict({name: value for name, value in state.items() if name != "body.1.res_layer.4.bias"})
    with pytest.raises(InputError, match="head is unknown"):
        IrSe.from_state_dict({**state, "head": torch.zeros(1)})
    with pytest.raises(InputError, match=r"input_layer\.2\.weight is \(3,\) instead of \(16,\)"):
        IrSe.from_state_dict({**state, "input_layer.2.weight": torch.zeros(3)})
    with pytest.raises(ValueError, match="four stages"):
        IrSe((4, 8), (1, 1))


class TestIrSe(IdentityContract):
    size = (128, 112)

    def make(self) -> Identity:
        return ArcFace(narrow())
