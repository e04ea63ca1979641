"""The official scripts' cameras, from their own numbers, against the golden table."""

from __future__ import annotations

import json
import math

import pytest
import torch
from facednerf_eg3d.cameras import official_focal, official_position

from facednerf_core.views import look_at
from tests.plugins.eg3d_goldens import GOLDEN

TABLE = json.loads((GOLDEN / "golden_camera.json").read_text())


@pytest.mark.parametrize("case", TABLE["lookat_pose"])
def test_poses(case: dict[str, object]) -> None:
    origin = official_position(case["horizontal"], case["vertical"], radius=case["radius"])
    camera = look_at(origin, tuple(case["pivot"]), 4.2647)
    torch.testing.assert_close(camera[:16].view(4, 4), torch.tensor(case["cam2world"]), atol=1e-6, rtol=0)


def test_the_pivot_turns_the_camera_and_does_not_move_it() -> None:
    origin = official_position(1.2, 1.4, radius=2.7)
    assert math.hypot(*origin) == pytest.approx(2.7)
    assert origin[0] < 0 < official_position(1.8, 1.4, radius=2.7)[0]
    assert official_position(1.2, 1.3, radius=2.7)[1] > origin[1]


def test_the_poles_are_not_reached() -> None:
    for vertical in (-1.0, 0.0, math.pi, 4.0):
        x, y, z = official_position(1.0, vertical, radius=1.0)
        assert 0 < math.hypot(x, z) < 0.01
        assert abs(y) > 0.9999


def test_fields_of_view() -> None:
    for degrees, matrix in TABLE["fov_to_intrinsics"].items():
        assert official_focal(float(degrees)) == pytest.approx(matrix[0][0], abs=1e-5)
