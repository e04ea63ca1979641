"""A sheet and its facts: the same for the same order, true, and written both or not at all."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from facednerf_starter.world import sheet
from facednerf_starter.world.attributes import LABELS, SHAPE, UNIT, decode, draw
from facednerf_starter.world.captions import captions
from facednerf_starter.world.render import render
from facednerf_starter.world.sheet import MAPS, PATIENCE, Order, render_sheet
from PIL import Image

from facednerf_core.errors import InputError

SIZE = 32


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_the_same_order_is_the_same_sheet(tmp_path: Path) -> None:
    order = Order(heads=2, seed=3, size=SIZE, captions=True)
    one = render_sheet(tmp_path / "sheet.png", order, device="cpu")
    (tmp_path / "again").mkdir()
    two = render_sheet(tmp_path / "again" / "sheet.png", order, device="cpu")
    assert one.picture.read_bytes() == two.picture.read_bytes()
    assert one.facts.read_bytes() == two.facts.read_bytes()
    assert len(one.seconds) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"sheet.png", "sheet.json", "again"}
    other = render_sheet(tmp_path / "other.png", Order(heads=2, seed=4, size=SIZE, captions=True), device="cpu")
    assert one.picture.read_bytes() != other.picture.read_bytes()


def test_a_head_is_the_same_wherever_it_stands(tmp_path: Path) -> None:
    two = render_sheet(tmp_path / "two.png", Order(heads=2, size=SIZE), device="cpu")
    one = render_sheet(tmp_path / "one.png", Order(heads=1, first=1, size=SIZE), device="cpu")
    heads = json.loads(two.facts.read_text())["heads"]
    (alone,) = json.loads(one.facts.read_text())["heads"]
    left, top, width, height = heads[1].pop("box")
    alone.pop("box")
    assert heads[1] == alone
    assert np.array_equal(pixels(two.picture)[top : top + height, left : left + width], pixels(one.picture))


def test_the_facts_are_exact(tmp_path: Path) -> None:
    order = Order(heads=2, first=5, seed=9, size=SIZE, views=2, changes={"Glasses": "Yes", "age": 0.5}, maps=True)
    found = render_sheet(tmp_path / "sheet.png", order, device="cpu")
    facts = json.loads(found.facts.read_text())
    people = decode(draw(9, 5, 2)).replace(glasses="yes", age=0.5)
    assert facts["changes"] == {"glasses": "yes", "age": 0.5}
    assert [head["number"] for head in facts["heads"]] == [5, 6]
    assert [head["captions"] for head in facts["heads"]] == captions(people, 9, 5)
    for i, head in enumerate(facts["heads"]):
        assert set(head["attributes"]) == {*LABELS, *UNIT, *SHAPE}
        assert head["attributes"]["glasses"] == "yes"
        assert torch.equal(torch.tensor(head["attributes"]["skin"]), people.skin[i])
        assert torch.equal(torch.tensor(head["light"]), people.light[i])
    cameras = torch.tensor([camera["label"] for camera in facts["cameras"]])
    assert torch.equal(cameras, order.cameras())
    seen = render(people[[1]], cameras[None], SIZE, steps=PATIENCE)
    left, top, width, height = facts["heads"][1]["box"]
    block = pixels(found.picture)[top : top + height, left : left + width]
    assert (width, height) == (2 * SIZE, (1 + len(MAPS)) * SIZE)
    assert facts["layers"] == ["image", *MAPS]
    second = block[:SIZE, SIZE:] / 255 * 2 - 1
    assert np.abs(second - seen.image[0, 1].permute(1, 2, 0).numpy()).max() < 0.01
    mask = block[-SIZE:, :SIZE] / 255
    assert np.abs(mask - seen.mask[0, 0].permute(1, 2, 0).numpy()).max() < 0.01


def test_maps_stand_beside_a_single_view(tmp_path: Path) -> None:
    found = render_sheet(tmp_path / "sheet.png", Order(heads=1, size=SIZE, maps=True), device="cpu")
    assert pixels(found.picture).shape == (SIZE, 5 * SIZE, 3)


def test_views() -> None:
    assert Order().yaws == (0.0,)
    assert Order(views=3).yaws == (-0.8, 0.0, 0.8)
    assert Order(views=4, around=True).yaws == (0.0, math.pi / 2, math.pi, 1.5 * math.pi)
    middle = Order(views=4, around=True).cameras()[:, :16].reshape(4, 4, 4)
    eye, forward = middle[:, :3, 3], middle[:, :3, 2]
    assert torch.allclose(eye + 2.7 * forward, torch.zeros(4, 3), atol=1e-5)


@pytest.mark.parametrize("light", sheet.LIGHTS)
def test_lights(light: str) -> None:
    people, own = Order(heads=2, light=light).people(), Order(heads=2).people()
    assert torch.equal(people.light, own.light) == (light == "own")
    assert torch.equal(people.vector(), own.vector())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": 31}, "size must be within 32 and 1024, not 31"),
        ({"heads": 0}, "heads must be within 1 and 1000"),
        ({"views": 37}, "views must be within 1 and 36"),
        ({"seed": -1}, "seed must be within"),
        ({"light": "moon"}, "no light 'moon'; there are own, soft"),
        ({"changes": {"tail": "yes"}}, "no attribute 'tail'"),
        ({"heads": 1000, "size": 1024}, r"the sheet would have \d+ x \d+ pixels"),
    ],
)
def test_what_cannot_be_drawn_is_refused(fields: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Order(**fields)


def test_nothing_is_drawn_or_written_where_something_is_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheet, "render", lambda *_, **__: pytest.fail("it drew"))
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "facts.json").write_text("mine")
    for name, message in (
        ("sheet.jpg", "choose a name that ends in .png"),
        ("none/sheet.png", "there is no folder .*none"),
        ("folder.png", "folder.png exists; choose another --out.$"),
        ("facts.png", "facts.json exists; choose another --out, or --force"),
    ):
        with pytest.raises(InputError, match=message):
            render_sheet(tmp_path / name, device="cpu")
    assert {path.name for path in tmp_path.iterdir()} == {"folder.png", "facts.json"}
    assert (tmp_path / "facts.json").read_text() == "mine"


def test_an_interrupted_sheet_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render_sheet(tmp_path / "sheet.png", Order(heads=2, size=SIZE), device="cpu", progress=stop)
    assert not list(tmp_path.iterdir())


def test_force_replaces_both(tmp_path: Path) -> None:
    for name in ("sheet.png", "sheet.json"):
        (tmp_path / name).write_text("old")
    render_sheet(tmp_path / "sheet.png", Order(heads=1, size=SIZE), device="cpu", force=True)
    assert json.loads((tmp_path / "sheet.json").read_text())["picture"] == "sheet.png"
    assert pixels(tmp_path / "sheet.png").shape == (SIZE, SIZE, 3)
