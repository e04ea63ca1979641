"""The contract of generators."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import torch

from facednerf_core.errors import Unsupported
from facednerf_core.scene import Latent, Rendering, Scene
from facednerf_core.testing.probes import ANGLES, agree, pictures, seeded
from facednerf_core.views import View

if TYPE_CHECKING:
    from facednerf_core.interfaces import Generator


class GeneratorContract(ABC):
    """What every generator keeps: shapes, ranges, determinism, independence of subjects, gradients, a frozen base."""

    tolerance = 1e-4  # of pixels, where a batch may be summed in another order
    nominal = 0.9  # the part of the mean's pixels that must lie within [-1.5, 1.5]

    @abstractmethod
    def make(self) -> Generator:
        """The generator to be tested, on the CPU."""

    def view(self, generator: Generator, subjects: int, *angles: tuple[float, float]) -> View:
        """Views of the contract; override it where the generator needs a pose."""
        return generator.orbit.view(*angles, subjects=subjects)

    def latents(self, generator: Generator, count: int) -> Latent:
        """Different latents (N, L, C) with one set of noise maps."""
        drawn = [generator.sample(seeded(10 + index)) for index in range(count)]
        return drawn[0].with_w(torch.cat([each.w for each in drawn]))

    def shot(self, generator: Generator, latent: Latent, *angles: tuple[float, float], **how: Any) -> Rendering:
        """The latent seen from these angles; `jitter` is a sequence of seeds, None for none."""
        jitter = how.pop("jitter", None)
        scene = generator.synthesize(latent)
        view = how.pop("view", None) or self.view(generator, latent.w.shape[0], *angles)
        return generator.render(scene, view, jitter=None if jitter is None else [seeded(seed) for seed in jitter], **how)

    def test_mean_and_deviation_have_the_shapes_of_the_latent(self) -> None:
        generator = self.make()
        mean, deviation = generator.mean().w, generator.deviation()
        assert mean.ndim == 3 and mean.shape[0] == 1, f"the mean latent is (1, L, C), not {tuple(mean.shape)}"
        assert deviation.shape == mean.shape[-1:], f"the deviation is (C,), not {tuple(deviation.shape)}"
        assert mean.isfinite().all() and (deviation > 0).all(), "the mean is finite, the deviation positive"
        axes, width = generator.axes(), mean.shape[-1]
        assert axes.shape == (width, width) and axes.isfinite().all(), f"the axes are (C, C), not {tuple(axes.shape)}"
        assert bool((axes != 0).any()), "the axes are not all nothing: w could not move along them"

    def test_samples_depend_on_their_rng_alone(self) -> None:
        generator = self.make()
        state = torch.get_rng_state()
        one, same, other = (generator.sample(seeded(seed)).w for seed in (1, 1, 2))
        assert one.shape == generator.mean().w.shape, "a sample has the mean's shape (1, L, C)"
        assert torch.equal(one, same), "the same rng gives the same sample"
        assert not torch.equal(one, other), "another rng gives another sample"
        assert torch.equal(state, torch.get_rng_state()), "sampling must not draw from torch's global generator"

    def test_truncation_pulls_to_the_mean(self) -> None:
        generator = self.make()
        near, far = (generator.sample(seeded(1), truncation).w - generator.mean().w for truncation in (0.0, 1.0))
        assert near.abs().max() < 1e-5, "truncation 0 is the mean itself"
        assert far.abs().max() > 1e-3, "truncation 1 is not"

    def test_images_have_their_shape_size_and_range(self) -> None:
        generator = self.make()
        with torch.no_grad():
            shot = self.shot(generator, self.latents(generator, 2), *ANGLES, (0.0, 0.0))
            mean = self.shot(generator, generator.mean(), (0.0, 0.0)).image
        expected = (2, 3, 3, *generator.size)
        assert shot.image.shape == expected, f"the image is (N, V, 3, H, W) = {expected}, not {tuple(shot.image.shape)}"
        assert shot.image.dtype == torch.float32, f"the image is float32, not {shot.image.dtype}"
        assert shot.image.isfinite().all(), "the image is finite"
        assert (mean.abs() <= 1.5).float().mean() >= self.nominal, "images are nominally within [-1, 1]"

    def test_what_comes_with_an_image_has_its_shape_and_range(self) -> None:
        generator = self.make()
        with torch.no_grad():
            latent = self.latents(generator, 2)
            scene, view = generator.synthesize(latent), self.view(generator, 2, *ANGLES)
            shot = generator.render(scene, view, jitter=None)
        assert isinstance(scene, Scene), "a scene is a facednerf_core.scene.Scene"
        assert shot.scene is scene and shot.view is view, "a rendering names its scene and its view"
        for name in ("depth", "mask"):
            value = getattr(shot, name)
            if value is not None:
                assert value.ndim == 5 and value.shape[:3] == (2, 2, 1), f"{name} is (N, V, 1, h, w)"
                assert value.isfinite().all() and (value >= 0).all(), f"{name} is finite and not negative"
        if shot.mask is not None:
            assert (shot.mask <= 1 + 1e-5).all(), "the mask is within [0, 1]"
        if shot.landmarks is not None:
            assert shot.landmarks.shape[:2] == (2, 2) and shot.landmarks.shape[-1] == 2, "landmarks are (N, V, K, 2)"

    def test_size_is_the_height_of_the_image(self) -> None:
        generator = self.make()
        height, width = (max(8, side // 2) for side in generator.size)
        with torch.no_grad():
            image = self.shot(generator, generator.mean(), ANGLES[0], size=height).image
        assert image.shape[-2] == height, f"size={height} asks for that height, not {image.shape[-2]}"
        assert image.shape[-1] == round(height * generator.size[1] / generator.size[0]) or image.shape[-1] == width

    def test_renderings_depend_on_their_jitter_alone(self) -> None:
        generator = self.make()
        latent, state = generator.mean(), torch.get_rng_state()
        with torch.no_grad():
            pairs = [
                [self.shot(generator, latent, ANGLES[0], jitter=jitter).image for _ in range(2)] for jitter in ([3], None)
            ]
        assert all(torch.equal(*pair) for pair in pairs), "the same jitter, or none, gives the same picture, bit for bit"
        assert torch.equal(state, torch.get_rng_state()), "rendering must not draw from torch's global generator"

    def test_views_matter(self) -> None:
        generator = self.make()
        with torch.no_grad():
            image = self.shot(generator, generator.mean(), (-0.4, 0.0), (0.3, 0.1)).image
        assert not agree(image[:, 0], image[:, 1], 1e-3), "two cameras see two pictures"

    def test_subjects_do_not_touch_each_other(self) -> None:
        generator = self.make()
        latent = self.latents(generator, 2)
        with torch.no_grad():
            both = self.shot(generator, latent, *ANGLES, jitter=(1, 2)).image
            alone = self.shot(generator, latent.with_w(latent.w[:1]), *ANGLES, jitter=(1, 2)).image
        assert agree(both[:1], alone, self.tolerance), "subject 0 looks the same with and without a subject 1"
        assert not agree(both[:1], both[1:], 1e-3), "two latents are two pictures"

    def test_views_in_one_call_equal_views_one_by_one(self) -> None:
        generator = self.make()
        latent = self.latents(generator, 2)
        with torch.no_grad():
            together = self.shot(generator, latent, *ANGLES, jitter=(1, 2)).image
            single = [self.shot(generator, latent, ANGLES[i], jitter=(1 + i,)).image for i in range(2)]
        assert agree(together, torch.cat(single, dim=1), self.tolerance), "a view does not depend on the others of its call"

    def test_gradients_reach_latent_and_camera_and_no_parameter(self) -> None:
        generator = self.make()
        w = generator.mean().w.clone().requires_grad_()
        view = self.view(generator, 1, ANGLES[0])
        view = View(view.camera.clone().requires_grad_(), view.pose)
        image = self.shot(generator, generator.mean().with_w(w), view=view).image
        assert image.requires_grad, "the gradient reaches the latent"
        (image * pictures(1, 1, (image.shape[-2], image.shape[-1]))).sum().backward()
        for name, leaf in {"latent": w, "camera": view.camera}.items():
            assert leaf.grad is not None and leaf.grad.isfinite().all(), f"the gradient reaches the {name} and is finite"
            assert leaf.grad.abs().max() > 0, f"the gradient of the {name} is not zero"
        frozen = all(parameter.grad is None for parameter in generator.tunable().values())
        assert frozen, "the generator is frozen: parameters gather no gradient"

    def test_tuned_is_another_generator_and_the_base_stays(self) -> None:
        generator = self.make()
        assert generator.tunable(), "pivotal tuning needs something to move"
        before = {name: value.detach().clone() for name, value in generator.tunable().items()}
        moved = {name: (value * 1.1 + 0.01).requires_grad_() for name, value in before.items()}
        mean = generator.mean()
        with torch.no_grad():
            first = self.shot(generator, mean, ANGLES[0]).image
            equal = self.shot(generator.tuned({}), mean, ANGLES[0]).image
        image = self.shot(generator.tuned(moved), mean, ANGLES[0]).image
        assert image.requires_grad, "the gradient reaches tuned tensors"
        image.square().sum().backward()
        with torch.no_grad():
            again = self.shot(generator, mean, ANGLES[0]).image
        assert torch.equal(first, equal), "tuned with nothing draws as the base"
        assert not agree(first, image, 1e-4), "tuned tensors are used"
        assert torch.equal(first, again), "the base draws as before"
        assert all(torch.equal(value, before[name]) for name, value in generator.tunable().items()), (
            "the base is never changed"
        )
        reached = [name for name, value in moved.items() if value.grad is not None and value.grad.abs().max() > 0]
        assert reached, "the gradient reaches tuned tensors"

    def test_density_is_not_negative_or_unsupported(self) -> None:
        generator = self.make()
        points = torch.rand(1, 7, 3, generator=seeded(0)) - 0.5
        try:
            with torch.no_grad():
                scene = generator.synthesize(generator.mean())
                density = generator.density(scene, points, self.view(generator, 1, ANGLES[0]))
        except Unsupported:
            return
        assert density.shape == (1, 7), f"density is (N, P), not {tuple(density.shape)}"
        assert density.isfinite().all() and (density >= 0).all(), "density is finite and not negative"
