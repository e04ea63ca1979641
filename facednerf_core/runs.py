"""A run: a recipe carried out in a folder that can be stopped at any moment and gone on with.

RUN/run.json              recipe, versions, hashes of weights and photo, metrics, status
RUN/events.jsonl          everything that happened
RUN/portrait.safetensors  the photo as the backbone frames it
RUN/checkpoint.safetensors  the loop's state
RUN/latent.safetensors    inverted and edited latent, camera     RUN/tuned.safetensors  the tuned tensors
RUN/before.png inverted.png after.png sheet.png turntable.mp4
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facednerf_core import __version__, compose
from facednerf_core.errors import Diverged, FacednerfError, InputError, RunInUse, Unsupported
from facednerf_core.events import Event, Failed, Finished, Noted, Observer, Saved, Started
from facednerf_core.files import sweep, writable_folder, write_json
from facednerf_core.recipe import Recipe

if TYPE_CHECKING:
    from PIL import Image

    from facednerf_core.loop import Problem, State
    from facednerf_core.photos import Portrait
    from facednerf_core.plugins import Shelves
    from facednerf_core.weights import Registry

MANIFEST, EVENTS, LOCK = "run.json", "events.jsonl", ".lock"
PORTRAIT, CHECKPOINT, INVERSION = "portrait.safetensors", "checkpoint.safetensors", "inversion.safetensors"
LATENT, TUNED = "latent.safetensors", "tuned.safetensors"
ASIDE = "FACEDNERF_RUNS"  # the folder that run folders are made in, where --out is not given


@dataclass(frozen=True)
class Run:
    """A finished run's folder, for looking at from Python."""

    folder: Path

    @property
    def manifest(self) -> dict[str, Any]:
        """What run.json says."""
        return _manifest(self.folder)

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

    plan: compose.Plan
    portrait: Portrait
    built: compose.Built
    problem: Problem
    notes: tuple[str, ...]


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
    plan = compose.plan(recipe, shelves, registry)
    device = compute.device(recipe.device)
    notes = list(plan.notes)
    card = plan.scene
    if portrait is None:
        if not recipe.photo:
            raise InputError("no photo was given.")
        photo = photos.read(recipe.photo)
        side = card.resolution
        portrait = photos.portrait(
            photo,
            plan.detector.build(device),
            Framing.of(card.crop),
            compose.orbit(card),
            (side, side),
            which=recipe.face,
            crop=recipe.crop,
            camera=recipe.camera,
        )
        notes += portrait.notes
    with out_of_memory():
        built = compose.build(plan, device)
        if built.guidance is not None:
            notes += compose.word_notes(built.guidance, recipe)
        problem = compose.problem(plan, built, photos.subject(portrait, card.background).to(device))
    return Prepared(plan, portrait, built, problem, tuple(notes))


def execute(recipe: Recipe, *, out: Path | None = None, observers: Sequence[Observer] = ()) -> Run:
    """Carry out a recipe in a folder of its own.

    Everything that can be wrong with the input is found before the folder is made.
    """
    from facednerf_core.plugins import installed
    from facednerf_core.weights import Registry

    began = time.perf_counter()
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        _refuse(out)
    shelves = installed()
    registry = Registry(shelves.weights)
    prepared = prepare(recipe, shelves=shelves, registry=registry)
    folder = writable_folder(out or _fresh(recipe))
    with locked(folder):
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
    manifest = _manifest(folder)
    with locked(folder):
        sweep(folder)
        recipe = Recipe.from_dict(manifest["recipe"])
        if strength is not None:
            recipe = recipe.changed(strength=strength)
            compose.check_strength(recipe)
            if manifest["status"] != "finished":
                raise Unsupported(f"{folder} is not finished; run `fdn resume {folder}` first, then set its strength.")
        shelves = installed()
        registry = Registry(shelves.weights)
        prepared = prepare(recipe, portrait=portraits.load(folder / PORTRAIT), shelves=shelves, registry=registry)
        _same(manifest, _identity(prepared, shelves, registry), folder)
        state = None
        if (folder / CHECKPOINT).exists():
            state = checkpoints.load(folder / CHECKPOINT, compute.device(recipe.device))
        if strength is not None:
            _update(folder, recipe=recipe.as_dict())
        return _walk(folder, prepared, state, observers, began)


