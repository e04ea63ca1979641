"""DPR's network against a second writing of it, its tensor names, its paths and precisions."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from facednerf_dpr.hourglass import Hourglass
from facednerf_dpr.tensors import flat
from torch import Tensor

from facednerf_core.errors import InputError
from tests.plugins.dpr_oracle import NARROW, network, procedural
from tests.portable_tensors import values

KEYS = json.loads((Path(__file__).parents[1] / "golden" / "dpr" / "state_dict_keys.json").read_text())
LIGHT = torch.tensor(
    [[0.76, -0.32, 0.38, 0.28, -0.18, -0.18, 0.05, 0.25, 0.08], [0.6, 0.3, -0.1, -0.4, 0.2, 0.1, -0.3, 0, 0.2]]
)


def pictures(count: int, height: int, width: int) -> Tensor:
    """Smooth lightness (B, 1, H, W), some of it outside of [0, 1]."""
    coarse = torch.from_numpy(values("dpr.lightness", (count, 1, 9, 9))).float() * 0.6 + 0.5
    return torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=True)


@pytest.fixture(scope="module")
def narrow() -> Hourglass:
    return Hourglass.from_state_dict(procedural(**NARROW), **NARROW)


@pytest.fixture(scope="module")
def full() -> Hourglass:
    return Hourglass.from_state_dict(procedural())


def doubled(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.double() if value.is_floating_point() else value for name, value in weights.items()}


def distance(one: Tensor, other: Tensor) -> float:
    return float(((one - other).abs().max() / other.abs().max()).detach())


def test_names_and_shapes_are_the_official_ones_one_to_one() -> None:
    with torch.device("meta"):
        state = Hourglass().state_dict()
    assert list(state) == list(KEYS["canonical"])
    for name, entry in KEYS["canonical"].items():
        assert list(state[name].shape) == entry["shape"]
        assert str(state[name].dtype) == f"torch.{entry['dtype']}"
    assert len(KEYS["aliases_in_t7"]) == 250 - 112
    assert all(flat(alias) == name for alias, name in KEYS["aliases_in_t7"].items())
    assert all(flat(name) == name for name in (*state, "HG0.middle.middle.low1.x", "HG4.middle.upper.x", "other"))


@pytest.mark.parametrize("skip_count", range(5))
@pytest.mark.parametrize("config", [NARROW, {}], ids=["narrow", "official"])
def test_network_equals_its_second_writing(config: dict[str, int], skip_count: int) -> None:
    weights = doubled(procedural(**config))
    ours = Hourglass.from_state_dict(weights, **config)
    lightness, light = pictures(2, 64, 48).double(), LIGHT.double()
    relit, estimate = ours(lightness, light, skip_count)
    wanted, own = network(lightness, light, weights, skip_count=skip_count)
    assert relit.shape == (2, 1, 64, 48)
    assert estimate.shape == (2, 9)
    assert distance(relit, wanted) < 1e-8
    assert distance(estimate, own) < 1e-8
    assert wanted.std() > 0.01  # the comparison is of something
    assert (own[0] - own[1]).abs().max() > 0.01


def test_gradients_equal_those_of_the_second_writing_and_so_does_single_precision() -> None:
    weights = procedural()
    lightness = pictures(2, 64, 64)

    def gradients(pair: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], dtype: torch.dtype) -> list[Tensor]:
        leaves = [lightness.to(dtype).requires_grad_(), LIGHT.to(dtype).requires_grad_()]
        relit, estimate = pair(*leaves)
        (relit.square().sum() + estimate.square().sum()).backward()
        return [leaf.grad for leaf in leaves if leaf.grad is not None]

    precise = doubled(weights)
    expected = gradients(lambda x, light: network(x, light, precise), torch.float64)
    double = gradients(Hourglass.from_state_dict(precise), torch.float64)
    single = gradients(Hourglass.from_state_dict(weights), torch.float32)
    for ours, theirs in zip(double, expected, strict=True):
        assert distance(ours, theirs) < 1e-8
    for ours, theirs in zip(single, expected, strict=True):
        assert float((ours - theirs).norm() / theirs.norm()) < 1e-2  # ties of max-pooling and ReLU
    relit, estimate = Hourglass.from_state_dict(weights)(lightness, LIGHT)
    wanted, own = network(lightness.double(), LIGHT.double(), precise)
    assert (relit - wanted).abs().max() < 1e-5
    assert distance(estimate, own) < 1e-5


def test_training_mode_takes_the_batchs_statistics(narrow: Hourglass) -> None:
    weights = procedural(**NARROW)
    trained = Hourglass(**NARROW)
    trained.load_state_dict(weights)
    lightness = pictures(2, 64, 64)
    relit, estimate = trained.train()(lightness, LIGHT)
    wanted, own = network(lightness.double(), LIGHT.double(), doubled(weights), train=True)
    assert (relit - wanted).abs().max() < 1e-5
    assert distance(estimate, own) < 1e-5
    assert not torch.equal(trained.pre_bn.running_mean, weights["pre_bn.running_mean"])  # type: ignore[arg-type]
    assert torch.equal(narrow.pre_bn.running_mean, weights["pre_bn.running_mean"])  # type: ignore[arg-type]
    relit.sum().backward()
    assert trained.pre_conv.weight.grad is not None  # can be trained


def test_light_only_path_has_the_same_numbers_and_gradients(full: Hourglass) -> None:
    one, other = pictures(2, 64, 64).requires_grad_(), pictures(2, 64, 64).requires_grad_()
    relit, estimate = full(one, LIGHT)
    alone = full.estimate(other)
    assert torch.equal(alone, estimate)
    estimate.square().sum().backward()
    alone.square().sum().backward()
    assert torch.equal(one.grad, other.grad)  # type: ignore[arg-type]
    assert torch.equal(full(one, LIGHT.flip(0), 4)[1], estimate)  # neither the wanted light nor the skips matter to it
    assert not torch.equal(full(one, LIGHT.flip(0))[0], relit)


def test_the_way_down_and_the_way_up_are_the_network(narrow: Hourglass) -> None:
    lightness = pictures(2, 64, 48)
    for skip_count in (0, 2):
        bottom, skips = narrow.descend(lightness, skip_count)
        assert [skip is None for skip in skips] == [level < skip_count for level in range(4)]
        relit, told = narrow(lightness, LIGHT, skip_count)
        assert torch.equal(narrow.ascend(bottom, skips, LIGHT), relit)
        assert torch.equal(narrow.light.estimate(bottom[:, : narrow.light_features]), told)


def test_light_only_path_is_at_least_twice_as_fast(full: Hourglass) -> None:
    lightness = pictures(1, 256, 256)

    def both(run: Callable[[], Tensor]) -> Callable[[], object]:
        return lambda: run().sum().backward()

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    forward = alone_forward = whole = alone = 9.0
    try:
        for _ in range(6):  # in turn, so that a slow spell of the machine meets both
            with torch.no_grad():
                forward = min(forward, _timed(lambda: full(lightness, LIGHT[:1])))
                alone_forward = min(alone_forward, _timed(lambda: full.estimate(lightness)))
            whole = min(whole, _timed(both(lambda: full(lightness.clone().requires_grad_(), LIGHT[:1])[1])))
            alone = min(alone, _timed(both(lambda: full.estimate(lightness.clone().requires_grad_()))))
    finally:
        torch.set_num_threads(threads)
    assert alone_forward * 2 <= forward, f"{alone_forward:.3f} s against {forward:.3f} s"
    assert alone * 2 <= whole, f"{alone:.3f} s against {whole:.3f} s, with the gradient"


def _timed(run: Callable[[], object]) -> float:
    begin = time.process_time()
    run()
    return time.process_time() - begin


def test_pictures_of_one_batch_do_not_touch(narrow: Hourglass) -> None:
    lightness = pictures(2, 64, 96)
    relit, estimate = narrow(lightness, LIGHT)
    alone = narrow(lightness[1:], LIGHT[1:])
    assert torch.allclose(relit[1:], alone[0], atol=1e-6)
    assert torch.allclose(estimate[1:], alone[1], atol=1e-5)
    column = narrow(lightness, LIGHT[:, :, None, None])  # as the official network takes it
    assert torch.equal(column[0], relit)


@pytest.mark.parametrize(
    ("dtype", "near", "estimated", "sloped"), [(torch.bfloat16, 0.05, 0.02, 0.7), (torch.float16, 0.01, 0.005, 0.4)]
)
@pytest.mark.parametrize("config", [NARROW, {}], ids=["narrow", "official"])
def test_autocast_stays_within_the_stated_distance(
    config: dict[str, int], dtype: torch.dtype, near: float, estimated: float, sloped: float
) -> None:
    ours = Hourglass.from_state_dict(procedural(**config), **config)
    exact, rounded = (pictures(2, 64, 64).requires_grad_() for _ in range(2))
    relit, estimate = ours(exact, LIGHT)
    with torch.autocast("cpu", dtype=dtype):
        cast, seen = ours(rounded, LIGHT)
        alone = ours.estimate(rounded)
    assert cast.dtype == seen.dtype == alone.dtype == torch.float32
    assert torch.equal(alone, seen)
    assert not torch.equal(cast, relit)  # autocast did reach the network
    assert (cast - relit).abs().max() < near
    assert (seen - estimate).abs().max() < estimated
    (estimate - LIGHT).square().sum().backward()
    (alone - LIGHT).square().sum().backward()
    assert exact.grad is not None
    assert rounded.grad is not None
    assert rounded.grad.isfinite().all()
    # max-pooling and ReLU let a rounded value take another way, so that single pixels differ
    assert float((rounded.grad - exact.grad).norm() / exact.grad.norm()) < sloped


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_stored_half_precision_becomes_single_and_nothing_is_shared(dtype: torch.dtype) -> None:
    weights = procedural(**NARROW)
    stored = {name: value.to(dtype) if value.is_floating_point() else value for name, value in weights.items()}
    ours = Hourglass.from_state_dict(stored, **NARROW)
    assert all(value.dtype == torch.float32 for value in ours.parameters())
    assert not any(value.requires_grad for value in ours.parameters())
    assert not ours.training
    same = Hourglass.from_state_dict(weights, **NARROW)
    weights["pre_conv.weight"].zero_()
    assert same.pre_conv.weight.abs().max() > 0
    lower = same.to(dtype)  # as a whole, too
    assert lower.estimate(pictures(1, 64, 64)).isfinite().all()


def test_official_files_nested_and_flat_forms_are_one_network(narrow: Hourglass) -> None:
    weights = procedural(**NARROW)
    everything = weights | {alias: weights[name].clone() for alias, name in KEYS["aliases_in_t7"].items()}
    assert len(everything) == 250
    nested = {name: value for name, value in everything.items() if not name.startswith(("HG0", "HG1", "HG2", "light"))}
    uncounted = {name: value for name, value in weights.items() if not name.endswith("num_batches_tracked")}
    lightness = pictures(1, 64, 64)
    expected = narrow(lightness, LIGHT[:1])
    for form in (everything, nested, uncounted):
        found = Hourglass.from_state_dict(form, **NARROW)(lightness, LIGHT[:1])
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    everything["HG3.middle.middle.low1.conv1.weight"] += 1
    with pytest.raises(InputError, match=r"HG3\.middle\.middle\.low1\.conv1\.weight differs from another HG1\.low1"):
        Hourglass.from_state_dict(everything, **NARROW)


def test_wrong_tensors_and_configurations_are_named() -> None:
    weights = procedural(**NARROW)
    with pytest.raises(InputError, match=r"output\.bias is missing; extra is unknown"):
        Hourglass.from_state_dict(
            {name: v for name, v in weights.items() if name != "output.bias"} | {"extra": LIGHT}, **NARROW
        )
    with pytest.raises(
        InputError, match=r"pre_conv\.weight is \(4, 1, 5, 5\) instead of \(16, 1, 5, 5\).*more.*configuration"
    ):
        Hourglass.from_state_dict(weights)
    with pytest.raises(InputError, match=r"no such configuration.*'depth'"):
        Hourglass.from_state_dict(weights, depth=3)
    with pytest.raises(InputError, match="width of a DPR network must be at least 1, not 0"):
        Hourglass(width=0)
    with pytest.raises(InputError, match="multiple of 16 from 32, not 100"):
        Hourglass(size=100)


@pytest.mark.parametrize(("height", "width"), [(60, 64), (64, 72), (16, 64)])
def test_other_sizes_are_refused(narrow: Hourglass, height: int, width: int) -> None:
    with pytest.raises(ValueError, match=f"multiples of 16.*{height} x {width}"):
        narrow(torch.zeros(1, 1, height, width), LIGHT[:1])
