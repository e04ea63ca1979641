"""A run: a recipe carried out in a folder that can be stopped at any moment and gone on with.

RUN/run.json              recipe, versions, hashes of weights and photo, metrics, status
RUN/events.jsonl          everything that happened
RUN/portrait.safetensors  the photo as the backbone frames it
RUN/checkpoint.safetensors  the loop's state
RUN/latent.safetensors    inverted and edited latent, camera     RUN/tuned.safetensors  the tuned tensors
RUN/before.png inverted.png after.png sheet.png turntable.mp4
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facednerf_core import __version__, caveats, compose, plans, runfolder
from facednerf_core.errors import FacednerfError, InputError, Unsupported
from facednerf_core.events import Event, Failed, Finished, Noted, Observer, Saved, Started
from facednerf_core.files import sweep, writable_folder, write_json
from facednerf_core.recipe import Recipe
from facednerf_core.runfolder import CHECKPOINT, EVENTS, INVERSION, MANIFEST, PORTRAIT, locked

if TYPE_CHECKING:
    from PIL import Image

    from facednerf_core.loop import Problem, State
    from facednerf_core.photos import Portrait
    from facednerf_core.plugins import Shelves
    from facednerf_core.weights import Registry


@dataclass(frozen=True)
class Run:
    """A finished run's folder, for looking at from Python."""

    folder: Path

    @property
    def manifest(self) -> dict[str, Any]:
        """What run.json says."""
        return runfolder.manifest(self.folder)

    @property
    def recipe(self) -> Recipe:
        """What was done."""
        return Recipe.from_dict(self.manifest["recipe"])

    @property
    def metrics(self) -> dict[str, Any]:
        """What was measured."""
        return self.manifest.get("metrics", {})

    def picture(self, name: str) -> Image.Image:
        """One of its pictures: before, inverted, after, sheet."""
        from PIL import Image

        path = self.folder / f"{name}.png"
        if not path.exists():
            raise InputError(f"{self.folder} has no picture {name!r}; it has: {', '.join(self.pictures)}.")
        return Image.open(path)

    @property
    def pictures(self) -> tuple[str, ...]:
        """The names of its pictures."""
        return tuple(sorted(path.stem for path in self.folder.glob("*.png")))

    @property
    def before(self) -> Image.Image:
        """The photo in the backbone's crop."""
        return self.picture("before")

    @property
    def after(self) -> Image.Image:
        """The result at the photo's camera."""
        return self.picture("after")


def edit(
    photo: str | Path, prompt: str, *, out: Path | None = None, observers: Sequence[Observer] = (), **fields: Any
) -> Run:
    """Edit the head in a photo by a sentence; `fields` are those of `Recipe`.

    Raises:
        FacednerfError: something that you can mend; nothing half-written is left.
    """
    recipe = Recipe.from_dict({"task": "edit", "photo": str(photo), "prompt": prompt, **fields})
    return execute(recipe, out=out, observers=observers)


def invert(photo: str | Path, *, out: Path | None = None, observers: Sequence[Observer] = (), **fields: Any) -> Run:
    """Bring the generator to a photo: latent, camera and tuned tensors; `fields` are those of `Recipe`."""
    recipe = Recipe.from_dict({"task": "invert", "photo": str(photo), **fields})
    return execute(recipe, out=out, observers=observers)


@dataclass(frozen=True)
class Prepared:
    """Everything that a run's loop needs, made of a recipe: for notebooks that walk the loop themselves."""

    plan: plans.Plan
    portrait: Portrait
    built: compose.Built
    problem: Problem
    notes: tuple[str, ...]
    guests: Mapping[str, Observer]  # the observers of plugins


def prepare(
    recipe: Recipe,
    *,
    portrait: Portrait | None = None,
    shelves: Shelves | None = None,
    registry: Registry | None = None,
) -> Prepared:
    """Choose plugins, read the photo, build the networks and pose the problem; nothing is written.

    `for step in optimize(prepare(recipe).problem): ...` is the whole loop in a notebook.
    """
    from facednerf_core import compute, photos
    from facednerf_core.framing import Framing
    from facednerf_core.plugins import installed
    from facednerf_core.weights import Registry

    shelves = shelves or installed()
    registry = registry or Registry(shelves.weights)
    plan = plans.plan(recipe, shelves, registry)
    device = compute.device(recipe.device)
    notes = list(plan.notes)
    card = plan.scene
    if portrait is None:
        if not recipe.photo:
            raise InputError("no photo was given.")
        photo = photos.read(recipe.photo)
        portrait = photos.portrait(
            photo,
            plan.detector.build(device),
            Framing.of(card.crop),
            plans.orbit(card),
            plans.frame(card),
            which=recipe.face,
            crop=recipe.crop,
            camera=recipe.camera,
        )
        notes += portrait.notes
    judges = {"identity": plan.identity, "guidance": plan.guidance}
    notes += caveats.sight_notes({kind: part.card for kind, part in judges.items() if part is not None}, portrait.yaw)
    with out_of_memory():
        guests, said = compose.guests(recipe, shelves, device)
        notes += said
        built = compose.build(plan, device)
        if built.guidance is not None:
            notes += caveats.word_notes(built.guidance, recipe)
        problem = compose.problem(plan, built, photos.subject(portrait, card.background).to(device))
    return Prepared(plan, portrait, built, problem, tuple(notes), guests)