def _walk(folder: Path, prepared: Prepared, state: State | None, observers: Sequence[Observer], began: float) -> Run:
    """The loop with its checkpoints, then the exports."""
    from facednerf_core import checkpoints, results
    from facednerf_core.loop import optimize
    from facednerf_core.observers import Log

    problem, recipe = prepared.problem, prepared.plan.recipe
    position = None if state is None else (state.stage, state.index)
    watchers: tuple[Observer, ...] = (Log(folder / EVENTS), *observers)

    def tell(event: Event) -> None:
        for observer in watchers:
            observer(event)

    stages = {stage.name: stage.steps for stage in problem.stages}
    tell(Started(folder, stages, position))
    if state is None:
        for note in prepared.notes:
            tell(Noted(note, "warning"))
    place = ("", -1)
    try:
        with out_of_memory():
            for event in optimize(problem, state):
                place = (event.stage, event.index)
                state = event.state
                tell(event)
                last = event.index + 1 == event.total
                if last or (event.index + 1) % recipe.save_every == 0:
                    if last and event.stage == _before_edit(problem):
                        checkpoints.save(state, folder / INVERSION)
                    checkpoints.save(state, folder / CHECKPOINT)
                    tell(Saved(folder / CHECKPOINT, "checkpoint"))
            state = state or problem.start
            inversion = _inversion(folder, problem, state)
            files, metrics = results.export_run(folder, prepared, inversion, state, tell)
    except KeyboardInterrupt:
        if state is not None and state.stage:
            checkpoints.save(state, folder / CHECKPOINT)
        _update(folder, status="stopped")
        tell(Failed(folder, "interrupted", *place))
        raise
    except (Diverged, FacednerfError) as error:
        _update(folder, status="failed", reason=str(error))
        tell(Failed(folder, str(error), *place))
        raise
    seconds = time.perf_counter() - began
    _update(folder, status="finished", metrics=metrics, seconds=round(seconds, 2))
    tell(Finished(folder, seconds, files, metrics))
    return Run(folder)


def _before_edit(problem: Problem) -> str:
    """The stage at whose end the inversion stands: the last one before the edit, if there is an edit."""
    names = [stage.name for stage in problem.stages]
    if compose.EDIT in names:
        return names[names.index(compose.EDIT) - 1]
    return names[-1]


def _inversion(folder: Path, problem: Problem, state: State) -> State:
    """The state as the inversion ended; the end itself where nothing was edited after it."""
    from facednerf_core import checkpoints

    path = folder / INVERSION
    if not path.exists():
        return state
    return checkpoints.load(path, problem.start.offset.device)


@contextmanager
def out_of_memory() -> Iterator[None]:
    """Turns a lack of memory into what to lower."""
    import torch

    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise InputError(_MEMORY) from error
    except RuntimeError as error:
        if "not enough memory" in str(error) or "out of memory" in str(error):
            raise InputError(_MEMORY) from error
        raise


_MEMORY = (
    "out of memory. Lower --size (the rendering's height), choose a smaller backbone or pack, or use another --device; "
    "what was saved can be gone on with by `fdn resume`."
)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a run folder for this process.

    Raises:
        RunInUse: another one holds it.
    """
    from filelock import FileLock, Timeout

    try:
        lock = FileLock(folder / LOCK)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RunInUse(
            f"the run {folder} is being written by another process; wait for it, or choose another --out."
        ) from error
    except OSError as error:
        raise InputError(f"cannot write in {folder}: {error.strerror}. Choose another folder with --out.") from error
    try:
        yield
    finally:
        lock.release()


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


def _same(manifest: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    for what in ("versions", "weights"):
        then = manifest.get(what, {})
        changed = sorted(name for name in {*then, *now[what]} if then.get(name) != now[what].get(name))
        if changed:
            listed = "; ".join(f"{name}: {then.get(name)} then, {now[what].get(name)} now" for name in changed)
            raise InputError(
                f"{folder} cannot be gone on with, its {what} have changed ({listed}). Put them back, or start a new run."
            )


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"{folder} is not a run: it has no {MANIFEST}. Runs are made by `fdn edit` and `fdn invert`."
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}.") from error


def _update(folder: Path, **changes: Any) -> None:
    write_json(folder / MANIFEST, {**_manifest(folder), **changes})


def _refuse(out: Path) -> None:
    if not out.is_dir():
        raise InputError(f"{out} is a file, not a folder; choose another --out.")
    if (out / MANIFEST).exists():
        with locked(out):
            raise InputError(f"{out} already holds a run; go on with it by `fdn resume {out}`, or choose another --out.")
    raise InputError(f"{out} is not empty; choose another --out.")


def _fresh(recipe: Recipe) -> Path:
    """A new folder's name: photo, a few words of the sentence, a number."""
    import os
    import re

    words = re.sub(r"[^a-z0-9]+", "-", recipe.prompt.lower()).strip("-")[:40].rstrip("-")
    stem = "-".join(part for part in (Path(recipe.photo).stem, words or recipe.task) if part)
    base = Path(os.environ.get(ASIDE, "runs"))
    number = 1
    while (base / (name := f"{stem}-{number}")).exists():
        number += 1
    return base / name
