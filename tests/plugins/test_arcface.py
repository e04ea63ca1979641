"""Alignment by landmarks, and what an identity does with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from facednerf_arcface.alignment import aligned, by_box, by_landmarks, similarity
from facednerf_arcface.identity import ArcFace, from_tensors, load
from facednerf_arcface.iresnet import FACE_SIZE, TEMPLATE, IResNet
from facednerf_arcface.options import ArcFaceOptions
from facednerf_arcface.plugin import build
from safetensors.torch import save_file
from torch import Tensor

from facednerf_core.cards import LocalWeights, WeightsCard
from facednerf_core.errors import InputError, MissingWeights, Unsupported
from facednerf_core.scene import Subject
from tests.smooth import draw, gradient, he, latent, spread, step, subject

# an upright face in the middle of the picture, in [0, 1]
UPRIGHT = (torch.tensor(TEMPLATE) + 0.5) / FACE_SIZE * 0.6 + 0.2


@pytest.fixture(scope="module")
def network() -> IResNet:
    return he(IResNet(widths=(4, 6, 8, 8), units=(1, 1, 1, 1), embedding=16)).eval()


def turned(points: Tensor, angle: float, scale: float, shift: tuple[float, float]) -> Tensor:
    turn = torch.tensor([[1.0, 0.0], [0.0, 1.0]]) * torch.tensor(angle).cos()
    turn = turn + torch.tensor([[0.0, -1.0], [1.0, 0.0]]) * torch.tensor(angle).sin()
    return (points - 0.5) @ turn.T * scale + 0.5 + torch.tensor(shift)


def test_similarity_recovers_turn_scale_and_shift() -> None:
    points = torch.rand(3, 5, 2, dtype=torch.float64)
    angle, scale, shift = torch.tensor(0.7), 1.7, torch.tensor([0.3, -0.2])
    turn = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])]).double()
    found = similarity(points, scale * points @ turn.T + shift)
    assert torch.allclose(found[:, :, :2], (scale * turn).expand(3, -1, -1))
    assert torch.allclose(found[:, :, 2], shift.double().expand(3, -1))


def test_similarity_is_the_best_in_least_squares_and_never_a_mirror() -> None:
    draws = torch.Generator().manual_seed(0)
    points = torch.rand(1, 5, 2, generator=draws, dtype=torch.float64)
    target = points * torch.tensor([-1.0, 1.0]) + 0.05 * torch.randn(1, 5, 2, generator=draws, dtype=torch.float64)
    found = similarity(points, target)
    assert float(torch.linalg.det(found[0, :, :2])) > 0

    def error(place: Tensor) -> float:
        return float((points @ place[:, :, :2].mT + place[:, :, 2].unsqueeze(1) - target).square().sum())

    a, b, x, y = found[0, 0, 0], found[0, 1, 0], found[0, 0, 2], found[0, 1, 2]
    for change in torch.eye(4, dtype=torch.float64) * 1e-3:
        for sign in (1, -1):
            p, q, u, v = torch.stack([a, b, x, y]) + sign * change
            assert error(torch.stack([torch.stack([p, -q, u]), torch.stack([q, p, v])])[None]) > error(found)


def test_landmarks_come_to_lie_on_the_template() -> None:
    marks = turned(UPRIGHT, 0.3, 0.8, (0.05, -0.04))
    size = 400
    y, x = torch.meshgrid(*[(torch.arange(size) + 0.5) / size] * 2, indexing="ij")
    for mark, goal in zip(marks, TEMPLATE, strict=True):
        spot = torch.exp(-((x - mark[0]) ** 2 + (y - mark[1]) ** 2) / (2 * 0.008**2))
        face = aligned((2 * spot - 1).expand(1, 3, -1, -1), by_landmarks(marks[None]))
        peak = divmod(int(face[0, 0].argmax()), FACE_SIZE)
        assert abs(peak[1] - goal[0]) <= 1
        assert abs(peak[0] - goal[1]) <= 1


def test_oblong_pictures_are_not_stretched() -> None:
    place = by_landmarks((UPRIGHT * torch.tensor([0.5, 1.0]))[None], aspect=2.0)
    half = torch.tensor([2.0, 1.0]).view(1, 2, 1)
    linear = (place * half)[0, :, :2]
    assert float(linear[0, 0]) == pytest.approx(float(linear[1, 1]), rel=1e-5)
    assert float(linear[0, 0]) == pytest.approx(0.6, rel=1e-4)


def test_a_face_is_the_same_at_every_size_of_its_picture() -> None:
    place = by_landmarks(turned(UPRIGHT, -0.2, 1.0, (0.0, 0.0))[None])
    faces = [aligned(draw(latent(), size).image[:, 0], place) for size in (64, 128, 512)]
    assert float((faces[0] - faces[2]).abs().max()) < 0.02
    assert float((faces[1] - faces[2]).abs().max()) < 0.01


def test_large_pictures_do_not_alias() -> None:
    stripes = (torch.arange(1024) % 2 * 2 - 1).float().expand(1, 3, 1024, -1)
    face = aligned(stripes, by_landmarks(UPRIGHT[None]))
    assert float(face.abs().max()) < 0.05


def test_outside_the_picture_is_black() -> None:
    face = aligned(torch.ones(1, 3, 64, 64), by_landmarks(turned(UPRIGHT, 0.0, 3.0, (0.0, 0.0))[None]))
    assert float(face[0, 0, 0, 0]) == pytest.approx(-1.0)
    assert float(face[0, 0, 56, 56]) == pytest.approx(1.0, abs=1e-4)


def test_without_landmarks_the_box_is_cut_out() -> None:
    image = torch.linspace(-1, 1, 256).expand(1, 3, 256, 256)
    face = aligned(image, by_box((0.25, 0.0, 0.75, 1.0), image))
    assert float(face[0, 0, 0, 0]) == pytest.approx(-0.5, abs=0.02)
    assert float(face[0, 0, 0, -1]) == pytest.approx(0.5, abs=0.02)


def test_too_few_landmarks_are_refused() -> None:
    with pytest.raises(ValueError, match="5 landmarks; got 3"):
        by_landmarks(torch.rand(1, 3, 2))


def test_embeddings_have_unit_length_and_know_their_alignment(network: IResNet) -> None:
    identity = ArcFace(network)
    image = draw(latent(subjects=2), 64, views=3).image
    marks = UPRIGHT.expand(2, 3, -1, -1)
    found = identity.embed(image, marks)
    assert found.shape == (2, 3, 16)
    assert torch.allclose(found.norm(dim=-1), torch.ones(2, 3))
    assert not torch.allclose(found, identity.embed(image), atol=1e-3)
    assert not torch.allclose(found, identity.embed(image, turned(marks, 0.5, 1.0, (0.0, 0.0))), atol=1e-3)


def test_the_photo_itself_resembles_the_photo(network: IResNet) -> None:
    marks = UPRIGHT[None, None]
    loss = ArcFace(network).aim(subject(0, landmarks=marks))
    same, other = loss(draw(latent(0), 256), step(latent())), loss(draw(latent(3), 256), step(latent()))
    assert float(same.value) == pytest.approx(0.0, abs=1e-5)
    assert same.metrics["cosine"] == pytest.approx(1.0, abs=1e-5)
    assert float(other.value) > 1e-3


def test_one_warp_from_the_photos_landmarks_serves_photo_and_rendering(network: IResNet) -> None:
    marks = turned(UPRIGHT, 0.3, 1.0, (0.0, 0.05))[None, None]
    identity, rendering = ArcFace(network), draw(latent(3), 128)
    photo = subject(0, landmarks=marks)
    assert photo.image is not None
    expected = 1 - (identity.embed(photo.image, marks) * identity.embed(rendering.image, marks)).sum(-1)
    elsewhere = replace(rendering, landmarks=turned(marks, 1.0, 0.5, (0.0, 0.0)))
    assert torch.allclose(identity.aim(photo)(elsewhere, step(latent())).value, expected[:, 0], atol=1e-6)


def test_subjects_keep_their_own_photo_and_views_are_averaged(network: IResNet) -> None:
    identity = ArcFace(network)
    people = latent(subjects=2)
    shot = draw(people, 128)
    pair = Subject(shot.view, shot.image)
    loss = identity.aim(pair)
    assert float(loss(shot, step(people)).value.abs().max()) < 1e-5
    views = loss(draw(people, 128, views=3), step(people)).value
    assert views.shape == (2,)
    swapped = people.with_w(people.w.flip(0))
    assert float(loss(draw(swapped, 128), step(swapped)).value.min()) > 1e-3


def test_one_normalisation(network: IResNet) -> None:
    marks = turned(UPRIGHT, 0.1, 1.0, (0.0, 0.0))[None, None]
    assert spread(ArcFace(network).aim(subject(1, landmarks=marks))) < 0.2
    assert spread(ArcFace(network).aim(subject(1))) < 0.2


def test_the_network_is_frozen_and_the_photo_is_embedded_once(network: IResNet) -> None:
    calls: list[int] = []
    hook = network.register_forward_hook(lambda *_: calls.append(1))
    loss = ArcFace(network).aim(subject())
    for _ in range(2):
        gradient(loss, 64)
    hook.remove()
    assert len(calls) == 3
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in network.parameters())


def test_without_a_photo_there_is_no_aim(network: IResNet) -> None:
    with pytest.raises(Unsupported, match="--identity none"):
        ArcFace(network).aim(Subject(subject().view))


def test_a_file_tells_widths_and_depth(network: IResNet, tmp_path: Path) -> None:
    tensors = {name: value for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    save_file({name: value.contiguous() for name, value in tensors.items()}, tmp_path / "identity.safetensors")
    loaded = load(tmp_path / "identity.safetensors", torch.device("cpu"))
    assert (loaded.widths, loaded.units, loaded.embedding) == (network.widths, network.units, 16)
    image = draw(latent(), 112).image
    assert torch.equal(ArcFace(loaded).embed(image), ArcFace(network).embed(image))
    with pytest.raises(InputError, match=r"fc\.weight"):
        from_tensors({"conv1.weight": torch.zeros(1)})
    with pytest.raises(InputError, match=r"layer1\.0\.bn1\.weight"):
        from_tensors({name: value for name, value in tensors.items() if name != "layer1.0.bn1.weight"})


def test_card_builds_and_options_are_checked(network: IResNet, tmp_path: Path) -> None:
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, tmp_path / "face.safetensors")
    weights = LocalWeights(
        WeightsCard("arcface/test", "arcface", "identity", "test", "tiny"), {"tensors": tmp_path / "face.safetensors"}
    )
    identity = build(torch.device("cpu"), weights, box=(0.1, 0.1, 0.9, 0.9))
    assert isinstance(identity, ArcFace)
    assert identity.options.box == (0.1, 0.1, 0.9, 0.9)
    with pytest.raises(MissingWeights):
        build(torch.device("cpu"), None)
    with pytest.raises(InputError, match="box"):
        ArcFaceOptions(box=(0.9, 0.0, 0.1, 1.0))