def execute(recipe: Recipe, *, out: Path | None = None, observers: Sequence[Observer] = ()) -> Run:
    """Carry out a recipe in a folder of its own.

    Everything that can be wrong with the input is found before the folder is made.
    """
    from facednerf_core.plugins import installed
    from facednerf_core.weights import Registry

    began = time.perf_counter()
    if out is not None:
        runfolder.free(out)
    shelves = installed()
    registry = Registry(shelves.weights)
    prepared = prepare(recipe, shelves=shelves, registry=registry)
    folder = out or runfolder.fresh(recipe)
    with ExitStack() as held:
        with runfolder.whole_or_none(folder):
            writable_folder(folder)
            held.enter_context(locked(folder))
            _begin(folder, prepared, shelves, registry)
        return _walk(folder, prepared, None, observers, began)


def resume(folder: Path, *, observers: Sequence[Observer] = (), strength: float | None = None) -> Run:
    """Go on with a run that was stopped; a finished one is exported again, at another strength if one is given.

    Raises:
        InputError: no run lies there, or the weights or plugins that it used have changed.
        RunInUse: another process is writing it.
        Unsupported: its recipe has no strength to set.
    """
    from facednerf_core import checkpoints, compute, portraits
    from facednerf_core.plugins import installed
    from facednerf_core.weights import Registry

    began = time.perf_counter()
    runfolder.manifest(folder)  # whether there is one, before a lock is put beside it
    with locked(folder):
        sweep(folder)
        manifest = runfolder.manifest(folder)
        recipe = Recipe.from_dict(manifest["recipe"])
        if strength is not None:
            recipe = recipe.changed(strength=strength)
            plans.check_strength(recipe)
            if manifest["status"] != "finished":
                raise Unsupported(f"{folder} is not finished; run `fdn resume {folder}` first, then set its strength.")
            if not (folder / CHECKPOINT).exists():
                raise InputError(f"{folder / CHECKPOINT} is gone, so the edit is too; start the run again.")
        shelves = installed()
        registry = Registry(shelves.weights)
        prepared = prepare(recipe, portrait=portraits.load(folder / PORTRAIT), shelves=shelves, registry=registry)
        runfolder.same(folder, manifest, _identity(prepared, shelves, registry))
        state = None
        if (folder / CHECKPOINT).exists():
            state = checkpoints.load(folder / CHECKPOINT, compute.device(recipe.device))
        if strength is not None:
            runfolder.update(folder, recipe=recipe.as_dict())
        return _walk(folder, prepared, state, observers, began)


def _walk(folder: Path, prepared: Prepared, state: State | None, observers: Sequence[Observer], began: float) -> Run:
    """The loop with its checkpoints, then the exports."""
    from facednerf_core import checkpoints, results
    from facednerf_core.loop import optimize
    from facednerf_core.observers import Log

    problem, recipe = prepared.problem, prepared.plan.recipe
    position = None if state is None else (state.stage, state.index)
    tell = _Audience((Log(folder / EVENTS), *observers), dict(prepared.guests))
    runfolder.update(folder, status="running", reason=None)
    tell(Started(folder, {stage.name: stage.steps for stage in problem.stages}, position))
    if state is None:
        for note in prepared.notes:
            tell(Noted(note, "warning"))
    _open(problem, position, tell, resumed=state is not None)
    place = ("", -1)
    try:
        with out_of_memory(f" What was saved can be gone on with by `fdn resume {folder}`."):
            for event in optimize(problem, state):
                place = (event.stage, event.index)
                state = event.state
                tell(event)
                last = event.index + 1 == event.total
                if last or (event.index + 1) % recipe.save_every == 0:
                    if last and event.stage == _before_edit(problem):
                        checkpoints.save(replace(state, weights={}, moments={}), folder / INVERSION)
                    checkpoints.save(state, folder / CHECKPOINT)
                    tell(Saved(folder / CHECKPOINT, "checkpoint"))
                _open(problem, (event.stage, event.index + 1), tell)
            state = state or problem.start
            inversion = _inversion(folder, problem, state)
            files, metrics = results.export_run(folder, prepared, inversion, state, tell)
    except KeyboardInterrupt:
        if state is not None and state.stage:
            checkpoints.save(state, folder / CHECKPOINT)
        runfolder.update(folder, status="stopped")
        tell(Failed(folder, "interrupted", *place))
        raise
    except Exception as error:
        reason = str(error) if isinstance(error, FacednerfError) else f"{type(error).__name__}: {error}"
        with suppress(FacednerfError):  # a full disk cannot take down why it failed; the error itself says so
            runfolder.update(folder, status="failed", reason=reason)
            tell(Failed(folder, reason, *place))
        raise
    seconds = time.perf_counter() - began
    runfolder.update(folder, status="finished", metrics=metrics, seconds=round(seconds, 2))
    tell(Finished(folder, seconds, files, metrics))
    return Run(folder)


