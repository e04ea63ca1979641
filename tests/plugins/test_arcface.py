"""Alignment by landmarks, and what an identity does with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from facednerf_arcface.alignment import aligned, by_box, by_landmarks, cropped, similarity
from facednerf_arcface.identity import ArcFace, from_tensors, load
from facednerf_arcface.iresnet import FACE_SIZE, TEMPLATE, IResNet
from facednerf_arcface.irse import IrSe
from facednerf_arcface.options import PSP_BOX, ArcFaceOptions
from facednerf_arcface.plugin import build
from safetensors.torch import save_file
from torch import Tensor

from facednerf_core.cards import LocalWeights, WeightsCard
from facednerf_core.errors import InputError, MissingWeights, Unsupported
from facednerf_core.framing import moved
from facednerf_core.framing import similarity as umeyama
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


def test_landmarks_can_be_fitted_to_the_template_as_insightface_does() -> None:
    """Against the core's own least squares, which is another formula: one complex number instead of an SVD."""
    draws = torch.Generator().manual_seed(2)
    pixels = torch.tensor([[196.0, 104.0], [240.0, 100.0], [222.0, 128.0], [203.0, 148.0], [241.0, 145.0]]).double()
    pixels = torch.stack([pixels, pixels + 6 * torch.randn(5, 2, generator=draws)])  # of a picture of 300 x 400
    found = by_landmarks((pixels + 0.5) / torch.tensor([400, 300]), 400 / 300, "template")
    for place, marks in zip(found, pixels, strict=True):
        there = umeyama(marks.numpy(), torch.tensor(TEMPLATE).double().numpy())
        corners = torch.tensor([[0.0, 0.0], [111.0, 0.0], [0.0, 111.0]]).double()
        expected = moved(np.linalg.inv(there), corners.numpy())
        face = torch.cat([2 * (corners + 0.5) / FACE_SIZE - 1, torch.ones(3, 1)], 1)
        at = (face @ place.T + 1) / 2 * torch.tensor([400, 300]) - 0.5
        assert np.allclose(at.numpy(), expected, atol=1e-6)
    other = by_landmarks((pixels + 0.5) / torch.tensor([400, 300]), 400 / 300)
    area = [torch.linalg.det(places[:, :, :2]) for places in (found, other)]
    assert bool((area[0] > area[1]).all())


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


