"""IResNet against golden numbers of the full-width network, and at other widths."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from facednerf_arcface.iresnet import IResNet
from safetensors.torch import load_file

from facednerf_core.errors import InputError
from tests.portable_tensors import tensors, values

GOLDEN = Path(__file__).parents[1] / "golden" / "arcface"


@pytest.fixture(scope="module")
def iresnet50() -> IResNet:
    entries = json.loads((GOLDEN / "state_dict_keys_iresnet50.json").read_text())
    with torch.device("meta"):
        network = IResNet()
    assert list(network.state_dict()) == list(entries)
    state = {name: torch.from_numpy(value) for name, value in tensors(entries).items()}
    state |= {name: torch.zeros((), dtype=torch.int64) for name in entries if name.endswith("num_batches_tracked")}
    network.load_state_dict(state, strict=True, assign=True)
    return network.eval()


def test_full_width_network_equals_the_golden_embedding(iresnet50: IResNet) -> None:
    golden = load_file(GOLDEN / "golden_iresnet50.safetensors")
    face = torch.from_numpy(values("iresnet50.x112", (1, 3, 112, 112))).float()
    means: list[torch.Tensor] = []
    hook = iresnet50.layer1.register_forward_hook(lambda _m, _i, output: means.append(output.mean((2, 3))))
    with torch.no_grad():
        embedding = iresnet50(face)
    hook.remove()
    scale = golden["embedding"].abs().max()
    assert (embedding - golden["embedding"]).abs().max() < 1e-4 * scale
    assert (means[0] - golden["layer1_mean_over_hw"]).abs().max() < 1e-4 * golden["layer1_mean_over_hw"].abs().max()


def test_narrow_network_has_the_same_layout() -> None:
    network = IResNet(widths=(4, 8, 12, 16), units=(1, 2, 1, 1), embedding=10).eval()
    assert network(torch.zeros(2, 3, 112, 112)).shape == (2, 10)
    assert "layer2.1.downsample.0.weight" not in network.state_dict()
    assert not network.features.weight.requires_grad


def test_number_of_stages_is_checked() -> None:
    with pytest.raises(ValueError, match="four stages"):
        IResNet(widths=(4, 8), units=(1, 1, 1, 1))


def test_tensors_tell_the_network_and_arguments_are_held_against_them() -> None:
    for folded in (False, True):
        network = IResNet(widths=(4, 8, 12, 16), units=(1, 2, 1, 1), embedding=10, folded=folded).eval()
        found = IResNet.from_state_dict(network.state_dict(), num_features=10, dropout=0.4)
        assert (found.widths, found.units, found.embedding, found.folded) == ((4, 8, 12, 16), (1, 2, 1, 1), 10, folded)
        face = torch.rand(1, 3, 112, 112)
        assert torch.equal(found(face), network(face))
        with pytest.raises(InputError, match=r"num_features is 512.*10"):
            IResNet.from_state_dict(network.state_dict(), num_features=512)
        with pytest.raises(InputError, match=r"dropout is a probability, not 2\.0"):
            IResNet.from_state_dict(network.state_dict(), dropout=2.0)
        with pytest.raises(InputError, match="'layer1' to 'layer4' are missing"):
            IResNet.from_state_dict({name: value for name, value in network.state_dict().items() if "layer3" not in name})
