"""The contract of relighters."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from facednerf_core import light
from facednerf_core.scene import Latent, Rendering, Scene
from facednerf_core.terms import Step
from facednerf_core.testing.probes import agree, pictures, seeded
from facednerf_core.testing.verdicts import LossContract
from facednerf_core.views import Orbit

if TYPE_CHECKING:
    from facednerf_core.interfaces import Relighter
    from facednerf_core.scene import Subject
    from facednerf_core.terms import LossFn

SIDES = ((0.0, 0.0), (0.5, 0.1), (-0.4, -0.2))  # (yaw, pitch) of the cameras that a light of the world is seen by, radians


class RelighterContract(LossContract):
    """What every relighter keeps: besides the contract of a loss, each picture alone, lights that matter, and lights that
    belong to the world, whichever camera looks."""

    tolerance = 1e-4  # of pixels and losses, where a batch may be summed in another order

    @abstractmethod
    def make(self) -> Relighter:
        """The relighter to be tested, on the CPU."""

    def aimed(self, subject: Subject) -> LossFn:
        return self.make().aim(light.named("left"))

    def value(self, loss: LossFn, image: Tensor, *angles: tuple[float, float]) -> Tensor:
        """What a loss (N,) says of images (N, V, 3, H, W), seen from V (yaw, pitch)."""
        view = Orbit().view(*angles, subjects=image.shape[0])
        step = Step(3, 10, seeded(0), Latent(torch.zeros(image.shape[0], 1, 4)))
        with torch.no_grad():
            return loss(Rendering(Scene(), view, image), step).value

    def test_estimates_and_relit_images_have_their_shapes(self) -> None:
        relighter, image = self.make(), pictures(2, 3, self.size)
        with torch.no_grad():
            found, relit = relighter.estimate(image), relighter.relight(image, light.named("top").expand(2, 3, 9))
        assert found.shape == (2, 3, 9), f"a light is (N, V, 9) = (2, 3, 9), not {tuple(found.shape)}"
        assert relit.shape == image.shape, f"a relit image keeps its shape {tuple(image.shape)}, not {tuple(relit.shape)}"
        for name, value in {"an estimate": found, "a relit image": relit}.items():
            assert value.dtype == torch.float32 and value.isfinite().all(), f"{name} is float32 and finite"

    def test_pictures_do_not_touch(self) -> None:
        relighter, image = self.make(), pictures(2, 2, self.size)
        lights = torch.stack([light.named("left"), light.named("right")]).expand(2, 2, 9)
        with torch.no_grad():
            both, alone = relighter.estimate(image), relighter.estimate(image[1:, 1:])
            drawn, single = relighter.relight(image, lights), relighter.relight(image[1:, 1:], lights[1:, 1:])
        assert agree(both[1:, 1:], alone, self.tolerance), "an estimate does not depend on other pictures of its call"
        assert agree(drawn[1:, 1:], single, self.tolerance), "nor does a relit picture"
        assert not agree(both[:1], both[1:], 1e-6), "two pictures show two lights"

    def test_neither_draws_from_the_global_generator_nor_changes_the_picture(self) -> None:
        relighter, image, state = self.make(), pictures(1, 1, self.size), torch.get_rng_state()
        kept, wanted = image.clone(), light.named("top")[None, None]
        with torch.no_grad():
            pairs = [(relighter.estimate(image), relighter.relight(image, wanted)) for _ in range(2)]
        assert torch.equal(image, kept), "the picture given is left as it is"
        assert all(torch.equal(one, other) for one, other in zip(*pairs, strict=True)), "the same picture, the same answer"
        assert torch.equal(state, torch.get_rng_state()), "a relighter must not draw from torch's global generator"

    def test_the_light_matters(self) -> None:
        relighter, image = self.make(), pictures(1, 1, self.size)
        lights = [light.named(name) for name in ("left", "right")]
        with torch.no_grad():
            left, right = (relighter.relight(image, each[None, None]) for each in lights)
        assert not agree(left, right, 1e-4), "another light draws another picture"
        one, other = (self.value(relighter.aim(each), image, SIDES[0]) for each in lights)
        assert not agree(one, other, 1e-6), "another light is another goal"

    def test_the_light_that_a_picture_shows_is_the_nearest(self) -> None:
        relighter, image = self.make(), pictures(1, 1, self.size)
        with torch.no_grad():
            shown = relighter.estimate(image)[0, 0]
        for side in SIDES:
            camera = Orbit().camera(*side)
            own = self.value(relighter.aim(light.in_world(shown, camera)), image, side)
            for name in ("left", "right", "top", "back"):
                other = self.value(relighter.aim(light.named(name)), image, side)
                assert (own < other).all(), f"what is estimated is nearer than the light {name!r}, seen from {side}"

    def test_the_light_belongs_to_the_world(self) -> None:
        relighter, image = self.make(), pictures(1, 1, self.size)
        for name in ("left", "top"):
            world = light.named(name)
            for side in SIDES[1:]:
                turned = self.value(relighter.aim(world), image, side)
                seen = self.value(relighter.aim(light.in_camera(world, Orbit().camera(*side))), image, SIDES[0])
                assert agree(turned, seen, self.tolerance), (
                    f"from {side} the light {name!r} of the world is judged as the camera there sees it (light.in_camera)"
                )