def test_without_antialiasing_the_warp_is_insightfaces() -> None:
    """Bilinear samples at the places that the similarity names, counted from the middle of the first pixel; 0 outside."""
    height, width = 150, 230
    pixels = torch.rand(3, height, width, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 255
    template = torch.tensor(TEMPLATE, dtype=torch.float64)
    turn = torch.tensor([[0.9, -0.3], [0.3, 0.9]], dtype=torch.float64) * 1.4
    marks = template @ turn.T + torch.tensor([20.0, -15.0], dtype=torch.float64)  # pixels of the picture
    y, x = torch.meshgrid(torch.arange(112.0), torch.arange(112.0), indexing="ij")
    at = torch.stack([x, y], -1).double() @ turn.T + torch.tensor([20.0, -15.0], dtype=torch.float64)
    corner = at.floor().long()
    expected = torch.zeros(3, 112, 112, dtype=torch.float64)
    for right in (0, 1):
        for down in (0, 1):
            column, row = corner[..., 0] + right, corner[..., 1] + down
            share = (1 - (at[..., 0] - column).abs()) * (1 - (at[..., 1] - row).abs())
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            expected += pixels[:, row.clamp(0, height - 1), column.clamp(0, width - 1)] * share * inside
    place = by_landmarks((marks + 0.5)[None] / torch.tensor([width, height]), width / height)
    face = aligned(pixels[None] / 127.5 - 1, place, antialias=False)
    assert float((face[0] - (expected / 127.5 - 1)).abs().max()) < 1e-6


def test_the_crop_is_averaged_twice_and_cut_at_whole_pixels() -> None:
    image = torch.rand(1, 3, 512, 512, generator=torch.Generator().manual_seed(0))
    halved = image.unflatten(3, (256, 2)).unflatten(2, (256, 2)).mean((3, 5))
    expected = torch.zeros(112, 112)
    for row in range(112):  # windows of an adaptive average: from floor(i n / m) to ceil((i + 1) n / m)
        top, bottom = 35 + row * 188 // 112, 35 - (-(row + 1) * 188 // 112)
        for column in range(112):
            left, right = 32 + column * 188 // 112, 32 - (-(column + 1) * 188 // 112)
            expected[row, column] = halved[0, 1, top:bottom, left:right].mean()
    assert torch.allclose(cropped(image, PSP_BOX)[0, 1], expected, atol=1e-6)
    whole = torch.nn.functional.adaptive_avg_pool2d(image[..., :300], 256)
    assert torch.equal(cropped(image[..., :300], (0, 0, 1, 1)), torch.nn.functional.adaptive_avg_pool2d(whole, 112))


@pytest.mark.parametrize("box", [(-0.1, 0.0, 0.5, 0.5), (0.0, 0.0, 1.0, 1.1), (0.5, 0.5, 0.501, 0.9)])
def test_a_crop_beyond_the_picture_is_refused(box: tuple[float, float, float, float]) -> None:
    with pytest.raises(InputError, match="within the picture"):
        cropped(torch.zeros(1, 3, 64, 64), box)


def test_each_architecture_sees_faces_as_it_was_trained_unless_told(network: IResNet) -> None:
    squeezing = he(IrSe((4, 6, 8, 10), (1, 1, 1, 1), 16, reduction=2)).eval()
    assert (ArcFace(network).alignment, ArcFace(squeezing).alignment) == ("landmarks", "crop")
    image, marks = draw(latent(), 128).image, turned(UPRIGHT, 0.3, 1.0, (0.0, 0.05))[None, None]
    other = subject(1, landmarks=marks)
    for of in (network, squeezing):
        cut = ArcFace(of, ArcFaceOptions(alignment="crop"))
        assert torch.equal(cut.embed(image, marks), cut.embed(image))
        assert torch.equal(cut.embed(image), ArcFace(of, ArcFaceOptions(alignment="crop")).embed(image, marks[..., :2, :]))
        warped = ArcFace(of, ArcFaceOptions(alignment="landmarks"))
        assert not torch.allclose(warped.embed(image, marks), cut.embed(image), atol=1e-3)
        for identity in (cut, warped):
            assert other.image is not None
            expected = 1 - (identity.embed(other.image, marks) * identity.embed(image, marks)).sum(-1)
            found = identity.aim(other)(draw(latent(), 128), step(latent())).value
            assert torch.allclose(found, expected[:, 0], atol=1e-6)
    for options in (ArcFaceOptions(antialias=False), ArcFaceOptions(fit="template")):
        odd = marks + torch.tensor([0.0, 0.05]) * torch.arange(5).view(5, 1)
        assert not torch.equal(ArcFace(network, options).embed(image, odd), ArcFace(network).embed(image, odd))


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


@pytest.mark.parametrize(("dtype", "allowed"), [(torch.bfloat16, 0.33), (torch.float16, 0.06)])
def test_the_loss_in_half_precision_is_finite_and_near(network: IResNet, dtype: torch.dtype, allowed: float) -> None:
    loud = he(IResNet(widths=(4, 6, 8, 8), units=(1, 1, 1, 1), embedding=16)).eval()
    with torch.no_grad():
        loud.features.weight.fill_(1e3)  # embeddings whose squares half precision does not hold
    photo, shot = subject(0, landmarks=UPRIGHT[None, None]), draw(latent(3), 128)
    for of in (network, loud):

        def judged(of: IResNet = of) -> tuple[Tensor, Tensor]:
            image = shot.image.clone().requires_grad_()
            value = ArcFace(of).aim(photo)(replace(shot, image=image), step(latent())).value
            return value.detach(), torch.autograd.grad(value.sum(), image)[0]

        exact = judged()
        with torch.autocast("cpu", dtype=dtype):
            rough = judged()
        assert rough[0].dtype == torch.float32
        for near, true in zip(rough, exact, strict=True):
            assert float((near - true).norm() / true.norm()) < allowed


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
    squeezing = he(IrSe((4, 6, 8, 10), (1, 1, 1, 1), 16, reduction=2)).eval()
    save_file({name: value.contiguous() for name, value in squeezing.state_dict().items()}, tmp_path / "irse.safetensors")
    loaded = load(tmp_path / "irse.safetensors", torch.device("cpu"))
    assert isinstance(loaded, IrSe)
    assert torch.equal(ArcFace(loaded).embed(image), ArcFace(squeezing).embed(image))
    (tmp_path / "broken.safetensors").write_bytes(b"none")
    with pytest.raises(InputError, match="broken"):
        load(tmp_path / "broken.safetensors", torch.device("cpu"))
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
