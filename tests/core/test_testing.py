"""Contracts pass what keeps them and fail what does not, each for its own reason."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from facednerf_core.interfaces import Detector as DetectorInterface
from facednerf_core.interfaces import Face, Guidance, Identity, Inverter, Relighter
from facednerf_core.light import in_camera
from facednerf_core.terms import Loss, Stage
from facednerf_core.testing import (
    DetectorContract,
    GeneratorContract,
    GuidanceContract,
    IdentityContract,
    InverterContract,
    RelighterContract,
)
from tests.toy import ToyGenerator


def failures(contract):
    """The names of the contract's tests that fail."""
    failed = set()
    for name in dir(contract):
        if name.startswith("test_"):
            try:
                getattr(contract, name)()
            except AssertionError:
                failed.add(name)
    return failed


def contract_for(family, thing, **others):
    """A contract whose `make` gives the thing."""
    return type("Probe", (family,), {"make": lambda self: thing(), **others})()


# Generators


class TestToy(GeneratorContract):
    def make(self):
        return ToyGenerator()


class WrongShape(ToyGenerator):
    def render(self, scene, view, *, jitter, size=None):
        shot = super().render(scene, view, jitter=jitter, size=size)
        return replace(shot, image=shot.image.flatten(0, 1))


class GlobalNoise(ToyGenerator):
    def render(self, scene, view, *, jitter, size=None):
        shot = super().render(scene, view, jitter=jitter, size=size)
        return replace(shot, image=shot.image + 0.01 * torch.randn(shot.image.shape))


class MixedSubjects(ToyGenerator):
    def render(self, scene, view, *, jitter, size=None):
        shot = super().render(scene, view, jitter=jitter, size=size)
        return replace(shot, image=shot.image - shot.image.mean(dim=0, keepdim=True) * 0.5)


class MixedViews(ToyGenerator):
    def render(self, scene, view, *, jitter, size=None):
        shot = super().render(scene, view, jitter=jitter, size=size)
        return replace(shot, image=shot.image - shot.image.mean(dim=1, keepdim=True) * 0.5)


class NoGradient(ToyGenerator):
    def render(self, scene, view, *, jitter, size=None):
        shot = super().render(scene, view, jitter=jitter, size=size)
        return replace(shot, image=shot.image.detach() + 0 * shot.image.sum())


class OneView(ToyGenerator):
    def render(self, scene, view, *, jitter, size=None):
        shot = super().render(scene, view, jitter=jitter, size=size)
        return replace(shot, image=shot.image[:, :1].expand_as(shot.image))


class IgnoresSize(ToyGenerator):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.size = (32, 32)


class MutatesBase(ToyGenerator):
    def tuned(self, tensors):
        if "basis" in tensors:
            self.basis = torch.nn.Parameter(tensors["basis"].detach(), requires_grad=False)
        return super().tuned(tensors)


class IgnoresTuning(ToyGenerator):
    def tuned(self, tensors):
        return ToyGenerator()


class Thaws(ToyGenerator):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.basis.requires_grad_()


class IgnoresTruncation(ToyGenerator):
    def sample(self, rng, truncation=0.7):
        return super().sample(rng)


class GlobalSample(ToyGenerator):
    def sample(self, rng, truncation=0.7):
        mean = self.mean()
        return mean.with_w(mean.w + truncation * torch.randn(mean.w.shape))


class NegativeDensity(ToyGenerator):
    def density(self, scene, points, view):
        return points.sum(dim=-1) - 9


class Loud(ToyGenerator):
    def render(self, scene, view, *, jitter, size=None):
        shot = super().render(scene, view, jitter=jitter, size=size)
        return replace(shot, image=(shot.image + 1) * 127.5)


class WildMask(ToyGenerator):
    def render(self, scene, view, *, jitter, size=None):
        shot = super().render(scene, view, jitter=jitter, size=size)
        return replace(shot, mask=shot.mask * 255)


class FlatMean(ToyGenerator):
    def mean(self):
        mean = super().mean()
        return mean.with_w(mean.w[0])


