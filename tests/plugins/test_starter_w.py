"""The designed W of the shipped generators: their mappings sample it, and its heads are the world's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from facednerf_eg3d.network import TriPlaneGenerator
from facednerf_panohead.network import TriGridGenerator
from facednerf_starter.plugin import FOLDER
from facednerf_starter.train import draws
from facednerf_starter.train.likeness import decibels
from facednerf_starter.train.mapping import LABEL_DIM, Design, numbers, told
from facednerf_starter.world.attributes import Z_DIM, decode, draw
from facednerf_starter.world.cameras import draw_cameras
from facednerf_starter.world.render import render

from facednerf_core import statedicts

NETWORKS = {"generator": TriPlaneGenerator, "panohead": TriGridGenerator}
CPU = torch.device("cpu")


def shipped(name: str) -> tuple[TriPlaneGenerator | TriGridGenerator, dict[str, object]]:
    path = FOLDER / f"{name}.safetensors"
    config = json.loads(path.with_suffix(".json").read_text("utf-8"))
    del config["class"]
    network = NETWORKS[name].from_state_dict(statedicts.read(path), **config).requires_grad_(False)
    card: dict[str, object] = json.loads(Path(path.with_suffix(".card.json")).read_text("utf-8"))["settings"]
    return network, card


@pytest.mark.parametrize("name", sorted(NETWORKS))
@torch.no_grad()
def test_the_mapping_samples_the_w_that_the_generator_draws(name: str) -> None:
    network, settings = shipped(name)
    seed, about = settings["seed"], settings["mapping"]
    assert isinstance(seed, int)
    assert isinstance(about, dict)
    assert about["designed"]
    design = Design(about["width"], seed, CPU)
    z = draws.normal((2048, Z_DIM), draws.key(7, "a mapping's test"))
    w = network.backbone.mapping.row(z, torch.zeros(len(z), LABEL_DIM))
    heads = told(z)
    assert float(design.errors(w, heads).mean()) == pytest.approx(about["unexplained"], abs=0.02)
    assert float(design.loss(w, heads)) < 0.4  # also what lies outside of the designed axes


@pytest.mark.parametrize("name", sorted(NETWORKS))
@torch.no_grad()
def test_a_designed_w_is_the_world_s_head(name: str) -> None:
    network, settings = shipped(name)
    seed, width = settings["seed"], settings["w_dim"]
    assert isinstance(seed, int)
    assert isinstance(width, int)
    heads = decode(draw(99, 0, 2))
    cameras = draw_cameras(99, 0, 2, 1, 0.3, 0.1, depth=0.2 if name == "generator" else 0.0)
    seen = render(heads, cameras, 128, supersample=2)
    ws = Design(width, seed, CPU).rows(numbers(heads), network.num_ws)
    image, _ = network(ws, cameras)
    drawn, other = decibels(image, seen.image, seen.mask), decibels(image.flip(0), seen.image, seen.mask)
    assert drawn > 19.5
    assert drawn > other + 4
