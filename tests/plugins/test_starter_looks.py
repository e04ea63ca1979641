"""What makes the world's heads look made with care: each test would notice one refinement's loss."""

from __future__ import annotations

import math

import torch
from facednerf_starter.world import wear
from facednerf_starter.world.anatomy import Measures, measure
from facednerf_starter.world.attributes import Attributes, decode, draw
from facednerf_starter.world.cameras import look
from facednerf_starter.world.hair import cover, hair, strand
from facednerf_starter.world.heads import beard_mask, face
from facednerf_starter.world.landmarks import LANDMARKS
from facednerf_starter.world.light import soft
from facednerf_starter.world.render import WorldRendering, render
from facednerf_starter.world.skin import oil, teeth
from torch import Tensor

PLAIN = {"hat": 0, "glasses": 0, "beard": "none", "moustache": "no", "stubble": 0.0, "lipstick": "no", "freckles": 0.0}


def _head(**changes: float | str) -> Attributes:
    head = decode(draw(0, 0, 1))
    head = head.replace(**dict.fromkeys(("asymmetry", "mouth_tilt", "phase_a", "phase_b", "phase_c"), 0.0))
    head = head.replace(**PLAIN, age=0.3, skin=0.1, femininity=0.05, expression="neutral", hair_style="bald")
    return head.replace(**changes)


def _seen(head: Attributes, yaw: float = 0.0, size: int = 128) -> WorldRendering:
    return render(head, look(torch.tensor([[yaw]]), torch.zeros(1)), size, light=soft(1))


def _spot(seen: WorldRendering, name: str) -> tuple[int, int]:
    x, y = (seen.landmarks[0, 0, LANDMARKS.index(name)] * seen.albedo.shape[-1]).long().tolist()
    return x, y


def _surface_z(m: Measures, x: Tensor, y: Tensor) -> Tensor:
    """Where rays along -z meet the skin at (x, y), each (1, R)."""
    z = torch.full_like(x, 1.4)
    for _ in range(150):
        z = z - 0.5 * face(x, y, z, m, False)[0]
    return z


def test_hair_begins_gradually() -> None:
    head = _head(hair_style="short", hair_color="black", fringe=0.0, recession=0.0, hair_shade=0.0)
    seen = _seen(head)
    x, y = _spot(seen, "forehead")
    line = seen.albedo[0, 0].mean(0)[y - 20 : y + 12, x - 6 : x + 7].mean(1)  # black above, pale below
    between = (line > line.min() + 0.15) & (line < line.max() - 0.15)
    assert int(between.sum()) >= 4


def _across(part: float, fringe: float) -> Tensor:
    """How strands of short hair run over the forehead's middle: the gradient (2,) of `strand` rightwards and upwards."""
    m = measure(_head(hair_style="short", femininity=0.95, part=part, fringe=fringe, wave=0.0))
    place = torch.tensor([[0.15, 0.15 + 1e-3, 0.15], [0.8, 0.8, 0.8 + 1e-3], [0.75, 0.75, 0.75]])
    s = strand(*place[:, None], m)[0]
    return (s[1:] - s[0]) / 1e-3


def test_short_hair_is_combed_aside_and_a_fringe_falls_forward() -> None:
    aside, fringe = _across(0.5, 0.0).abs(), _across(0.5, 1.0).abs()
    assert float(aside[1] / aside[0]) > 4 * float(fringe[1] / fringe[0])


def test_short_hair_is_shorn_at_the_sides_of_a_man() -> None:
    place = torch.tensor([[[0.75, 0.75]], [[0.7, -0.1]], [[-0.3, -0.3]]])  # above and beside the ear

    def covered(femininity: float) -> Tensor:
        m = measure(_head(hair_style="short", femininity=femininity, fringe=0.0, hair_length=0.2, wave=0.0))
        return cover(strand(*place, m), *place, m)[0][0]

    man, woman = covered(0.05), covered(0.95)
    assert float(man[1]) < 0.8 * float(man[0])
    assert float(woman[1] / woman[0]) > float(man[1] / man[0]) + 0.1


def test_combed_hair_stands_higher_in_front() -> None:
    m = measure(_head(hair_style="short", fringe=0.0, hair_volume=1.0, part=2.0))
    front = torch.tensor([[[-0.1]], [[1.05]], [[0.55]]])
    flat = hair(*front, {**m, "quiff": 0 * m["quiff"]}, False)
    assert float(flat - hair(*front, m, False)) > 0.03


def test_long_hair_falls_on_both_sides_of_a_neck_that_is_seen() -> None:
    for length in (0.0, 0.5, 1.0):
        head = _head(hair_style="long", hair_color="blue", femininity=0.95, hair_length=length, clothes="crew neck")
        seen = _seen(head)
        x, y = _spot(seen, "chin")
        row = seen.albedo[0, 0, :, y + 8]  # (3, W)
        blue = (row[2] > row[0] + 0.1) & (seen.mask[0, 0, 0, y + 8] > 0.9)
        assert not bool(blue[x])
        assert int(blue[:x].sum()) >= 8, length
        assert int(blue[x:].sum()) >= 8, length
        behind = _seen(head, yaw=math.pi).albedo[0, 0, :, y - 20 : y + 4, 50:78]
        assert bool((behind[2] > behind[0] + 0.1).all()), length


