"""The synthetic world: the same head for the same number, and a truth that agrees with its pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from facednerf_starter.train.__main__ import main
from facednerf_starter.world.anatomy import measure
from facednerf_starter.world.attributes import LABELS, VECTOR, Z_DIM, Attributes, decode, draw
from facednerf_starter.world.cameras import draw_cameras, frontal, look, project, rays
from facednerf_starter.world.captions import CAPTIONS, caption, captions, facts, vocabulary
from facednerf_starter.world.landmarks import LANDMARKS
from facednerf_starter.world.light import LAMPS, key_direction, lamp, lamplight, shade
from facednerf_starter.world.palette import palette
from facednerf_starter.world.photos import photograph
from facednerf_starter.world.render import WorldRendering, _render, relit, render
from facednerf_starter.world.skin import hairs, strands


@pytest.fixture(scope="module")
def heads() -> Attributes:
    return decode(draw(7, 0, 3))


@pytest.fixture(scope="module")
def seen(heads: Attributes) -> WorldRendering:
    return render(heads, look(torch.tensor([[-0.4, 0.0]]).expand(3, -1), torch.zeros(1)), 48)


def test_a_head_is_a_function_of_seed_and_number_alone() -> None:
    many, later = draw(5, 0, 6), draw(5, 4, 2)
    assert many.shape == (6, Z_DIM)
    assert many.device.type == "cpu"
    assert torch.equal(many[4:], later)
    assert not torch.equal(draw(6, 4, 2), later)
    cameras = draw_cameras(5, 0, 6, 3, jitter=0.02)
    assert torch.equal(cameras[4:], draw_cameras(5, 4, 2, 3, jitter=0.02))
    torch.manual_seed(1)
    once = decode(many)
    torch.manual_seed(2)
    assert torch.equal(once.vector(), decode(many).vector())


def test_every_attribute_appears_and_no_axis_of_z_is_one() -> None:
    heads = decode(draw(0, 0, 1500))
    for name, words in LABELS.items():
        shares = torch.bincount(getattr(heads, name), minlength=len(words)) / len(heads)
        assert shares.min() > 0.015, name
    for name, low, high in (("glasses", 0.25, 0.4), ("hat", 0.1, 0.2)):
        assert low < float(getattr(heads, name).float().mean()) < high
    vector = heads.vector()
    assert vector.shape == (1500, len(VECTOR))
    z = draw(0, 0, 1500)
    together = torch.corrcoef(torch.cat([z, vector], 1).T)[:Z_DIM, Z_DIM:].nan_to_num()
    assert together.abs().max() < 0.6


def test_replacing_and_dressing(heads: Attributes) -> None:
    changed = heads.replace(hair_style="bald", age=0.9)
    assert [changed.named("hair_style", i) for i in range(3)] == ["bald"] * 3
    assert torch.equal(changed.skin, heads.skin)
    assert torch.allclose(changed.age, torch.tensor(0.9))
    other = decode(draw(8, 0, 3))
    dressed = heads.dressed_as(other)
    assert torch.equal(dressed.nose_width, heads.nose_width)
    assert torch.equal(dressed.hair_color, other.hair_color)
    with pytest.raises(AttributeError, match="tail"):
        heads.replace(tail=1)


def test_mask_depth_and_normals_agree(seen: WorldRendering) -> None:
    inside, outside = seen.mask == 1, seen.mask == 0
    assert 0.2 < float(seen.mask.mean()) < 0.8
    assert seen.depth[inside].min() > 2.0
    assert seen.depth[inside].max() < 3.4
    assert (seen.depth[outside] == 0).all()
    assert torch.allclose(seen.image[outside.expand_as(seen.image)], torch.tensor(1.0), atol=1e-5)
    lengths = seen.normal.norm(dim=2, keepdim=True)
    assert torch.allclose(lengths[inside], torch.tensor(1.0), atol=1e-4)
    assert seen.albedo.min() >= 0
    assert seen.albedo.max() <= 1


def test_depth_reaches_the_same_surface_from_another_view(heads: Attributes) -> None:
    cameras = look(torch.tensor([[0.0, 0.25]]), torch.zeros(1))
    bald = heads[[0]].replace(hair_style="bald", hat=0, glasses=0)
    two = render(bald, cameras, 64, supersample=1)
    origin, direction = rays(cameras, 64)
    points = origin + direction * two.depth[:, :, 0].flatten(2)[..., None]
    centre = points[:, 0].reshape(64, 64, 3)[28:36, 28:36].reshape(1, 1, -1, 3)
    where = project(cameras[:, 1:], centre)[0, 0] * 64
    column, row = where[:, 0].long(), where[:, 1].long()
    there = points[0, 1].reshape(64, 64, 3)[row, column]
    assert (there - centre[0, 0]).norm(dim=1).median() < 0.015


def test_landmarks_lie_on_the_head(seen: WorldRendering) -> None:
    assert seen.landmarks.shape == (3, 2, len(LANDMARKS), 2)
    pixel = (seen.landmarks * 48).long().clamp(0, 47)
    for name in ("left_eye", "right_eye", "nose_tip", "left_mouth_corner", "right_mouth_corner", "upper_lip"):
        k = LANDMARKS.index(name)
        for i in range(3):
            x, y = pixel[i, 1, k].tolist()
            assert seen.mask[i, 1, 0, y, x] == 1, name
    front = dict(zip(LANDMARKS, seen.landmarks[0, 1].tolist(), strict=True))
    assert front["left_eye"][0] < front["nose_tip"][0] < front["right_eye"][0]
    assert front["left_eye"][1] < front["nose_tip"][1] < front["left_mouth_corner"][1] < front["chin"][1]


def test_dense_and_sparse_tracing_agree(heads: Attributes) -> None:
    cameras = frontal()
    sparse = render(heads[[1]], cameras, 24)
    _, dense = _render(heads[[1]], cameras, 24, 2, heads[[1]].light[:, None], False, False)
    assert (sparse.image - dense.image).abs().mean() < 1e-3
    assert torch.equal(sparse.mask, dense.mask)


def test_further_lights_show_what_renderings_of_their_own_would(heads: Attributes) -> None:
    cameras = look(torch.tensor([[0.3, -0.2]]).expand(2, -1), torch.zeros(1))
    lights = torch.stack([heads[[0, 1]].light, heads[[2, 0]].light], dim=1)  # (2, 2, 3, 9)
    image, first = relit(heads[[0, 1]], cameras, 24, lights)
    assert image.shape == (2, 2, 2, 3, 24, 24)
    assert torch.equal(image[:, :, 0], first.image)
    for number in range(2):
        own = render(heads[[0, 1]], cameras, 24, light=lights[:, number])
        assert torch.equal(image[:, :, number], own.image)
        assert torch.equal(first.normal, own.normal)


def test_an_attribute_changes_the_picture_where_it_should(heads: Attributes) -> None:
    plain = heads[[0]].replace(glasses=0, hat=0)
    cameras = frontal()
    before = render(plain, cameras, 48).image[0, 0]
    with_glasses = render(plain.replace(glasses=1), cameras, 48).image[0, 0]
    changed = (before - with_glasses).abs().amax(0) > 0.2
    assert changed[18:26].any(), "no glasses at the height of the eyes"
    assert not changed[38:].any(), "glasses changed the shoulders"


def test_light_comes_from_where_its_key_says() -> None:
    towards = torch.tensor([[0.6, 0.0, 0.8]])
    light = lamp(towards)[:, None].expand(1, 3, 9)
    assert torch.allclose(key_direction(light), towards, atol=1e-5)
    lit = shade(torch.stack([towards, -towards], 1), light)[0, :, 0]
    assert lit[0] > 0.9
    assert lit[1] < 0.2


def test_captions_say_only_what_is_true() -> None:
    heads = decode(draw(3, 0, 200))
    words = set(vocabulary())
    rng = np.random.default_rng(0)
    for i in range(200):
        for _ in range(3):
            said = caption(heads, i, rng)
            tokens = [w.strip(",") for w in said.split()]
            assert set(tokens) <= words, said
            if "without glasses" in said:
                assert not heads.glasses[i]
            elif {"glasses", "eyeglasses", "spectacles"} & set(tokens):
                assert heads.glasses[i], said
            if "bald" in tokens:
                assert heads.named("hair_style", i) == "bald", said
            if "beard" in tokens:
                assert heads.named("beard", i) == "beard", said
            if {"hat", "cap", "beanie"} & set(tokens):
                assert heads.hat[i], said
            if "woman" in tokens:
                assert heads.femininity[i] > 0.6, said
            if {"old", "elderly"} & set(tokens):
                assert heads.age[i] > 0.7, said
    assert "noun" in facts(heads, 0)


def test_photographs_keep_the_person_and_change_the_rest(seen: WorldRendering) -> None:
    photo = photograph(seen.image, seen.mask, np.random.default_rng(1))
    assert photo.shape == seen.image.shape
    assert torch.equal(photo, photograph(seen.image, seen.mask, np.random.default_rng(1)))
    inside = (seen.mask == 1).expand_as(photo)
    outside = (seen.mask == 0).expand_as(photo)
    person = (photo - seen.image)[inside].abs().mean()
    background = (photo - seen.image)[outside].abs().mean()
    assert person < 0.35
    assert background > 1.5 * person
    small = (((seen.image + 1) * 127.5).round().byte(), (seen.mask * 255).byte())
    assert photograph(*small, np.random.default_rng(1)).sub(photo).abs().mean() < 0.03


def test_shards_are_written_once_and_hold_the_truth(tmp_path: Path) -> None:
    argv = ["data", "--out", str(tmp_path), "--heads", "3", "--shard", "2", "--views", "1", "--size", "16", "--seed", "4"]
    assert main(argv) == 0
    folder = tmp_path / "shard-0001"
    assert json.loads((folder / "index.json").read_text()) == {"seed": 4, "first": 2, "count": 1, "views": 1, "size": 16}
    z = np.load(folder / "z.npy")
    assert np.array_equal(z, draw(4, 2, 1).numpy())
    heads = decode(torch.from_numpy(z))
    assert np.allclose(np.load(folder / "attributes.npy"), heads.vector())
    assert np.load(folder / "light.npy").shape == (1, 27)
    cameras = torch.from_numpy(np.load(folder / "cameras.npy"))
    again = ((render(heads, cameras, 16).image + 1) * 127.5).round().byte().movedim(2, -1).numpy()
    assert np.array_equal(np.load(folder / "image.npy"), again)
    assert np.load(folder / "depth.npy").shape == (1, 1, 8, 8)
    assert len(json.loads((folder / "captions.json").read_text())[0]) == 4
    stamp = (folder / "index.json").stat().st_mtime_ns
    assert main(argv) == 0
    assert (folder / "index.json").stat().st_mtime_ns == stamp


def test_captions_of_a_head_are_a_function_of_seed_and_number() -> None:
    heads = decode(draw(2, 0, 6))
    said = captions(heads, 2, 0)
    assert {len(lines) for lines in said} == {CAPTIONS}
    assert captions(heads[4:], 2, 4) == said[4:]
    assert captions(heads, 3, 0) != said


@pytest.mark.parametrize("name", LAMPS)
def test_lamplight_comes_from_its_lamp(name: str) -> None:
    light = lamplight(name, 2)
    assert light.shape == (2, 3, 9)
    towards = torch.nn.functional.normalize(torch.tensor([LAMPS[name]]), dim=1)
    assert torch.allclose(key_direction(light), towards.expand(2, 3), atol=1e-5)
    lit, dark = shade(towards[None].expand(2, 1, 3), light), shade(-towards[None].expand(2, 1, 3), light)
    assert float(lit.min()) > 3 * float(dark.max())
    assert float(lit.max()) < 1.5


def test_more_steps_fill_the_pixels_beside_edges() -> None:
    head = decode(draw(0, 0, 1))
    usual, patient = (render(head, frontal(), 96, steps=steps) for steps in (44, 176))
    filled = (patient.mask - usual.mask)[0, 0, 0] > 0.2
    inside = -torch.nn.functional.max_pool2d(-usual.mask[0, 0], 5, 1, 2)[0] > 0
    assert int((filled & inside).sum()) > 0
    both = (usual.mask > 0.99) & (patient.mask > 0.99)
    assert float((patient.depth - usual.depth)[both].abs().median()) < 1e-4


@pytest.mark.parametrize("style", ["short", "long", "curly"])
def test_strands_make_hair_neither_lighter_nor_darker(style: str) -> None:
    head = measure(decode(draw(0, 0, 1)).replace(hair_style=style))
    points = torch.nn.functional.normalize(torch.randn(1, 20000, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    shade = strands(*points.unbind(-1), head)
    assert float(shade.abs().max()) < 0.5
    assert float(shade.std()) > 0.05
    assert abs(float(shade.mean())) < 0.03


def test_single_strands_are_seen_in_fine_pictures_only() -> None:
    head = decode(draw(0, 0, 1)).replace(hair_style="long", hat="no")
    m, c = measure(head), palette(head)
    points = torch.nn.functional.normalize(torch.randn(1, 500, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    coarse, half, fine = (hairs(*points.unbind(-1), m, c, sharp) for sharp in (0.0, 0.5, 1.0))
    assert torch.allclose(half, (coarse + fine) / 2, atol=1e-5)
    assert float((fine - coarse).abs().max()) > 0.01
