"""The body model: rotations, skinning, what is refused, and the way back from a pose."""

from __future__ import annotations

import math

import pytest
import torch
from facednerf_eva3d.body import LinearBody, Pose, rotation_matrices
from facednerf_eva3d.parts import PARTS, Part, aist, listed, with_depths
from facednerf_eva3d.stance import TOUCHING, Stance, nearest
from facednerf_eva3d.synthetic import joints, synthetic_body

from facednerf_core.errors import InputError
from tests.plugins.test_eva3d_goldens import POSE, golden_body


def turned(joint: int, *axis_angle: float) -> torch.Tensor:
    pose = torch.zeros(85)
    pose[3 * joint : 3 * joint + 3] = torch.tensor(axis_angle)
    return pose


def changed(body: LinearBody, **tensors: torch.Tensor) -> LinearBody:
    return type(body)(**(body.tensors() | tensors))


def test_rotations_are_those_of_their_vectors():
    theta = torch.tensor([0, 0, math.pi / 2, 0.3, -1.2, 0.7, 0, 0, 0], dtype=torch.float64)
    quarter, any_turn, none = rotation_matrices(theta)
    expected = torch.tensor([[0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)
    torch.testing.assert_close(quarter, expected, atol=1e-7, rtol=0)
    x, y, z = theta[3:6]
    cross = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    torch.testing.assert_close(any_turn, torch.linalg.matrix_exp(cross), atol=1e-7, rtol=0)
    torch.testing.assert_close(none, torch.eye(3, dtype=torch.float64), atol=1e-7, rtol=0)


def test_rotations_of_nothing_are_differentiable():
    theta = torch.zeros(72, requires_grad=True)
    rotation_matrices(theta)[:, 0, 1].sum().backward()
    assert theta.grad.isfinite().all()
    torch.testing.assert_close(theta.grad.view(24, 3)[:, 2], torch.full((24,), -1.0), atol=1e-4, rtol=0)


def test_a_bent_elbow_carries_forearm_and_hand_alone():
    body, pose = synthetic_body(), turned(18, 0, 0, math.pi / 2)
    rest, bent = Stance.of(body, torch.zeros(85)), Stance.of(body, pose)
    elbow = rest.joints[18]
    moved = (bent.transforms[:, :3, :3] @ rest.joints[:, :, None])[..., 0] + bent.transforms[:, :3, 3]
    still = [joint for joint in range(24) if joint not in (20, 22)]
    torch.testing.assert_close(moved[still], rest.joints[still], atol=1e-5, rtol=0)
    reach = rest.joints[20] - elbow
    torch.testing.assert_close(moved[20] - elbow, torch.stack([-reach[1], reach[0], reach[2]]), atol=1e-5, rtol=0)
    right = body.template[:, 0] < 0
    torch.testing.assert_close(bent.vertices[right], rest.vertices[right], atol=1e-5, rtol=0)


def test_vertices_go_back_to_where_they_came_from():
    body = golden_body().to(torch.float64)
    stance = Stance.of(body, POSE[0].double())
    for part in PARTS:
        chosen = stance.searched(part)
        found = stance.canonical(stance.vertices[chosen], part)
        torch.testing.assert_close(found.points, body.template[chosen], atol=1e-7, rtol=0)
        identity = found.linear @ stance.skin[chosen, :3, :3]
        torch.testing.assert_close(identity, torch.eye(3).double().expand_as(identity), atol=1e-7, rtol=0)


def test_neighbours_are_weighted_by_their_inverse_squared_distance():
    stance = Stance.of(golden_body().to(torch.float64), POSE[0].double())
    part = PARTS[9]
    chosen = stance.searched(part)
    points = stance.vertices[chosen[:5]] + torch.linspace(-0.02, 0.02, 15, dtype=torch.float64).view(5, 3)
    found = stance.canonical(points, part, neighbours=8)
    for point, carried in zip(points, found.points, strict=True):
        squares = (stance.vertices[chosen] - point).square().sum(dim=1)
        near = squares.argsort()[:8]
        share = (1 / squares[near]) / (1 / squares[near]).sum()
        back = (share[:, None, None] * stance.unskin[chosen[near]]).sum(dim=0)
        offset = (share[:, None] * stance.offsets[chosen[near]]).sum(dim=0)
        torch.testing.assert_close(carried, back[:3, :3] @ point + back[:3, 3] - offset, atol=1e-9, rtol=0)
    touched = stance.canonical(stance.vertices[chosen[:1]], part, neighbours=8)
    squares = (stance.vertices[chosen] - stance.vertices[chosen[0]]).square().sum(dim=1).sort().values[1:8]
    share = TOUCHING / (TOUCHING + (1 / squares).sum())
    assert share > 0.9
    error = (touched.points[0] - golden_body().template[chosen[0]].double()).norm()
    assert 0 < error < (1 - share)


def test_the_nearest_vertices_are_found_in_order():
    rng = torch.Generator().manual_seed(0)
    points, vertices = (torch.rand(count, 3, generator=rng) for count in (300, 70))
    squares, index = nearest(points, vertices, 4)
    expected = (points[:, None] - vertices).square().sum(dim=2).sort(dim=1)
    assert torch.equal(index, expected.indices[:, :4])
    torch.testing.assert_close(squares, expected.values[:, :4])
    assert nearest(points[:0], vertices, 1)[1].shape == (0, 1)


def test_a_scaled_body_is_larger_and_nothing_else():
    body = golden_body()
    pose = POSE[0].clone()
    pose[72:82] = 0
    plain = Stance.of(changed(body, posedirs=torch.zeros_like(body.posedirs)), pose)
    pose[72] = 0.25
    large = Stance.of(changed(body, posedirs=torch.zeros_like(body.posedirs)).scaled(), pose)
    torch.testing.assert_close(large.joints, 1.25 * plain.joints)
    torch.testing.assert_close(large.vertices, 1.25 * plain.vertices, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weights": torch.zeros(192, 23)}, r"weights of shape \(192, 24\)"),
        ({"posedirs": torch.zeros(576, 207)}, "posedirs"),
        ({"template_sdf": torch.zeros(4)}, r"volume \(X, Y, Z\)"),
        ({"parents": torch.arange(24)}, "begin with -1"),
    ],
)
def test_a_body_that_is_none_is_refused(change, words):
    with pytest.raises(InputError, match=words):
        changed(golden_body(), **change)


def test_a_pose_of_other_numbers_and_a_part_without_vertices_are_refused():
    with pytest.raises(InputError, match="85 numbers"):
        Pose.of(torch.zeros(82))
    weights = golden_body().weights.clone()
    weights[:, 15] = 0
    stance = Stance.of(changed(golden_body(), weights=weights), POSE[0])
    with pytest.raises(InputError, match="no vertices for the head"):
        stance.searched(PARTS[9])


def test_the_synthetic_body_fills_the_canonical_boxes():
    body = synthetic_body()
    torch.testing.assert_close(body.rest_joints(torch.zeros(10)), torch.from_numpy(joints()).float(), atol=1e-5, rtol=0)
    torch.testing.assert_close(body.weights.sum(dim=1), torch.ones(len(body.template)))
    inside = torch.zeros(len(body.template), dtype=torch.bool)
    stance = Stance.of(body, torch.zeros(85))
    for part in PARTS:
        assert len(stance.searched(part)) > 100
        low, high = torch.tensor([part.low, part.high])
        inside |= ((body.template > low) & (body.template < high)).all(dim=1)
    assert inside.all(), "each vertex lies in a canonical box"


def test_shapes_of_the_synthetic_body_differ_by_centimetres_and_keep_its_two_sides_alike():
    body = synthetic_body()
    for index in range(10):
        moved = body.shapedirs[:, :, index].norm(dim=1).max()
        assert 0.01 < moved < 0.08, f"shape {index} moves the surface by {moved} m"
        beta = torch.zeros(10)
        beta[index] = 1
        left, right = body.rest_joints(beta)[[16, 17]]
        torch.testing.assert_close(left * torch.tensor([-1, 1, 1]), right, atol=2e-3, rtol=0)


def test_parts_of_other_depths_and_tables():
    assert [part.depth for part in aist()] == [3, 3, 3, 3, 3, 3, 2, 2, 3, 6, 3, 3, 3, 3, 2, 2]
    assert with_depths([1] * 16)[4].depth == 1
    with pytest.raises(InputError, match="16 parts"):
        with_depths([1, 2])
    entry = {"joint": 15, "depth": 5, "canonical_min": [0, 0, 0], "canonical_max": [1, 1, 1]}
    assert listed([entry]) == (Part(15, "head", 15, (15,), 5, (0, 0, 0), (1, 1, 1)),)
    with pytest.raises(InputError, match="describes no part"):
        listed([entry | {"joint": 9}])
    with pytest.raises(InputError, match="empty"):
        listed([entry | {"canonical_max": [1, 0, 1]}])
    with pytest.raises(InputError, match="table of parts is empty"):
        listed([])