@pytest.mark.parametrize(
    ("generator", "test"),
    [
        (WrongShape, "test_images_have_their_shape_size_and_range"),
        (Loud, "test_images_have_their_shape_size_and_range"),
        (WildMask, "test_what_comes_with_an_image_has_its_shape_and_range"),
        (GlobalNoise, "test_renderings_depend_on_their_jitter_alone"),
        (MixedSubjects, "test_subjects_do_not_touch_each_other"),
        (MixedViews, "test_views_in_one_call_equal_views_one_by_one"),
        (NoGradient, "test_gradients_reach_latent_and_camera_and_no_parameter"),
        (Thaws, "test_gradients_reach_latent_and_camera_and_no_parameter"),
        (OneView, "test_views_matter"),
        (IgnoresSize, "test_images_have_their_shape_size_and_range"),
        (MutatesBase, "test_tuned_is_another_generator_and_the_base_stays"),
        (IgnoresTuning, "test_tuned_is_another_generator_and_the_base_stays"),
        (IgnoresTruncation, "test_truncation_pulls_to_the_mean"),
        (GlobalSample, "test_samples_depend_on_their_rng_alone"),
        (NegativeDensity, "test_density_is_not_negative_or_unsupported"),
        (FlatMean, "test_mean_and_deviation_have_the_shapes_of_the_latent"),
    ],
)
def test_a_generator_that_breaks_its_contract_fails(generator, test):
    with pytest.raises(AssertionError):
        getattr(contract_for(GeneratorContract, generator), test)()


# Guidances


class Tint(Guidance):
    """Pulls pictures to a colour that is drawn from the sentence; learns how often it was asked."""

    def __init__(self):
        self.asked = torch.zeros(())

    def aim(self, prompt, subject, *, source_prompt=None, negative=""):
        colour = torch.rand(3, generator=torch.Generator().manual_seed(len(prompt)))[:, None, None]

        def loss(rendering, step):
            self.asked = self.asked + 1
            noise = torch.randn(3, 1, 1, generator=step.rng) * 0.1 * self.asked
            return Loss((rendering.image - colour - noise).square().mean(dim=(1, 2, 3, 4)))

        return loss

    def state(self):
        return {"asked": self.asked}

    def load_state(self, state):
        self.asked = state["asked"]


class Steady(Tint):
    """The same without learning, so that two verdicts in a row are equal."""

    def aim(self, prompt, subject, *, source_prompt=None, negative=""):
        inner = super().aim(prompt, subject)

        def loss(rendering, step):
            self.asked = torch.zeros(())
            return inner(rendering, step)

        return loss


class TestTint(GuidanceContract):
    def make(self):
        return Steady()


class Deaf(Steady):
    def aim(self, prompt, subject, *, source_prompt=None, negative=""):
        return super().aim("same", subject)


class OneNumber(Steady):
    def aim(self, prompt, subject, *, source_prompt=None, negative=""):
        inner = super().aim(prompt, subject)
        return lambda rendering, step: Loss(inner(rendering, step).value.sum())


class Forgets(Tint):
    def load_state(self, state):
        return


class FirstViewOnly(Steady):
    def aim(self, prompt, subject, *, source_prompt=None, negative=""):
        inner = super().aim(prompt, subject)
        return lambda rendering, step: inner(rendering[:1], step)


class Entangled(Steady):
    def aim(self, prompt, subject, *, source_prompt=None, negative=""):
        inner = super().aim(prompt, subject)

        def loss(rendering, step):
            value = inner(rendering, step).value
            return Loss(value * value.sum())

        return loss


class Unseeded(Steady):
    def aim(self, prompt, subject, *, source_prompt=None, negative=""):
        return lambda rendering, step: Loss((rendering.image * torch.randn(1)).sum(dim=(1, 2, 3, 4)))


@pytest.mark.parametrize(
    ("guidance", "test"),
    [
        (Deaf, "test_the_sentence_matters"),
        (OneNumber, "test_subjects_are_judged_apart"),
        (Forgets, "test_its_state_comes_back"),
        (FirstViewOnly, "test_the_gradient_reaches_every_view"),
        (Entangled, "test_subjects_are_judged_apart"),
        (Unseeded, "test_a_verdict_depends_on_its_rng_alone"),
    ],
)
def test_a_guidance_that_breaks_its_contract_fails(guidance, test):
    assert test in failures(contract_for(GuidanceContract, guidance))


def test_a_guidance_that_learns_goes_on_from_its_state():
    assert "test_its_state_comes_back" not in failures(contract_for(GuidanceContract, Tint))


# Identities