def test_wings_of_the_nose_are_part_of_it() -> None:
    m = measure(_head(nose_width=2.0))
    x = torch.linspace(0, 0.13, 53)[None]
    for below in (0.035, 0.05, 0.07):
        z = _surface_z(m, x, m["nose_y"] - below + 0 * x)
        slope = z.diff(dim=1) / x.diff(dim=1)
        assert float(slope.diff(dim=1).max()) < 0.05, "a groove between the tip and a ball beside it"


def test_a_smile_raises_the_corners_and_shows_teeth_and_leaves_no_dark_corners() -> None:
    smile = _head(expression="smile", intensity=1.0, teeth=1.0)
    seen = _seen(smile)
    albedo = seen.albedo[0, 0]
    left, right = _spot(seen, "left_mouth_corner"), _spot(seen, "right_mouth_corner")
    middle = _spot(seen, "upper_lip")
    assert left[1] < middle[1] + 1
    assert right[1] < middle[1] + 1
    cheek = _spot(seen, "left_cheek")
    skin = albedo[:, cheek[1], cheek[0]].mean()
    for x, y in (left, right):
        assert float(albedo[:, y - 3 : y + 4, x - 3 : x + 4].mean(0).min()) > 0.45 * float(skin)
    mouth = albedo[:, middle[1] - 4 : middle[1] + 10, left[0] : right[0]]
    white = (mouth.min(0).values > 0.62) & (mouth.max(0).values - mouth.min(0).values < 0.18)
    assert int(white.sum()) > 60


def test_teeth_stand_side_by_side() -> None:
    m = measure(_head())
    x = torch.linspace(-0.2, 0.2, 401)[None]
    coarse, fine = (teeth(x, m, sharp).mean(-1) for sharp in (0.0, 1.0))
    for white in (coarse, fine):
        gaps = (white[:, 1:-1] < white[:, :-2]) & (white[:, 1:-1] < white[:, 2:])
        assert 4 <= int(gaps.sum()) <= 6
    middle = fine[:, 100:301]
    assert float(middle.max() - middle.min()) > 0.2
    assert 0.1 < float(coarse[:, 100:301].max() - coarse[:, 100:301].min()) < 0.25  # a pixel's width is not black


def test_pores_break_up_the_shine_of_fine_pictures_only() -> None:
    m = measure(_head())
    points = torch.nn.functional.normalize(torch.randn(1, 5000, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    coarse, fine = (oil(*points.unbind(-1), m, sharp) for sharp in (0.0, 1.0))
    assert abs(float((fine - coarse).mean())) < 0.03
    assert float((fine - coarse).std()) > 0.05
    assert float(fine.min()) > 0


def test_an_old_face_is_lined_and_a_little_duller() -> None:
    young, old = (_seen(_head(age=age)) for age in (0.4, 0.72))
    x, y = _spot(old, "forehead")
    forehead, cheek = (slice(y - 2, y + 16), slice(x - 14, x + 15)), _spot(old, "left_cheek")

    def lines(seen: WorldRendering) -> float:
        return float(seen.image[0, 0].mean(0)[forehead].mean(1).diff().abs().mean())

    def vivid(seen: WorldRendering) -> float:
        colour = seen.albedo[0, 0, :, cheek[1] - 2 : cheek[1] + 3, cheek[0] - 2 : cheek[0] + 3].mean((1, 2))
        return float(colour.max() - colour.min()) / float(colour.max())

    assert lines(old) > 2.0 * lines(young)
    assert 0.85 * vivid(young) < vivid(old) < 0.98 * vivid(young)


def test_ears_have_relief() -> None:
    seen = _seen(_head(), yaw=1.4)
    x, y = _spot(seen, "right_ear")
    ear = seen.normal[0, 0, :, y - 10 : y + 11, x - 5 : x + 8]
    assert float(ear.flatten(1).std(1).norm()) > 0.40
    shade = seen.albedo[0, 0].mean(0)[y - 10 : y + 11, x - 5 : x + 8]
    assert float(shade.std()) > 0.03


def test_arms_of_glasses_lie_along_the_head() -> None:
    m = measure(_head(glasses=1))
    for depth in (0.7, 0.5, 0.3, 0.15):
        x = torch.linspace(0.4, 1.0, 601)[None]
        back = 0.95 - depth
        y, z = torch.full_like(x, 0.045 + 0.06 * back * back), torch.full_like(x, depth)
        arm = x[wear.glasses(x, y, z, m) < 0]
        skin = x[face(x, y, z, m, False)[0] < 0]
        assert len(arm), depth
        gap = float(arm.mean()) - float(skin.max() if len(skin) else 0.4)
        assert -0.01 < gap < (0.1 if depth < 0.4 else 0.25), depth


def test_a_goatee_reaches_from_the_lip_to_the_chin() -> None:
    m = measure(_head(beard="goatee", moustache="yes"))
    down = torch.linspace(0.14, 0.45, 32)[None]
    zero = torch.zeros_like(down)
    middle = beard_mask(zero, m["mouth_y"] - down, zero + 0.7, m)
    beside = beard_mask(zero + 0.33, m["mouth_y"] - 0.05 + zero, zero + 0.7, m)
    assert float(middle[:, :20].min()) > 0.5
    assert float(beside.max()) < 0.7


def test_a_beard_leaves_the_ears_bare() -> None:
    m = measure(_head(beard="beard"))
    y = torch.linspace(-0.40, 0.2, 61)[None]
    z = -0.06 + 0.18 * (y + 0.10)
    assert float(beard_mask(0.76 + 0 * y, y, z, m).max()) < 0.1
    assert float(beard_mask(0.60 + 0 * y, y - 0.45, z + 0.3, m).max()) > 0.9