@dataclass(frozen=True)
class _Audience:
    """Tells everybody of an event. A plugin's observer that raises is told no more, and the run goes on."""

    observers: Sequence[Observer]
    guests: dict[str, Observer]

    def __call__(self, event: Event) -> None:
        for observer in self.observers:
            observer(event)
        for name, guest in list(self.guests.items()):
            try:
                with redirect_stdout(sys.stderr):  # an observer that prints must not spoil --json
                    guest(event)
            except Exception as error:
                del self.guests[name]
                said = f"{type(error).__name__}: {error}"
                self(Noted(f"the observer {name!r} failed ({said}); it is told no more", "warning"))


def _open(
    problem: Problem, position: tuple[str, int] | None, tell: Callable[[Event], None], *, resumed: bool = False
) -> None:
    """Says what the next stage begins with, where it wants that said and the one before ends at (stage, steps done); of a
    run that is taken up in the midst of a stage, what that one does again."""
    ahead = list(problem.stages)
    if position is not None:
        here = next(place for place, stage in enumerate(ahead) if stage.name == position[0])
        midst = position[1] < ahead[here].steps
        if midst and not resumed:
            return
        ahead = ahead[here : here + 1] if midst else ahead[here + 1 :]
    opening = next((stage.opening for stage in ahead if stage.steps or stage.opening), None)
    if opening is not None and opening.says:
        tell(Noted(opening.says))


def _before_edit(problem: Problem) -> str | None:
    """The stage at whose end the inversion stands: the last one with steps before the edit; None where there is none."""
    names = [stage.name for stage in problem.stages]
    if compose.EDIT not in names:
        return None
    earlier = [stage.name for stage in problem.stages[: names.index(compose.EDIT)] if stage.steps]
    return earlier[-1] if earlier else None


def _inversion(folder: Path, problem: Problem, state: State) -> State:
    """The state as the inversion ended; the end itself where nothing is edited after it."""
    from facednerf_core import checkpoints

    if all(stage.name != compose.EDIT for stage in problem.stages):
        return state
    if _before_edit(problem) is None:
        return problem.start
    return checkpoints.load(folder / INVERSION, problem.start.offset.device)


@contextmanager
def out_of_memory(then: str = "") -> Iterator[None]:
    """Turns a lack of memory into what to lower, and what to do then."""
    import torch

    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise InputError(_MEMORY + then) from error
    except RuntimeError as error:
        if "not enough memory" in str(error) or "out of memory" in str(error):
            raise InputError(_MEMORY + then) from error
        raise


_MEMORY = "out of memory. Lower --size (the rendering's height), choose a smaller backbone or pack, or use another --device."


def _begin(folder: Path, prepared: Prepared, shelves: Shelves, registry: Registry) -> None:
    from facednerf_core import portraits

    portraits.save(prepared.portrait, folder / PORTRAIT)
    manifest = {
        "recipe": prepared.plan.recipe.as_dict(),
        "status": "running",
        "pack": prepared.plan.pack,
        "domains": list(prepared.plan.scene.domains),
        "stages": {stage.name: stage.steps for stage in prepared.problem.stages},
        "notes": list(prepared.notes),
        **_identity(prepared, shelves, registry),
    }
    write_json(folder / MANIFEST, manifest)


def _identity(prepared: Prepared, shelves: Shelves, registry: Registry) -> dict[str, Any]:
    """What must not change between a run's beginning and its end."""
    plan = prepared.plan
    parts = plan.parts()
    shelf_kinds = {"tuner": "inverter"}
    versions = {"facednerf-core": __version__}
    for kind, part in parts.items():
        origin = shelves.origins[shelf_kinds.get(kind, kind), part.card.name]
        versions[origin.distribution or origin.plugin] = origin.version
    cards = [part.weights.card for part in parts.values() if part.weights is not None] + [plan.perceptual.card]
    return {"versions": versions, "weights": {card.name: registry.hashes(card) for card in cards}}
