"""Official tensors and the network that they make: every name, every size, and what is said where they do not fit."""

from __future__ import annotations

import json

import pytest
import torch
from facednerf_panohead.network import TriGridGenerator
from facednerf_panohead.tensors import sizes
from torch import Tensor

from facednerf_core.errors import InputError
from tests.plugins.panohead_goldens import GOLDEN, PARAMS, TINY, tiny, tiny_config

OFFICIAL = json.loads((GOLDEN / "state_dict_keys.json").read_text())["configs"]["easy_khair_180"]


def test_names_shapes_order_and_kinds_are_the_official_ones() -> None:
    with torch.device("meta"):
        network = TriGridGenerator(**OFFICIAL["init_kwargs"])
    found = network.state_dict()
    assert list(found) == list(OFFICIAL["tensors"])
    assert {name: list(value.shape) for name, value in found.items()} == {
        name: entry["shape"] for name, entry in OFFICIAL["tensors"].items()
    }
    parameters = {name for name, _ in network.named_parameters()}
    assert parameters == {name for name, entry in OFFICIAL["tensors"].items() if entry["kind"] == "parameter"}
    assert sum(value.numel() for value in network.parameters()) == OFFICIAL["n_parameters"]
    assert network.num_ws == OFFICIAL["attributes"]["backbone_num_ws"]
    assert network.bcg_synthesis is not None
    assert network.bcg_synthesis.num_ws == OFFICIAL["attributes"]["bcg_num_ws"]
    assert network.neural_rendering_resolution == OFFICIAL["neural_rendering_resolution"]


def test_the_published_axes_are_the_default() -> None:
    given = TriGridGenerator.from_state_dict(PARAMS, **tiny_config(), axes=OFFICIAL["plane_axes"])
    assert given.axes == tiny().axes == ((0, 1, 2), (0, 2, 1), (1, 2, 0))


def test_sizes_that_are_no_arguments_are_read_from_the_tensors() -> None:
    assert sizes(PARAMS, tiny_config()["rendering_kwargs"]) == {
        "decoder_hidden": 64,
        "plane_features": 32,
        "sr_input_resolution": 16,
        "sr_widths": (16, 8),
        "offset_layers": 2,
    }
    assert sizes({}, {}) == {}


def test_tensors_are_shared_and_frozen() -> None:
    network = tiny()
    assert network.decoder.net[0].weight.data_ptr() == PARAMS["decoder.net.0.weight"].data_ptr()
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not network.training


def test_what_training_left_in_the_file_is_ignored() -> None:
    state = {"dataset_label_std": torch.ones(25), **PARAMS}
    assert "dataset_label_std" not in TriGridGenerator.from_state_dict(state, **tiny_config()).state_dict()


def broken(**changes: Tensor | None) -> dict[str, Tensor]:
    changed = {name.replace("__", "."): value for name, value in changes.items()}
    return {name: value for name, value in (PARAMS | changed).items() if value is not None}


@pytest.mark.parametrize(
    ("state", "complaint"),
    [
        (broken(torgb__bias=None), r"torgb\.bias is missing"),
        (broken(encoder__weight=torch.zeros(2)), r"encoder\.weight is unknown"),
        (broken(t_mapping__w_avg=torch.zeros(4)), r"t_mapping\.w_avg is \(4,\) instead of \(3,\)"),
        (broken(backbone__synthesis__b4__resample_filter=torch.ones(4, 4)), r"b4\.resample_filter is not the filter"),
        ({name: value for name, value in PARAMS.items() if not name.startswith("backbone.")}, r"and \d+ more"),
    ],
)
def test_tensors_that_do_not_fit_are_named(state: dict[str, Tensor], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        TriGridGenerator.from_state_dict(state, **tiny_config())


@pytest.mark.parametrize(
    "rendering",
    [
        {"superresolution_module": "training.superresolution.SuperresolutionHybrid2X", "image_resolution": 32},
        {"superresolution_module": "training.superresolution.SuperresolutionHybrid4X", "image_resolution": 32},
        {"triplane_depth": 1, "triplane_size": 16, "superresolution_noise_mode": "const"},
        {"triplane_depth": 5, "triplane_size": 64, "use_background": False, "box_warp": 1.6, "white_back": True},
        {"disparity_space_sampling": True, "use_torgb_raw": False, "decoder_activation": "lrelu"},
    ],
)
def test_other_sizes_and_options_make_networks_that_come_back_from_their_tensors(rendering: dict[str, object]) -> None:
    config = tiny_config(**rendering)
    size = int(config["rendering_kwargs"]["image_resolution"])
    config |= {"img_resolution": size, "mapping_kwargs": {"num_layers": 3}, "sr_num_fp16_res": 0}
    torch.manual_seed(0)
    made = TriGridGenerator(**config, sr_input_resolution=16, sr_widths=(6, 4), decoder_hidden=12, plane_features=8)
    camera, z = TINY["in.c"][:1, None], TINY["in.z"][:1]
    with torch.no_grad():
        ws = made.mapping(z, camera[:, 0])
        image, composed = made(ws, camera)
        again, _ = TriGridGenerator.from_state_dict(made.state_dict(), **config)(ws, camera)
    assert image.shape == (1, 1, 3, size, size)
    assert image.isfinite().all()
    assert composed.raw.shape == (1, 1, 3, 12, 12)
    assert torch.equal(image, again)


def test_without_any_tensor_the_official_sizes_hold() -> None:
    with pytest.raises(InputError, match="gives 512"):
        TriGridGenerator.from_state_dict({}, **tiny_config())


def test_a_background_can_have_more_rows_than_the_latent() -> None:
    config = tiny_config(triplane_size=8)
    network = TriGridGenerator(**config, sr_input_resolution=16, sr_widths=(6, 4))
    ws = torch.randn(1, network.num_ws, 64)
    assert network.num_ws == 4
    assert network.background(ws).shape == (1, 32, 16, 16)
    longer = torch.cat([ws, ws[:, -1:].expand(-1, 2, -1)], dim=1)
    assert torch.equal(network.background(longer), network.background(ws))


def test_a_network_that_is_trained_gets_gradients_everywhere() -> None:
    """In every part that a picture passes through; the offset of cameras has a loss of its own."""
    torch.manual_seed(0)
    network = TriGridGenerator(**tiny_config(), sr_input_resolution=16, sr_widths=(6, 4))
    for parameter in network.parameters():
        if parameter.ndim == 0:
            torch.nn.init.ones_(parameter)  # noise strengths begin at zero, noise maps are drawn
    z, camera = TINY["in.z"], TINY["in.c"]
    image, composed = network(network.mapping(z, camera), camera[:, None])
    (image.square().mean() + composed.alpha.mean() + network.offset(z, camera).square().mean()).backward()
    without = [name for name, value in network.named_parameters() if value.grad is None or not value.grad.any()]
    # super-resolution takes no noise here ('none'), so that its noise strengths have none
    assert all(name.startswith("superresolution.") and name.endswith("noise_strength") for name in without), without
