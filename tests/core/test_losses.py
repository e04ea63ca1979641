"""The core's losses: their equations, their golden numbers, and one normalisation at every size."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from facednerf_core import losses
from facednerf_core.errors import Unsupported
from facednerf_core.perceptual import Perceptual, Vgg16
from facednerf_core.scene import Latent, Subject
from facednerf_core.terms import Fade, Ramp
from tests.portable_tensors import values
from tests.smooth import draw, gradient, he, latent, spread, step, subject

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "losses" / "golden_schedules.json").read_text())


@pytest.fixture(scope="module")
def perceptual() -> Perceptual:
    return Perceptual(he(Vgg16((8, 16, 32, 64, 64))), size=128)


def test_one_normalisation_of_the_reconstruction(perceptual: Perceptual) -> None:
    assert spread(losses.reconstruction(perceptual, subject(), pixels=0.0)) < 0.2
    assert spread(losses.reconstruction(perceptual, subject(), background="white", outside=0.1)) < 0.2


def test_one_normalisation_of_the_silhouette() -> None:
    assert spread(losses.silhouette(subject())) < 0.2


def test_one_normalisation_of_the_locality(perceptual: Perceptual) -> None:
    assert spread(losses.locality(perceptual), reference=latent(3)) < 0.2
    assert spread(losses.locality(depth=100.0, pixels=0.0), reference=latent(3)) < 0.2


def test_reconstruction_is_nothing_for_the_photo_itself_and_counts_features_and_pixels(perceptual: Perceptual) -> None:
    same = losses.reconstruction(perceptual, subject(0))(draw(latent(), 256), step(latent()))
    assert float(same.value) < 1e-6
    known = subject(1)
    both = losses.reconstruction(perceptual, known, pixels=2.0)(draw(latent(), 256), step(latent()))
    assert both.value.shape == (1,)
    assert float(both.value) == pytest.approx(both.metrics["perceptual"] + 2 * both.metrics["pixel"], rel=1e-5)
    assert both.metrics["pixel"] > 0.01
    assert both.metrics["perceptual"] > 0.001


def test_pixels_of_eyes_nose_and_mouth_count_more_by_their_focus(perceptual: Perceptual) -> None:
    landmarks = torch.tensor([[0.4, 0.4], [0.6, 0.4], [0.5, 0.5], [0.43, 0.6], [0.57, 0.6], [0.1, 0.1]])[None, None]
    known = replace(subject(0), landmarks=landmarks)
    assert known.image is not None
    whole = known.image
    size = whole.shape[-1]

    def seen(x: float, y: float, focus: float) -> float:
        """The pixel part for a photo that differs from the rendering in one spot."""
        row, column = round(y * size), round(x * size)
        image = whole.clone()
        image[..., row - 2 : row + 2, column - 2 : column + 2] = 1.0
        loss = losses.reconstruction(perceptual, replace(known, image=image), focus=focus)
        return loss(draw(latent(), 256), step(latent())).metrics["pixel"]

    for x, y in (*landmarks[0, 0, :5].tolist(), (0.5, 0.6)):
        assert seen(x, y, 3.0) == pytest.approx(4 * seen(x, y, 0.0), rel=0.1)
    for x, y in ((0.1, 0.1), (0.5, 0.9), (0.9, 0.4)):
        assert seen(x, y, 3.0) == pytest.approx(seen(x, y, 0.0), rel=0.01)
    blind = losses.reconstruction(perceptual, subject(1), focus=3.0)(draw(latent(), 256), step(latent()))
    assert blind.metrics == losses.reconstruction(perceptual, subject(1))(draw(latent(), 256), step(latent())).metrics


def test_below_the_chin_differences_count_less(perceptual: Perceptual) -> None:
    landmarks = torch.tensor([[0.4, 0.3], [0.6, 0.3], [0.5, 0.4], [0.43, 0.5], [0.57, 0.5]])[None, None]
    where = losses.body_below(landmarks, torch.zeros(1, 3, 100, 60))
    assert where.shape == (1, 1, 100, 60)
    assert where[..., :64, :].max() == 0  # to the chin, 0.15 below the mouth
    assert where[..., 74:, :].min() == 1
    known = replace(subject(), landmarks=landmarks)
    picture = draw(latent(), 256).image.detach().requires_grad_()

    def slope(body: float) -> torch.Tensor:
        loss = losses.reconstruction(perceptual, known, body=body)
        (found,) = torch.autograd.grad(
            loss(replace(draw(latent(), 256), image=picture), step(latent())).value.sum(), picture
        )
        return found

    assert float(slope(0.0)[..., 200:, :].abs().max()) < 1e-6 < float(slope(1.0)[..., 200:, :].abs().max())
    assert float(slope(0.0)[..., :150, :].abs().max()) > 1e-6
    blind = losses.reconstruction(perceptual, subject(), body=0.0)(draw(latent(), 256), step(latent()))
    assert blind.metrics == losses.reconstruction(perceptual, subject())(draw(latent(), 256), step(latent())).metrics


def test_photo_features_are_computed_once(perceptual: Perceptual) -> None:
    calls: list[int] = []
    hook = perceptual.network.register_forward_hook(lambda *_: calls.append(1))
    loss = losses.reconstruction(perceptual, subject())
    for _ in range(3):
        loss(draw(latent(), 64), step(latent()))
    hook.remove()
    assert len(calls) == 4


def test_a_flat_background_stands_in_for_the_photos_own() -> None:
    known = subject()
    assert known.image is not None
    hard = replace(known, mask=(torch.arange(256) < 128).float().expand(1, 1, 1, 256, 256))
    image, mask = losses.photo(hard, "white")
    assert mask is not None
    assert torch.equal(image[..., :128], known.image[:, 0, :, :, :128])
    assert torch.equal(image[..., 128:], torch.ones_like(image[..., 128:]))
    assert torch.equal(losses.photo(hard, "black")[0][..., 128:], -torch.ones_like(image[..., 128:]))
    assert torch.equal(losses.photo(hard)[0], known.image[:, 0])


def test_outside_the_mask_differences_count_less(perceptual: Perceptual) -> None:
    known = replace(subject(), mask=torch.zeros(1, 1, 1, 256, 256))
    nothing = losses.reconstruction(perceptual, known, outside=0.0)(draw(latent(), 128), step(latent()))
    half = losses.reconstruction(perceptual, known, outside=0.5)(draw(latent(), 128), step(latent()))
    whole = losses.reconstruction(perceptual, known)(draw(latent(), 128), step(latent()))
    assert float(nothing.value) == 0.0
    assert half.metrics["pixel"] == pytest.approx(whole.metrics["pixel"] / 4, rel=1e-4)


def test_what_is_spared_is_not_compared(perceptual: Perceptual) -> None:
    half = (torch.arange(64) < 32).float().expand(1, 1, 64, 64)
    loss = losses.reconstruction(perceptual, subject(), spared=half)
    picture = draw(latent(), 256).image.detach().requires_grad_()
    loss(replace(draw(latent(), 256), image=picture), step(latent())).value.sum().backward()
    assert picture.grad is not None
    assert float(picture.grad[..., :120].abs().max()) < 1e-6 < float(picture.grad[..., 140:].abs().max())
    all_of_it = losses.reconstruction(perceptual, subject(), spared=torch.ones(1, 1, 8, 8))
    assert float(all_of_it(draw(latent(), 128), step(latent())).value) == 0.0
    told: list[torch.Tensor | None] = [None]
    later = losses.reconstruction(perceptual, subject(), spared=lambda: told[0])
    whole = losses.reconstruction(perceptual, subject())
    assert torch.equal(later(draw(latent(), 128), step(latent())).value, whole(draw(latent(), 128), step(latent())).value)
    told[0] = torch.ones(1, 1, 8, 8)
    assert float(later(draw(latent(), 128), step(latent())).value) == 0.0


def test_values_are_means_over_views_and_stand_apart_for_subjects(perceptual: Perceptual) -> None:
    loss = losses.reconstruction(perceptual, subject())
    one = loss(draw(latent(), 64), step(latent())).value
    assert torch.allclose(loss(draw(latent(), 64, views=3), step(latent())).value, one, rtol=1e-5)
    other = latent(5)
    pair = Latent(torch.cat([latent().w, other.w]))
    person = subject()
    assert person.image is not None
    two = Subject(person.view, person.image.expand(2, -1, -1, -1, -1))
    both = losses.reconstruction(perceptual, two)(draw(pair, 64), step(pair)).value
    single = losses.reconstruction(perceptual, replace(person, mask=None))
    assert torch.allclose(both, torch.cat([one, single(draw(other, 64), step(other)).value]), rtol=1e-4)


def test_what_a_loss_lacks_is_said(perceptual: Perceptual) -> None:
    bare = Subject(subject().view)
    with pytest.raises(Unsupported, match="photo"):
        losses.reconstruction(perceptual, bare)
    with pytest.raises(Unsupported, match="mask of the photo"):
        losses.silhouette(bare)
    with pytest.raises(Unsupported, match="renderings with a mask"):
        losses.silhouette(subject())(replace(draw(latent(), 64), mask=None), step(latent()))
    with pytest.raises(ValueError, match="against"):
        losses.locality()(draw(latent(), 64), step(latent()))


def test_silhouette_agrees_with_itself() -> None:
    assert float(losses.silhouette(subject(0))(draw(latent(), 256), step(latent())).value) < 1e-10
    assert float(losses.silhouette(subject(1))(draw(latent(), 64), step(latent())).value) > 0.01


def test_latent_prior_is_in_units_of_the_deviation() -> None:
    deviation = torch.tensor([1.0, 2.0, 4.0, 1.0, 2.0, 4.0])
    start = latent(2)
    moved = start.with_w(start.w + 3 * deviation)
    assert float(losses.latent_prior(deviation)(None, step(moved)).value) == pytest.approx(9.0, rel=1e-5)
    assert float(losses.latent_prior(deviation, moved)(None, step(moved)).value) == 0.0
    with pytest.raises(ValueError, match="began"):
        losses.latent_prior(deviation)(None, replace(step(moved), origin=None))


def test_along_axes_leaving_w_costs_more_than_moving_within_it() -> None:
    axes = torch.diag(torch.tensor([1.0, 1.0, 1.0, 0.1, 0.0]))
    prior = losses.latent_prior(torch.tensor([1.0, 1.0, 1.0, 0.1, 0.1]), axes=axes)
    origin = Latent(torch.zeros(1, 1, 5))

    def cost(dimension: int) -> float:
        moved = Latent(torch.eye(5)[dimension].view(1, 1, 5))
        return float(prior(None, replace(step(moved), origin=origin)).value)

    assert cost(0) == pytest.approx(cost(2))
    assert cost(3) > 10 * cost(0)


def test_latent_prior_bears_a_dimension_without_deviation() -> None:
    deviation = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 0.0])
    value = losses.latent_prior(deviation)(None, step(latent())).value
    assert bool(torch.isfinite(value).all())


def test_noise_regularity_equals_the_golden_number_and_gradients() -> None:
    maps = {size: torch.from_numpy(values(f"noise.{size}", (size, size))).requires_grad_() for size in (4, 8, 16, 32, 64)}
    of = Latent(torch.zeros(1, 1, 1, dtype=torch.float64), {str(size): noise for size, noise in maps.items()})
    value = losses.noise_regularity()(None, step(of)).value
    assert float(value.detach()) == pytest.approx(GOLDEN["noise_reg_recipe_buffers_4_8_16_32_64_f64"], rel=1e-9)
    value.sum().backward()
    for size, noise in maps.items():
        assert noise.grad is not None
        assert float(noise.grad.norm()) == pytest.approx(GOLDEN["noise_reg_grad_norms"][str(size)], rel=1e-9)


def test_noise_is_shared_so_its_regularity_counts_once() -> None:
    noise = {"a": torch.from_numpy(values("noise.16", (16, 16)))}
    one = losses.noise_regularity()(None, step(Latent(torch.zeros(1, 1, 1), noise))).value.sum()
    two = losses.noise_regularity()(None, step(Latent(torch.zeros(2, 1, 1), noise))).value
    assert two.shape == (2,)
    assert torch.allclose(two.sum(), one)


def test_locality_keeps_depth_only_where_the_subject_is() -> None:
    here, kept = draw(latent(), 64), draw(latent(3), 64)
    assert kept.mask is not None
    loss = losses.locality(pixels=0.0)
    known = replace(step(latent()), reference=kept)
    assert float(loss(here, known).value) > 0
    empty = replace(known, reference=replace(kept, mask=torch.zeros_like(kept.mask)))
    assert float(loss(here, empty).value) == 0.0
    flat = replace(known, reference=replace(kept, depth=None))
    assert float(loss(here, flat).value) == 0.0


def test_locality_gives_the_reference_no_gradient(perceptual: Perceptual) -> None:
    reference = latent(3)
    reference.w.requires_grad_()
    assert float(gradient(losses.locality(perceptual), 64, reference=reference).norm()) > 0
    assert reference.w.grad is None


@pytest.mark.parametrize(
    ("key", "base", "total"), [("lr_w_1000", 0.01, 1000), ("lr_w_500", 0.01, 500), ("lr_pti_400", 3e-4, 400)]
)
def test_learning_rates_follow_the_official_schedule(key: str, base: float, total: int) -> None:
    for index, expected in GOLDEN[key].items():
        assert Ramp(base, rise=0.05, fall=0.25)(int(index) / total) == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_noise_on_w_follows_the_official_schedule() -> None:
    for index, expected in GOLDEN["w_noise_scale_over_w_std_1000"].items():
        assert Fade(0.05, 0.75, 2)(int(index) / 1000) == pytest.approx(expected, rel=1e-6, abs=1e-12)
