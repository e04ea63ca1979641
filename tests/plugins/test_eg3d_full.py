"""The full-size official configurations, with weights made from their names."""

from __future__ import annotations

import json

import pytest
import torch
from facednerf_eg3d.network import TriPlaneGenerator
from safetensors.torch import load_file

from tests.plugins.eg3d_goldens import GOLDEN
from tests.procedural_tensors import weights


@pytest.mark.parametrize("case", ["ffhq", "shapenet"])
def test_full_size(case: str) -> None:
    facts = json.loads((GOLDEN / f"golden_full_{case}.json").read_text())
    golden = load_file(GOLDEN / f"golden_full_{case}.safetensors")
    config = facts["init_kwargs"] | {"neural_rendering_resolution": facts["neural_rendering_resolution"]}
    with torch.device("meta"):
        shapes = TriPlaneGenerator(**config).state_dict()
    filters = _filters(list(shapes))
    state = {
        name: torch.from_numpy(weights(facts["tag"], name, value.shape, facts["sigma_bias"]))
        for name, value in shapes.items()
        if name not in filters
    }
    network = TriPlaneGenerator.from_state_dict(state | filters, **config)
    with torch.no_grad():
        ws = network.mapping(golden["in.z"], golden["in.c_cond"], 0.7, 14)
        planes = network.planes(ws)
        volume = network.render(planes, golden["in.c"][:, None], rules="official")
        image = network.enlarge(volume.feature, ws)
    found = {
        "ws": ws[:, [0, 13]],
        "planes_s": planes.flatten(1, 2)[:, ::8, ::16, ::16],
        "feature_s": volume.feature[:, 0, :, ::8, ::8],
        "image_raw_before_sr_s": volume.raw[:, 0, :, ::2, ::2],
        "image_depth_s": volume.depth[:, 0, :, ::2, ::2],
        "image_s": image[:, 0, :, ::4, ::4],
    }
    # the original's 2X module adds the image of its first block to the raw image in place; 8XDC does not
    raw = volume.raw[:, 0]
    if case == "shapenet":
        with torch.no_grad():
            _, raw = network.superresolution.block0(volume.feature[:, 0], raw, ws[:, -1:].expand(-1, 3, -1), {})
    found["image_raw_s"] = raw[:, :, ::2, ::2]
    assert set(found) == {name for name in golden if not name.startswith("in.")}
    for name, value in found.items():
        torch.testing.assert_close(value, golden[name], atol=2e-4, rtol=0, msg=lambda text, name=name: f"{name}: {text}")
        assert (value - golden[name]).abs().max() < 1e-4 * golden[name].abs().max(), name
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        rounded = network.enlarge(network.render(network.planes(ws), golden["in.c"][:, None]).feature, ws)
    assert (rounded - image).abs().max() < 0.03 * image.abs().max()  # measured: 0.014


def _filters(names: list[str]) -> dict[str, torch.Tensor]:
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    return {name: torch.outer(taps, taps) / 64 for name in names if name.endswith("resample_filter")}
