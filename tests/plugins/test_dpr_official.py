"""The official network against its golden numbers, where its weights and photo lie beside the repository."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from facednerf_dpr.hourglass import Hourglass
from facednerf_dpr.lab import lightness
from facednerf_dpr.options import DprOptions
from facednerf_dpr.published import target
from facednerf_dpr.relighter import Dpr
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from facednerf_core.light import named, phased


@dataclass(frozen=True)
class Official:
    """The official tensors, the goldens, and the photo as the network reads it."""

    tensors: dict[str, Tensor]
    golden: dict[str, Tensor]
    facts: dict[str, Any]

    @property
    def read(self) -> Tensor:
        return self.golden["L_u8"].float()[None, None] / 255

    @property
    def photo(self) -> Tensor:
        """(1, 3, 512, 512) in [0, 1]."""
        return self.golden["rgb_u8"].float().permute(2, 0, 1)[None] / 255

    def network(self, *, double: bool = False) -> Hourglass:
        if not double:
            return Hourglass.from_state_dict(self.tensors)
        return Hourglass.from_state_dict({k: v.double() if v.is_floating_point() else v for k, v in self.tensors.items()})

    def relighter(self, mode: str, *, double: bool = False) -> Dpr:
        return Dpr(self.network(double=double), DprOptions("picture" if mode == "train" else "trained"))

    def slope(self, relighter: Dpr, image: Tensor, *, of_lightness: bool = False) -> tuple[float, Tensor]:
        """The loss against the golden target, and its gradient, with respect to the lightness or to RGB in [0, 1]."""
        leaf = image.clone().requires_grad_()
        read = leaf if of_lightness else lightness(leaf)
        loss = (relighter.network.estimate(read) - self.golden["target_sh"].flatten(1)).square().sum()
        loss.backward()
        assert leaf.grad is not None
        return float(loss.detach()), leaf.grad[0]


@pytest.fixture(scope="module")
def official(shared_reference: Path) -> Official:
    folder = shared_reference / "dpr"
    return Official(
        load_file(folder / "dpr_512.safetensors"),
        load_file(folder / "golden.safetensors"),
        json.loads((folder / "golden.json").read_text()),
    )


def relative(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


def blocks(gradient: Tensor) -> Tensor:
    """Sums over blocks of 8 x 8 pixels."""
    return functional.avg_pool2d(gradient, 8) * 64


@pytest.mark.parametrize("skip_count", range(5))
def test_relit_lightness_and_estimate(official: Official, skip_count: int) -> None:
    with torch.no_grad():
        relit, estimate = official.network()(official.read, official.golden["target_sh"], skip_count)
    if skip_count:
        found, expected = relit[0, 0, ::4, ::4], official.golden[f"eval_relit_L_skip{skip_count}_ds4"]
    else:
        found, expected = relit[0, 0], official.golden["eval_relit_L"]
    assert (found - expected).abs().max() < 1e-5
    assert (estimate - official.golden["eval_est_sh"].flatten(1)).abs().max() < 1e-5


def test_light_only_path(official: Official) -> None:
    network = official.network()
    with torch.no_grad():
        whole, alone = network(official.read, official.golden["target_sh"])[1], network.estimate(official.read)
    assert torch.equal(whole, alone)
    published = official.relighter("train").network.estimate(official.read)
    assert (published - torch.tensor(official.facts["train_L_est_sh"])).abs().max() < 1e-5


@pytest.mark.parametrize(("mode", "stride", "near"), [("eval", 1, 1e-2), ("train", 2, 2e-2)])
def test_gradient_with_respect_to_lightness(official: Official, mode: str, stride: int, near: float) -> None:
    loss, gradient = official.slope(official.relighter(mode), official.read, of_lightness=True)
    assert loss == pytest.approx(official.facts[f"{mode}_L_loss"], abs=1e-5)
    assert relative(gradient[0, ::stride, ::stride], official.golden[f"{mode}_grad_L"]) < near
    expected = official.golden[f"{mode}_grad_L_block8sum_f64"][None]
    assert relative(blocks(gradient), expected) < near
    _, precise = official.slope(official.relighter(mode, double=True), official.read.double(), of_lightness=True)
    assert relative(blocks(precise), expected.double()) < 1e-6  # the golden sums are stored in float32


def test_lightness_of_the_photo(official: Official) -> None:
    found = lightness(official.photo)
    assert (found[0, 0, ::4, ::4] - official.golden["kornia_L_over_100_ds4"]).abs().max() < 1e-6
    worst = (255 * found[0, 0] - official.golden["L_u8"]).abs().max()
    assert float(worst) == pytest.approx(official.facts["kornia_L_vs_cv2_L_u8_absdiff_max_mean"][0], abs=1e-3)


@pytest.mark.parametrize(("mode", "near"), [("eval", 1e-2), ("train", 2e-2)])
def test_gradient_with_respect_to_rgb(official: Official, mode: str, near: float) -> None:
    loss, gradient = official.slope(official.relighter(mode), official.photo)
    assert loss == pytest.approx(official.facts[f"{mode}_rgb_loss"], abs=1e-5)
    assert relative(gradient[:, ::4, ::4], official.golden[f"{mode}_grad_rgb_ds4"]) < near
    assert float(gradient.norm()) == pytest.approx(official.facts[f"{mode}_rgb_grad_norm"], rel=near)


def test_gradient_of_a_photo_that_leaves_the_range(official: Official) -> None:
    stretched = official.photo * 1.3 - 0.12
    _, gradient = official.slope(official.relighter("eval"), stretched)
    assert gradient.isfinite().all()
    expected = official.golden["oor_safe_grad_rgb_block8sum_f64"]
    assert relative(blocks(gradient), expected) < 2e-2
    loss, precise = official.slope(official.relighter("eval", double=True), stretched.double())
    assert relative(blocks(precise), expected.double()) < 2e-2
    assert loss == pytest.approx(official.facts["oor_safe_loss_f64"], abs=1e-6)
    assert float(precise.norm()) == pytest.approx(official.facts["oor_safe_grad_norm_f64"], rel=1e-3)
    assert float(lightness(stretched.double()).min()) == pytest.approx(official.facts["oor_safe_L_minmax"][0], abs=1e-6)


def test_training_mode_moves_the_statistics_as_published(official: Official) -> None:
    network = official.network().train()
    before = network.pre_bn.running_mean.clone()  # type: ignore[union-attr]
    with torch.no_grad():
        network.estimate(official.read)
    moved = float((network.pre_bn.running_mean - before).abs().max())  # type: ignore[operator]
    assert moved == pytest.approx(official.facts["train_mode_running_mean_changed_pre_bn"], abs=1e-6)


def test_the_published_light_comes_from_the_right_and_without_its_phase_from_behind(official: Official) -> None:
    network = official.network()
    with torch.no_grad():
        bright, dark = (network(official.read, each.float()[None])[0][0, 0] for each in (target(), phased(target())))
    face = slice(128, 384)
    left, right = (float(half.mean()) for half in bright[face, face].chunk(2, dim=1))
    assert left < 0.4 < 0.8 < right
    assert float(dark[face, face].mean()) < 0.15


def test_relighting_goes_where_it_is_told(official: Official) -> None:
    relighter, photo = official.relighter("eval"), (2 * official.photo - 1)[None]
    with torch.no_grad():
        left, right = (relighter.relight(photo, named(name)[None, None])[0, 0] for name in ("left", "right"))
        seen = relighter.estimate(torch.stack([left, right]).clamp(-1, 1)[None])[0]
    difference = (left - right).mean(0)
    assert float(difference[:, 128:256].mean()) > 0.2
    assert float(difference[:, 256:384].mean()) < -0.2
    assert seen[0, 3] < -0.1 < 0.1 < seen[1, 3]  # and the network sees what it drew


@pytest.mark.parametrize(("dtype", "near", "estimated"), [(torch.bfloat16, 0.05, 0.02), (torch.float16, 0.01, 0.005)])
def test_autocast(official: Official, dtype: torch.dtype, near: float, estimated: float) -> None:
    small = official.read[..., ::4, ::4]  # float16 is slow on a CPU
    network = official.network()
    with torch.no_grad():
        relit, estimate = network(small, official.golden["target_sh"])
        with torch.autocast("cpu", dtype=dtype):
            cast, seen = network(small, official.golden["target_sh"])
    assert (cast - relit).abs().max() < near
    assert (seen - estimate).abs().max() < estimated
