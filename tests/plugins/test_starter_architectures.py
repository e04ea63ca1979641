"""What the generator's recipe trains: the fused reading of planes and grids, recorded steps, and PanoHead's architecture."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from facednerf_eg3d import triplanes
from facednerf_panohead import trigrid
from facednerf_panohead.network import TriGridGenerator
from facednerf_starter.train.architectures import build, configuration
from facednerf_starter.train.capture import Captured, adam_of, adamw_of
from facednerf_starter.train.gathering import gathered, tabulated
from facednerf_starter.train.generator import begin
from facednerf_starter.train.pieces import set_rate
from safetensors.torch import save_file
from torch import Tensor

from facednerf_core.errors import InputError

SIZES = {"width": 32, "layers": 2, "channels": 8, "features": 4, "hidden": 8, "samples": (6, 6), "tiny": True}


def points() -> Tensor:
    """Inside the cube and beyond its faces."""
    return (torch.rand(2, 300, 3, generator=torch.Generator().manual_seed(1)) - 0.5) * 1.3


def test_planes_are_gathered_as_they_are_sampled() -> None:
    planes = torch.randn(2, 3, 5, 16, 16, requires_grad=True)
    found = gathered(tabulated(planes), points(), triplanes.EG3D_AXES, (16, 16), 1.0)
    wanted = triplanes.mean_features(planes, points(), triplanes.EG3D_AXES, 1.0)
    assert torch.allclose(found, wanted, atol=1e-5)
    back = torch.randn_like(found)
    of_found, of_wanted = (torch.autograd.grad((value * back).sum(), planes)[0] for value in (found, wanted))
    assert torch.allclose(of_found, of_wanted, atol=1e-4)


def test_grids_are_gathered_as_they_are_sampled() -> None:
    grids = torch.randn(2, 3, 5, 3, 16, 16)
    found = gathered(tabulated(grids), points(), trigrid.PANOHEAD_AXES, (16, 16, 3), 1.0)
    assert torch.allclose(found, trigrid.mean_features(grids, points(), trigrid.PANOHEAD_AXES, 1.0), atol=1e-5)


@pytest.mark.parametrize("name", ["eg3d", "panohead"])
def test_the_network_that_is_trained_draws_what_its_file_will(name: str) -> None:
    config = configuration(name, 64, **SIZES)
    network = build(name, config)
    plain = (TriGridGenerator if name == "panohead" else type(network).__mro__[1]).from_state_dict(
        network.state_dict(), **config
    )
    ws, cameras = torch.randn(1, network.num_ws, 32), torch.eye(4).flatten().repeat(1, 1, 1)
    cameras = torch.cat([cameras, torch.tensor([4.2, 0, 0.5, 0, 4.2, 0.5, 0, 0, 1]).expand(1, 1, 9)], -1)
    cameras[..., 11] = -2.7
    assert torch.allclose(network(ws, cameras)[0], plain(ws, cameras)[0], atol=1e-5)


def test_a_training_begins_with_an_exported_network_and_refuses_another(tmp_path: Path) -> None:
    config = configuration("eg3d", 64, **SIZES)
    first, second = build("eg3d", config), build("eg3d", config)
    with torch.no_grad():
        for name, value in first.named_parameters():
            if name.endswith("noise_const"):
                value.copy_(torch.randn_like(value))
            elif name.endswith("noise_strength") and name.startswith("backbone"):
                value.fill_(0.3)
    save_file({name: value.clone() for name, value in first.state_dict().items()}, tmp_path / "a.safetensors")
    begin(second, tmp_path / "a.safetensors")
    ws = torch.randn(1, first.num_ws, 32)
    assert torch.allclose(first.planes(ws), second.planes(ws), atol=1e-5)
    other = build("eg3d", configuration("eg3d", 64, **(SIZES | {"width": 24})))
    with pytest.raises(InputError, match="not the tensors of the network to be trained"):
        begin(other, tmp_path / "a.safetensors")


@pytest.mark.parametrize("decays", [False, True])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_recorded_step_is_the_plain_one(device: str, decays: bool) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    where = torch.device(device)
    results = []
    for recorded in (False, True):
        weight = torch.nn.Parameter(torch.ones(3, device=where))
        made: torch.optim.Optimizer = adam_of([{"params": [weight], "factor": 0.5}], 0.1, where)
        if decays:
            made = adamw_of([weight], 0.1, where, decay=0.1)

        def step(
            given: dict[str, Tensor], weight: Tensor = weight, optimizer: torch.optim.Optimizer = made
        ) -> dict[str, Tensor]:
            optimizer.zero_grad(set_to_none=True)
            loss = (weight * given["x"]).square().sum()
            loss.backward()
            optimizer.step()
            return {"loss": loss.detach()}

        run = Captured(step, where) if recorded else step
        losses = []
        for index in range(8):
            set_rate(made, 0.1 / (1 + index))
            losses.append(float(run({"x": torch.arange(3.0, device=where) + index})["loss"]))
        results.append((losses, weight.detach().cpu()))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    assert torch.allclose(results[0][1], results[1][1], rtol=1e-5)
