"""FaceDNeRF's own illumination loss against its golden numbers."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from facednerf_dpr.hourglass import Hourglass
from facednerf_dpr.published import EXAMPLES, Lobe, example_light, loss, offsets, target
from facednerf_dpr.relighter import Dpr
from torch import Tensor

from facednerf_core.errors import InputError
from facednerf_core.light import basis, named, phased, shading
from facednerf_core.scene import Rendering, Scene
from facednerf_core.testing.probes import pictures
from facednerf_core.views import Orbit, angles
from tests.plugins.dpr_oracle import NARROW, procedural
from tests.smooth import latent, step

SH = json.loads((Path(__file__).parents[1] / "golden" / "dpr" / "golden_sh.json").read_text())


def tensor(numbers: list[float]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


@pytest.mark.parametrize(
    "case", SH["default_light_cases"], ids=lambda case: f"{case['polar_offset']},{case['azimuth_offset']}"
)
def test_target_is_the_golden_one_at_every_offset(case: dict) -> None:
    found = target(case["polar_offset"], case["azimuth_offset"])
    assert (found - tensor(case["target_sh_x2.5_quadrature"])).abs().max() < 1e-6
    if "closed_form_x2.5" in case:
        assert (found - tensor(case["closed_form_x2.5"])).abs().max() < 1e-7


@pytest.mark.parametrize(
    ("lobe", "name"),
    [
        (Lobe(0.6), "light_phi0_0.6_view0_x2.5"),
        (Lobe(math.pi / 2, -math.pi / 3), "light_theta_shift_pi3_phi0_pi2_view0_x2.5"),
    ],
)
def test_the_other_published_lights_are_the_golden_ones(lobe: Lobe, name: str) -> None:
    assert (target(lobe=lobe) - tensor(SH[name])).abs().max() < 1e-6


def test_target_is_what_the_published_sampling_tends_to() -> None:
    spread = tensor(SH["official_mc_std_x2.5"])
    assert ((target() - tensor(SH["official_mc_mean_12_seeds_x2.5"])).abs() < 2 * spread).all()


@pytest.mark.parametrize(
    ("polar", "azimuth", "lobe"), [(0.7, -0.4, Lobe()), (-2.5, 3.0, Lobe(1.0, 0.3)), (7.0, 0.0, Lobe(-2.0))]
)
def test_target_is_the_plain_sum_over_the_sphere(polar: float, azimuth: float, lobe: Lobe) -> None:
    rows, columns = 1500, 600
    down = ((torch.arange(rows, dtype=torch.float64) + 0.5) * math.pi / rows)[:, None]
    round_ = (torch.arange(columns, dtype=torch.float64) + 0.5) * 2 * math.pi / columns
    light = -4 * torch.sin(down + polar + lobe.polar_shift - math.pi) * torch.cos(round_ + azimuth - lobe.azimuth) - 3
    towards = torch.stack([down.sin() * round_.cos(), down.sin() * round_.sin(), down.cos().expand(-1, columns)], dim=-1)
    area = down.sin() * (math.pi / rows) * (2 * math.pi / columns)
    plain = (basis(towards) * (light.clamp_min(0) * area)[..., None]).sum((0, 1))
    assert (target(polar, azimuth, lobe) - phased(2.5 * plain)).abs().max() < 2e-5


def test_the_published_light_acts_as_if_from_the_right_front() -> None:
    draws = torch.randn(20000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    normals = draws / draws.norm(dim=1, keepdim=True)
    brightest = normals[shading(normals, target()).argmax()]
    assert float(brightest @ tensor(SH["brightest_normal_under_dpr_basis"])) > 0.999
    assert float(brightest @ tensor(SH["lobe_axis_in_sampling_frame"])) < -0.999


def test_offsets_of_a_camera_are_the_published_nominal_ones() -> None:
    cameras = Orbit().view((0.2, 0.0), (-0.2, math.asin(0.4 / math.pi)), (0.0, -math.asin(0.4 / math.pi))).camera.double()
    polar, azimuth = offsets(cameras)
    assert torch.allclose(azimuth[0], tensor([0.2, -0.2, 0.0]), atol=1e-6)
    assert torch.allclose(polar[0], tensor([0.0, -0.2, 0.2]), atol=1e-6)  # the published pitch points down
    assert angles(cameras)[1][0, 1] == pytest.approx(0.1277, abs=1e-4)


def test_loss_is_the_sum_of_squares_against_the_target_of_each_view() -> None:
    dpr = Dpr(Hourglass.from_state_dict(procedural(**NARROW), **NARROW))
    image = pictures(2, 2, (64, 64)).requires_grad_()
    view = Orbit().view((0.1, 0.0), (-0.15, -math.asin(0.2 / math.pi)), subjects=2)
    verdict = loss(dpr)(Rendering(Scene(), view, image), step(latent())).value
    goal = torch.stack([target(0.0, 0.1), target(0.1, -0.15)]).float()
    assert torch.allclose(verdict, (dpr.estimate(image) - goal).square().sum(2).mean(1), atol=1e-5)
    verdict.sum().backward()
    assert image.grad is not None
    assert image.grad.abs().max() > 0
    with pytest.raises(ValueError, match="needs a look"):
        loss(dpr)(None, step(latent()))


def test_an_example_file_is_read_as_dpr_reads_it() -> None:
    raw = SH["example_lights_raw"]["rotate_light_01"]
    found = example_light("\n".join(f"{value:.18e}" for value in raw) + "\n0.5 0.5\n")
    assert torch.allclose(found, EXAMPLES * torch.tensor(raw))
    assert torch.cosine_similarity(found[1:4], named("top-right")[1:4], dim=0) > 0.9
    for wrong in ("1 2 3", "", "a b c d e f g h i"):
        with pytest.raises(InputError, match="nine numbers"):
            example_light(wrong)