class Thumbnail(Identity):
    """The picture, shrunk, as a unit vector."""

    def embed(self, image, landmarks=None):
        small = torch.nn.functional.adaptive_avg_pool2d(image.flatten(0, 1), 4).flatten(1)
        return torch.nn.functional.normalize(small, dim=-1).unflatten(0, image.shape[:2])

    def aim(self, subject):
        target = self.embed(subject.image).detach()
        return lambda rendering, step: Loss((1 - (self.embed(rendering.image) * target).sum(dim=-1)).mean(dim=1))


class TestThumbnail(IdentityContract):
    def make(self):
        return Thumbnail()


class Long(Thumbnail):
    def embed(self, image, landmarks=None):
        return super().embed(image) * 2


class Centred(Thumbnail):
    def embed(self, image, landmarks=None):
        return super().embed(image - image.mean(dim=(0, 1), keepdim=True) * 0.5)


class Backwards(Thumbnail):
    def aim(self, subject):
        inner = super().aim(subject)
        return lambda rendering, step: Loss(-inner(rendering, step).value)


@pytest.mark.parametrize(
    ("identity", "test"),
    [
        (Long, "test_embeddings_are_unit_vectors"),
        (Centred, "test_an_embedding_is_of_one_picture"),
        (Backwards, "test_the_photo_itself_is_nearest"),
    ],
)
def test_an_identity_that_breaks_its_contract_fails(identity, test):
    assert test in failures(contract_for(IdentityContract, identity))


# Relighters


class Shades(Relighter):
    """Reads a light from nine patches of the picture, and draws one by making it brighter or darker across."""

    def estimate(self, image):
        return (
            torch.nn.functional.adaptive_avg_pool2d(image.mean(dim=2).flatten(0, 1), 3)
            .flatten(1)
            .unflatten(0, image.shape[:2])
        )

    def relight(self, image, sh):
        across = torch.linspace(-1, 1, image.shape[-1])
        return image + sh[..., :1, None, None] - 0.5 + sh[..., 3:4, None, None] * across

    def goal(self, world, rendering):
        return in_camera(world, rendering.view.camera.detach())

    def aim(self, light):
        def loss(rendering, step):
            found = self.estimate(rendering.image)
            return Loss((found - self.goal(light, rendering)).square().sum(dim=2).mean(dim=1))

        return loss


class TestShades(RelighterContract):
    def make(self):
        return Shades()


class FlatLights(Shades):
    def estimate(self, image):
        return super().estimate(image).flatten(0, 1)


class Averaging(Shades):
    def estimate(self, image):
        return super().estimate(image - 0.5 * image.mean(dim=(0, 1), keepdim=True))


class Unlit(Shades):
    def relight(self, image, sh):
        return image * 1.0


class Flickering(Shades):
    def relight(self, image, sh):
        return super().relight(image, sh) + 0.01 * torch.randn(image.shape)


class InPlace(Shades):
    def relight(self, image, sh):
        return image.mul_(sh[..., :1, None, None])


class OfTheCamera(Shades):
    def goal(self, world, rendering):
        return world


class Away(Shades):
    def aim(self, light):
        inner = super().aim(light)
        return lambda rendering, step: Loss(-inner(rendering, step).value)


class LastViewOnly(Shades):
    def aim(self, light):
        inner = super().aim(light)
        return lambda rendering, step: inner(rendering[-1:], step)


@pytest.mark.parametrize(
    ("relighter", "test"),
    [
        (FlatLights, "test_estimates_and_relit_images_have_their_shapes"),
        (Averaging, "test_pictures_do_not_touch"),
        (Unlit, "test_the_light_matters"),
        (Flickering, "test_neither_draws_from_the_global_generator_nor_changes_the_picture"),
        (InPlace, "test_neither_draws_from_the_global_generator_nor_changes_the_picture"),
        (OfTheCamera, "test_the_light_belongs_to_the_world"),
        (Away, "test_the_light_that_a_picture_shows_is_the_nearest"),
        (LastViewOnly, "test_the_gradient_reaches_every_view"),
    ],
)
def test_a_relighter_that_breaks_its_contract_fails(relighter, test):
    with pytest.raises(AssertionError):
        getattr(contract_for(RelighterContract, relighter), test)()


# Inverters


