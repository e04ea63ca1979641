"""Real photos: near after tuning, clean from the side, following sentences, also flipped, leaning, small and dark; and how
long the command takes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F

from facednerf_core import checkpoints, edit
from facednerf_core.compute import device as chosen_device
from facednerf_core.errors import FacednerfError, InputError
from facednerf_core.events import Event, Stepped
from facednerf_core.metrics import psnr
from facednerf_core.photos import composited
from facednerf_core.portraits import load
from facednerf_core.recipe import Recipe
from facednerf_core.runfolder import CHECKPOINT, INVERSION, PORTRAIT
from facednerf_core.runs import prepare
from facednerf_core.scene import Latent, Rendering
from facednerf_starter.judges.panel import Judges
from facednerf_starter.measures import geometry
from facednerf_starter.measures.effort import Effort
from facednerf_starter.measures.inversions import SIDES, Inversion, edited
from facednerf_starter.measures.measure import Goal, Measure, Unit, at_least, at_most, averaged, counted
from facednerf_starter.measures.sentences import portrait_edits
from facednerf_starter.measures.verdicts import obeyed, together

SECTION = "portraits"
NEAR, WHOLE, RELIEF, WARPED, FOLLOWED, STEP, ALL = (
    "inner face after tuning",
    "side views, largest piece of the mass",
    "depth relief beside the mean head's",
    "side view warped back to the front, inner face",
    "sentences followed",
    "a step of `fdn edit`",
    "`fdn edit` in all",
)
GOALS: dict[str, tuple[Goal, Unit]] = {
    NEAR: (at_least(24.0), "dB"), WHOLE: (at_least(0.99), "%"), RELIEF: (at_least(0.60), "%"),
    WARPED: (at_least(20.0), "dB"), FOLLOWED: (at_least(1.0), "%"), STEP: (at_most(0.3), "s"), ALL: (at_most(90.0), "s"),
}  # fmt: skip


@dataclass(frozen=True)
class Look:
    """A photo as it is, or changed in a way that must not change the verdict."""

    name: str
    picture: Image.Image


class Clock:
    """An observer that keeps the seconds of each step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, Stepped):
            self.seconds.append(event.seconds)


def looks(effort: Effort) -> Iterator[Look]:
    """The photos that are looked at: the astronaut of scikit-image and any that was brought, each perhaps disturbed.

    Raises:
        InputError: a photo cannot be read.
    """
    from skimage import data

    pictures = {"astronaut": Image.fromarray(data.astronaut())}
    for path in effort.photos:
        try:
            pictures[path.stem] = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        except OSError as error:
            raise InputError(f"the photo {path} cannot be read ({error}); give a JPEG or PNG file.") from error
    for name, picture in pictures.items():
        yield Look(name, picture)
        if effort.disturbed:
            half = (picture.width // 2, picture.height // 2)
            yield Look(f"{name}, flipped", ImageOps.mirror(picture))
            yield Look(f"{name}, rolled by 10 degrees", picture.rotate(10, Image.Resampling.BICUBIC))
            yield Look(f"{name}, at half size", picture.resize(half, Image.Resampling.LANCZOS))
            yield Look(f"{name}, at 0.7 exposure", picture.point([round(0.7 * value) for value in range(256)] * 3))


def measured(effort: Effort, judges: Judges | None, without: str = "") -> list[Measure]:
    """The measures of real photos; `without` judges, why there are none."""
    found: list[Measure] = []
    for look in looks(effort):
        try:
            found += _one(look, effort, judges, without)
        except FacednerfError as error:
            found += [
                Measure(f"{SECTION}: {look.name}", name, goal, None, unit=unit, about=str(error))
                for name, (goal, unit) in GOALS.items()
            ]
    return found


def _one(look: Look, effort: Effort, judges: Judges | None, without: str) -> list[Measure]:
    sentences = portrait_edits()[: effort.portrait_sentences]
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder) / "photo.png"
        look.picture.save(photo)
        began = time.perf_counter()
        run = edit(
            photo, sentences[0].text, out=Path(folder) / "run", observers=[clock], device=effort.device,
            steps=dict(effort.steps), frames=0,
        )  # fmt: skip
        seconds = time.perf_counter() - began
        inversion, first = opened(run.folder, run.recipe, effort)
    values: dict[str, list[float]] = shape(inversion)
    values |= {STEP: [float(np.median(clock.seconds))], ALL: [seconds]}
    if judges is not None:
        latents = [first, *(edited(inversion, one.text, effort) for one in sentences[1:])]
        values[FOLLOWED] = [
            obeyed(together(judges.tell(inversion.pictures(latent))), one.asks)
            for one, latent in zip(sentences, latents, strict=True)
        ]
    return rows(look.name, values, {FOLLOWED: without or counted(len(sentences), "sentence")})


def rows(name: str, values: dict[str, list[float]], about: dict[str, str]) -> list[Measure]:
    """A measure for each of GOALS; without values it could not be made. One photo has no interval."""
    found = []
    for what, (goal, unit) in GOALS.items():
        one = averaged(f"{SECTION}: {name}", what, goal, [values.get(what, [])], unit=unit, about=about.get(what, "1 photo"))
        found.append(replace(one, low=None, high=None))
    return found


def opened(folder: Path, recipe: Recipe, effort: Effort) -> tuple[Inversion, Latent]:
    """The inversion of a finished run, and its edit's latent."""
    device = chosen_device(effort.device)
    prepared = prepare(recipe, portrait=load(folder / PORTRAIT))
    last = checkpoints.load(folder / CHECKPOINT, device)
    before = replace(checkpoints.load(folder / INVERSION, device), weights=last.weights)
    return Inversion(prepared, before), last.latent(prepared.problem.generator.deviation()).detach()


def shape(inversion: Inversion) -> dict[str, list[float]]:
    """NEAR, WHOLE, RELIEF and WARPED of an inversion."""
    photo = inversion.prepared.portrait
    truth = composited(photo, inversion.prepared.plan.scene.background)[0, 0]
    rendering = inversion.seen(inversion.latent, (0.0, *SIDES))
    images = rendering.image[0].clamp(-1, 1).cpu()
    size = images.shape[-1]
    assert photo.landmarks is not None
    inner = geometry.inner_face(photo.landmarks[0, 0], size)
    depth, alpha = _full(rendering, size)
    cameras = rendering.view.camera[0].cpu()
    warped = []
    for side in range(1, len(images)):
        back, both = geometry.warped_back((images[0], depth[0]), (images[side], depth[side]), (cameras[0], cameras[side]))
        warped.append(psnr(back, images[0], inner * both))
    with torch.no_grad():
        generator = inversion.prepared.problem.generator
        mean = generator.render(generator.synthesize(generator.mean()), rendering.view[:1], jitter=None)
    mean_depth, _ = _full(mean, size)
    return {
        NEAR: [psnr(images[0], truth, inner)],
        WHOLE: [geometry.largest(view) for view in alpha[1:]],
        RELIEF: [geometry.relief(depth[0], inner[0]) / geometry.relief(mean_depth[0], inner[0])],
        WARPED: warped,
    }


def _full(rendering: Rendering, size: int) -> tuple[Tensor, Tensor]:
    """Depths and alphas (V, size, size) of a rendering's first subject, on the CPU."""
    assert rendering.depth is not None
    assert rendering.mask is not None
    found: Sequence[Tensor] = [
        F.interpolate(value[0].float().cpu(), (size, size), mode="bilinear", align_corners=False)[:, 0]
        for value in (rendering.depth, rendering.mask)
    ]
    return found[0], found[1]
