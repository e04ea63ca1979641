"""The loop: what a step costs, what it may depend on, and that it can be stopped anywhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import islice

import pytest
import torch

from facednerf_core.errors import Diverged
from facednerf_core.loop import Problem, State, optimize
from facednerf_core.scene import Rendering
from facednerf_core.terms import Constant, Fade, Loss, Ramp, Stage, Step, Term
from facednerf_core.views import Anywhere, Fixed, Nearby, angles
from tests.toy import ToyGenerator


def towards(value: float) -> Callable[[Rendering | None, Step], Loss]:
    def loss(rendering: Rendering | None, step: Step) -> Loss:
        assert rendering is not None
        return Loss((rendering.image.mean(dim=(1, 2, 3, 4)) - value).square(), {"progress": step.progress})

    return loss


def small(rendering: Rendering | None, step: Step) -> Loss:
    return Loss(step.latent.w.square().mean(dim=(1, 2)))


def unlike(rendering: Rendering | None, step: Step) -> Loss:
    assert rendering is not None
    assert step.reference is not None
    assert not step.reference.image.requires_grad
    return Loss((rendering.image - step.reference.image).square().mean(dim=(1, 2, 3, 4)))


def stage(name: str = "edit", solve_for: tuple[str, ...] = ("latent",), terms: list[Term] | None = None, **more) -> Stage:
    terms = terms or [Term("fit", Fixed(), towards(0.3)), Term("side", Nearby(), towards(0.2)), Term("prior", None, small)]
    lr = {"latent": 0.05, "noise": 0.01, "camera": 0.01, "weights": 0.01}
    return Stage(name, frozenset(solve_for), terms, **{"steps": 12, "lr": lr, "schedule": Constant(1.0), **more})


def problem(*stages: Stage, subjects: int = 1) -> Problem:
    generator = ToyGenerator()
    latent = generator.mean()
    latent = latent.with_w(latent.w.expand(subjects, -1, -1).clone())
    return Problem(generator, State.begin(latent, generator.orbit.view((0.1, 0.0), subjects=subjects)), stages, seed=3)


def flat(state: State) -> dict[str, torch.Tensor]:
    tensors = {"offset": state.offset, "increment": state.increment, "source": state.source.w}
    tensors |= {f"noise.{k}": v for k, v in state.noise.items()} | {f"weights.{k}": v for k, v in state.weights.items()}
    return tensors | {f"moments.{k}": v for k, v in state.moments.items()}


def assert_same(one: State, other: State) -> None:
    assert (one.stage, one.index) == (other.stage, other.index)
    first, second = flat(one), flat(other)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_losses_fall() -> None:
    events = list(optimize(problem(stage(terms=[Term("fit", Fixed(), towards(0.1))], steps=60))))
    assert events[-1].losses["fit"] < 0.01 * events[0].losses["fit"]


def test_four_terms_on_two_looks_cost_one_synthesis_and_one_render_call() -> None:
    four = [
        Term("a", Fixed(), towards(0.3)),
        Term("b", Fixed(), towards(0.1)),
        Term("c", Nearby(), towards(0.2)),
        Term("d", Nearby(), towards(0.4)),
    ]
    task = problem(stage(terms=four, steps=1))
    list(optimize(task))
    count = task.generator.count
    assert (count.synthesize, count.render, count.views) == (1, 1, [2])


def test_a_term_of_weight_zero_is_not_evaluated() -> None:
    def never(rendering: Rendering | None, step: Step) -> Loss:
        raise AssertionError("evaluated")

    off = [Term("off", Nearby(), never, Constant(0.0)), Term("out", Nearby(), never, Constant(2.0), scale=0.0)]
    task = problem(stage(terms=[Term("fit", Fixed(), towards(0.3)), *off], steps=2))
    assert set(list(optimize(task))[-1].losses) == {"fit"}
    assert task.generator.count.views == [1, 1]


def test_a_terms_scale_multiplies_what_the_stage_gives_it() -> None:
    fit = Term("fit", Fixed(), towards(0.3), Ramp(2.0))
    scaled = Term("fit", Fixed(), towards(0.3), Ramp(1.0), scale=2.0)
    one, other = (list(optimize(problem(stage(terms=[term], steps=3)))) for term in (fit, scaled))
    assert [step.losses for step in one] == [step.losses for step in other]
    assert_same(one[-1].state, other[-1].state)


@pytest.mark.parametrize("stop", [1, 7, 12, 13, 20, 25])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(stop: int) -> None:
    every = ("latent", "noise", "camera")
    near = Term("near", Nearby(), unlike, against="nearby")
    stages = (
        stage("invert", every, wander=Fade(0.1), schedule=Ramp()),
        stage("tune", ("weights",), [Term("fit", Fixed(), towards(0.3)), near], steps=8),
        stage(
            "edit", terms=[Term("side", Nearby(), towards(0.2)), Term("keep", Fixed(), unlike, against="source")], steps=8
        ),
    )
    whole = list(optimize(problem(*stages)))[-1].state
    half = list(islice(optimize(problem(*stages)), stop))[-1].state
    assert_same(whole, list(optimize(problem(*stages), half))[-1].state)


def test_adding_a_term_changes_nothing_that_the_others_draw() -> None:
    seen: list[torch.Tensor] = []

    def look(rendering: Rendering | None, step: Step) -> Loss:
        assert rendering is not None
        seen.append(torch.cat([rendering.view.camera.flatten(), torch.rand(2, generator=step.rng)]))
        return Loss(rendering.image.mean(dim=(1, 2, 3, 4)))

    first = Term("sds", Nearby(), look)
    list(optimize(problem(stage(terms=[first], steps=2))))
    list(optimize(problem(stage(terms=[Term("new", Fixed(), towards(0.1)), first], steps=2))))
    assert torch.equal(seen[0], seen[2])
    assert torch.equal(seen[1], seen[3])


def test_subjects_do_not_mix() -> None:
    terms = [Term("fit", Fixed(), towards(0.3)), Term("prior", None, small)]
    one = list(optimize(problem(stage(terms=terms))))[-1].state
    two = list(optimize(problem(stage(terms=terms), subjects=2)))[-1].state
    torch.testing.assert_close(two.offset[:1], one.offset)
    torch.testing.assert_close(two.offset[1:], one.offset)


def test_a_tied_stage_stays_in_w() -> None:
    offset = list(optimize(problem(stage(tied=True))))[-1].state.offset
    assert torch.equal(offset[:, 0], offset[:, 1])
    assert offset.abs().sum() > 0
    free = list(optimize(problem(stage())))[-1].state.offset
    assert not torch.equal(free[:, 0], free[:, 1])


def test_references_are_what_against_names() -> None:
    references: dict[str, torch.Tensor] = {}

    def note(name: str) -> Callable[[Rendering | None, Step], Loss]:
        def loss(rendering: Rendering | None, step: Step) -> Loss:
            assert rendering is not None
            assert step.reference is not None
            references[name] = (rendering.image - step.reference.image).detach().abs().amax()
            return Loss((rendering.image - 0.4).square().mean(dim=(1, 2, 3, 4)))

        return loss

    terms = [
        Term("source", Fixed(), note("source"), against="source"),
        Term("untuned", Fixed(), note("untuned"), against="untuned"),
    ]
    list(optimize(problem(stage(solve_for=("latent",), terms=terms, steps=3))))
    assert references["source"] > 1e-3  # the latent has moved away from where the stage began
    assert references["untuned"] == 0  # nothing was tuned
    list(optimize(problem(stage("tune", ("weights",), terms=terms, steps=3))))
    assert references["source"] == 0  # the latent stands still; today's weights on both sides
    assert references["untuned"] > 1e-3


def test_a_base_generator_is_never_changed_by_tuning() -> None:
    task = problem(stage("tune", ("weights",)))
    before = task.generator.basis.clone()
    after = list(optimize(task))[-1].state.weights["basis"]
    assert torch.equal(task.generator.basis, before)
    assert not torch.equal(after, before)


def test_views_beyond_what_a_term_sees_are_skipped() -> None:
    blind = Term("blind", Fixed(), towards(0.9), sees=0.05)  # the photo's camera stands at 0.1
    assert next(optimize(problem(stage(terms=[blind], steps=1)))).losses["blind"] == 0


def test_of_views_all_round_only_those_that_a_term_sees_are_judged() -> None:
    judged: list[float] = []

    def loss(rendering: Rendering | None, step: Step) -> Loss:
        assert rendering is not None
        assert step.reference is not None
        assert torch.equal(step.reference.view.camera, rendering.view.camera)
        judged.extend(angles(rendering.view.camera)[0][0].tolist())
        return Loss((rendering.image - 0.4).square().mean(dim=(1, 2, 3, 4)))

    term = Term("guidance", Anywhere(8), loss, sees=0.7, against="source")
    task = problem(stage(terms=[term], steps=4))
    task.generator.orbit = replace(task.generator.orbit, yaw=math.pi)
    list(optimize(task))
    assert 0 < len(judged) < 32
    assert max(map(abs, judged)) <= 0.7 + 1e-5


def test_a_value_that_is_not_finite_names_term_and_step() -> None:
    def broken(rendering: Rendering | None, step: Step) -> Loss:
        assert rendering is not None
        return Loss(rendering.image.mean(dim=(1, 2, 3, 4)) * (float("nan") if step.index == 2 else 1.0))

    terms = [Term("fit", Fixed(), towards(0.3)), Term("broken", Fixed(), broken)]
    run = optimize(problem(stage(terms=terms)))
    kept = [next(run), next(run)]
    with pytest.raises(Diverged, match=r"'broken' diverged at step 2 of stage 'edit'"):
        next(run)
    assert kept[-1].state.index == 2


def test_a_gradient_that_is_not_finite_names_its_term() -> None:
    def cusp(rendering: Rendering | None, step: Step) -> Loss:
        return Loss((step.latent.w - step.latent.w.detach()).abs().sqrt().sum(dim=(1, 2)))

    with pytest.raises(Diverged, match="'cusp'"):
        list(optimize(problem(stage(terms=[Term("fit", Fixed(), towards(0.3)), Term("cusp", None, cusp)]))))


def test_a_stage_refuses_two_terms_of_one_name() -> None:
    with pytest.raises(ValueError, match="two terms of one name"):
        stage(terms=[Term("a", None, small), Term("a", None, small)])


def test_a_camera_that_is_solved_for_moves_and_is_otherwise_kept() -> None:
    moved = list(optimize(problem(stage(solve_for=("camera", "latent")))))[-1].state
    kept = list(optimize(problem(stage())))[-1].state
    assert moved.increment.abs().max() > 0
    assert torch.equal(kept.increment, torch.zeros(1, 1, 7))
    torch.testing.assert_close(kept.camera.camera, kept.home.camera)


def test_states_are_snapshots() -> None:
    run = optimize(problem(stage()))
    first = next(run).state
    copy = replace(first, offset=first.offset.clone())
    list(run)
    assert torch.equal(first.offset, copy.offset)


def narrow() -> ToyGenerator:
    """A generator whose heads differ in one direction of w alone, that of all ones."""

    class Narrow(ToyGenerator):
        def axes(self) -> torch.Tensor:
            return torch.cat([torch.ones(1, 5) / 5**0.5, torch.zeros(4, 5)])

    return Narrow()


def test_a_principal_stage_moves_along_the_generators_axes_alone() -> None:
    task = replace(problem(stage(steps=8, tied=True, principal=True)), generator=narrow())
    last = list(optimize(task))[-1].state
    moved = (last.latent(task.generator.deviation()).w - task.start.source.w)[0]
    assert moved.abs().max() > 1e-3
    assert torch.allclose(moved, moved.mean(1, keepdim=True).expand_as(moved), atol=1e-6)  # all numbers alike
    assert torch.allclose(moved[0], moved[1], atol=1e-6)  # and all rows
    plain = list(optimize(replace(problem(stage(steps=8, tied=True)), generator=narrow())))[-1].state
    assert not torch.allclose(plain.offset[0, 0], plain.offset[0, 0].mean().expand(5), atol=1e-3)


class Even(ToyGenerator):
    """A generator whose heads differ as much in every dimension, and whose axes those are."""

    def deviation(self) -> torch.Tensor:
        return torch.ones(5)


def moves(principal: bool, *slopes: float) -> torch.Tensor:
    """What each step adds to the first row of the offset, (steps, 5), whose gradient is the slopes, less and less."""

    def sloping(rendering: Rendering | None, step: Step) -> Loss:
        return Loss((step.latent.w * torch.tensor(slopes)).sum(dim=(1, 2)) * (1 - 0.05 * step.index))

    task = replace(problem(stage(terms=[Term("slope", None, sloping)], principal=principal)), generator=Even())
    offsets = torch.stack([event.state.offset[0, 0] for event in optimize(task)])
    return offsets.diff(dim=0, prepend=torch.zeros(1, 5))


def test_axes_that_are_dimensions_change_nothing_where_all_gradients_are_as_large() -> None:
    plain, along = (moves(principal, 1.0, -1.0, 1.0, 1.0, -1.0) for principal in (False, True))
    assert plain.abs().min() > 0.01
    torch.testing.assert_close(along, plain, atol=1e-6, rtol=0)


def test_axes_share_a_scale_and_so_move_in_proportion_to_their_gradients() -> None:
    plain, along = (moves(principal, 1.0, 0.1, 1.0, 1.0, 1.0) for principal in (False, True))
    torch.testing.assert_close(plain[:, 0], plain[:, 1], rtol=1e-3, atol=0)  # each by its own scale
    ratio = along[:, 0] / along[:, 1]
    assert ratio[1:].min() > 5
    assert ratio[-1] == pytest.approx(10, rel=0.1)


def test_subjects_have_a_scale_each_in_a_principal_stage() -> None:
    def sloping(rendering: Rendering | None, step: Step) -> Loss:
        slopes = torch.tensor([0.1, 1.0])[: len(step.latent.w)].view(-1, 1, 1)
        return Loss((step.latent.w * slopes).sum(dim=(1, 2)))

    terms = [Term("slope", None, sloping)]
    one, two = (problem(stage(terms=terms, principal=True), subjects=subjects) for subjects in (1, 2))
    alone, beside = (list(optimize(task))[-1].state.offset for task in (one, two))
    assert alone.abs().max() > 0.01
    torch.testing.assert_close(beside[:1], alone)


def test_a_principal_stage_resumes_bit_for_bit() -> None:
    along = problem(stage(principal=True))
    half = list(islice(optimize(along), 5))[-1].state
    assert_same(list(optimize(along, half))[-1].state, list(optimize(along))[-1].state)


class Aside:
    """An opening that begins beside the photo, and keeps what it was shown."""

    says = ""

    def __init__(self) -> None:
        self.seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def begin(self, w: torch.Tensor) -> torch.Tensor:
        return w + 0.25

    def look(self, w: torch.Tensor, draw: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.seen.append((w, draw(w)))


def test_a_stage_may_begin_elsewhere_and_knows_where_it_came_from() -> None:
    still = problem(stage(lr={"latent": 0.0}, opening=Aside()))
    last = list(optimize(still))[-1].state
    deviation = still.generator.deviation()
    assert torch.allclose(last.latent(deviation).w, still.start.source.w + 0.25, atol=1e-6)
    assert torch.equal(last.source.w, still.start.source.w)
    walked = problem(stage(opening=Aside()))
    half = list(islice(optimize(walked), 5))[-1].state
    assert_same(list(optimize(walked, half))[-1].state, list(optimize(walked))[-1].state)


def test_an_opening_sees_where_the_stage_came_from_whenever_it_is_gone_on_with() -> None:
    opening = Aside()
    task = problem(stage(opening=opening))
    steps = list(optimize(task))
    assert len(opening.seen) == 1
    list(optimize(task, steps[2].state))
    assert len(opening.seen) == 2
    list(optimize(task, steps[-1].state))
    assert len(opening.seen) == 2, "a stage that is done is not gone on with"
    generator, start = task.generator, task.start
    photo = generator.render(generator.synthesize(start.source), start.home, jitter=None).image[:, 0]
    for w, picture in opening.seen:
        assert torch.equal(w, start.source.w)
        assert not picture.requires_grad
        torch.testing.assert_close(picture, photo)


def test_w_goes_no_further_than_the_stage_reaches() -> None:
    task = problem(stage(terms=[Term("fit", Fixed(), towards(5.0))], steps=30, reach=0.2))
    radius = task.generator.deviation().norm()
    gone = [(event.state.offset * task.generator.deviation()).norm(dim=-1).max() / radius for event in optimize(task)]
    assert max(gone) == pytest.approx(0.2, rel=1e-4)
    free = list(optimize(problem(stage(terms=[Term("fit", Fixed(), towards(5.0))], steps=30))))[-1].state
    assert (free.offset * task.generator.deviation()).norm(dim=-1).max() / radius > 0.25