class Search(Inverter):
    """One stage from the mean."""

    def begin(self, generator, subject, rng):
        mean = generator.mean()
        return mean.with_w(mean.w.expand(subject.view.camera.shape[0], -1, -1).clone())

    def stages(self, recipe, terms):
        chosen = [terms[name] for name in ("reconstruction", "latent") if name in terms]
        return [Stage("w", frozenset({"latent"}), chosen, recipe.steps.get("w", 50), {"latent": 0.1})]


class TestSearch(InverterContract):
    def make(self):
        return Search()

    def generator(self):
        return ToyGenerator()


class OneLatent(Search):
    def begin(self, generator, subject, rng):
        return generator.mean()


class OwnSteps(Search):
    def stages(self, recipe, terms):
        return super().stages(recipe.changed(steps={}), terms)


class NoRate(Search):
    def stages(self, recipe, terms):
        return [replace(stage, solve_for=frozenset({"latent", "camera"})) for stage in super().stages(recipe, terms)]


class OwnLoss(Search):
    def stages(self, recipe, terms):
        own = replace(terms["reconstruction"], loss=lambda rendering, step: Loss(torch.zeros(1)))
        return [replace(stage, terms=[own]) for stage in super().stages(recipe, terms)]


class Demands(Search):
    def stages(self, recipe, terms):
        return [replace(stage, terms=[terms["identity"]]) for stage in super().stages(recipe, terms)]


@pytest.mark.parametrize(
    ("inverter", "test"),
    [
        (OneLatent, "test_it_begins_with_one_latent_for_each_subject"),
        (OwnSteps, "test_the_user_sets_the_steps"),
        (OwnLoss, "test_stages_have_names_and_terms_that_were_offered"),
        (NoRate, "test_stages_say_how_fast_each_variable_moves"),
        (Demands, "test_a_term_that_is_not_offered_is_not_needed"),
    ],
)
def test_an_inverter_that_breaks_its_contract_fails(inverter, test):
    contract = contract_for(InverterContract, inverter, generator=lambda self: ToyGenerator())
    with pytest.raises((AssertionError, KeyError)):
        getattr(contract, test)()


# Detectors


class Cascade(DetectorInterface):
    """Scikit-image's cascade, with landmarks where they usually are."""

    def find(self, photo):
        from skimage.data import lbp_frontal_face_cascade_filename
        from skimage.feature import Cascade as Trained

        trained = Trained(lbp_frontal_face_cascade_filename())
        hits = trained.detect_multi_scale(photo, 1.2, 1, min_size=(30, 30), max_size=(300, 300))
        faces = []
        for hit in hits:
            left, top, width, height = (float(hit[key]) for key in ("c", "r", "width", "height"))
            points = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])
            faces.append(Face((left, top, left + width, top + height), points * (width, height) + (left, top)))
        return sorted(faces, key=lambda face: -face.area)


class TestCascade(DetectorContract):
    def make(self):
        return Cascade()


class Scaled(Cascade):
    def find(self, photo):
        return [replace(f, box=tuple(v / photo.shape[1] for v in f.box)) for f in super().find(photo)]


class Mirrored(Cascade):
    def find(self, photo):
        return [replace(f, landmarks=f.landmarks[[1, 0, 2, 4, 3]]) for f in super().find(photo)]


class Everywhere(Cascade):
    def find(self, photo):
        return super().find(photo) or [Face((0.0, 0.0, 9.0, 9.0))]


class Scribbles(Cascade):
    def find(self, photo):
        faces = super().find(photo)
        photo[0, 0] = 255 - photo[0, 0]
        return faces


class SmallestFirst(Cascade):
    def find(self, photo):
        return super().find(photo)[::-1]


class CropMask(Cascade):
    def find(self, photo):
        return [replace(f, mask=np.ones((9, 9), np.float32)) for f in super().find(photo)]


@pytest.mark.parametrize(
    ("detector", "test"),
    [
        (Scaled, "test_the_face_is_where_it_is"),
        (Mirrored, "test_landmarks_pose_and_mask_have_their_shapes"),
        (CropMask, "test_landmarks_pose_and_mask_have_their_shapes"),
        (Everywhere, "test_where_there_is_no_face_none_is_found"),
        (Scribbles, "test_the_photo_is_left_as_it_is_and_found_the_same_again"),
        (SmallestFirst, "test_the_largest_comes_first"),
    ],
)
def test_a_detector_that_breaks_its_contract_fails(detector, test):
    with pytest.raises(AssertionError):
        getattr(contract_for(DetectorContract, detector), test)()
