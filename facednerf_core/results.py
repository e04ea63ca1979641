"""What a run leaves behind: pictures, film, latents and tuned tensors, and what was measured."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facednerf_core import compose, export, metrics
from facednerf_core.events import Event, Noted, Saved
from facednerf_core.files import write_tensors
from facednerf_core.views import View, angles, orbited, stack

if TYPE_CHECKING:
    from torch import Tensor

    from facednerf_core.interfaces import Generator
    from facednerf_core.loop import State
    from facednerf_core.runs import Prepared
    from facednerf_core.scene import Latent, Rendering, Scene

TOGETHER = 4  # views rendered in one call
ASIDE = 0.45  # share of the trusted yaw from which metrics look at the result, left and right,
ASIDE_MOST = 0.5  # and no farther than this, radians: most judges know faces, not backs of heads


@dataclass(frozen=True)
class Outcome:
    """A generator and two points of its latent space: the inversion, where there is one, and the result."""

    generator: Generator
    camera: View
    inverted: Latent | None
    final: Latent
    edited: Latent


def outcome(prepared: Prepared, inversion: State, state: State) -> Outcome:
    """The result at the recipe's strength: between inversion and edit, inside the tuned generator."""
    recipe, generator = prepared.plan.recipe, prepared.problem.generator
    deviation = generator.deviation()
    edited = state.latent(deviation).detach()
    tuned = generator.tuned(state.weights) if state.weights else generator
    has_edit = any(stage.name == compose.EDIT for stage in prepared.problem.stages)
    inverted = inversion.latent(deviation).detach() if has_edit else None
    if recipe.task == "invert":
        inverted = edited
    final = edited if inverted is None else inverted.toward(edited, recipe.strength)
    return Outcome(tuned, state.camera.detach(), inverted, final, edited)


def export_run(
    folder: Path, prepared: Prepared, inversion: State, state: State, tell: Callable[[Event], None]
) -> tuple[dict[str, Path], dict[str, Any]]:
    """Write everything; returns the files by name, and what was measured."""
    import torch

    result = outcome(prepared, inversion, state)
    recipe, portrait, card = prepared.plan.recipe, prepared.portrait, prepared.plan.scene
    files: dict[str, Path] = {}

    def wrote(name: str, path: Path) -> None:
        files[name] = path
        tell(Saved(path, name))

    _tensors(folder, result, state, wrote)
    with torch.no_grad():
        stills: dict[str, Tensor] = {"before": portrait.image[0, 0]}
        scenes: dict[str, Scene] = {}
        if result.inverted is not None:
            scenes["inverted"] = result.generator.synthesize(result.inverted)
        if recipe.task == "edit":
            scenes["after"] = result.generator.synthesize(result.final)
        seen = {name: result.generator.render(scene, result.camera, jitter=None) for name, scene in scenes.items()}
        for name, rendering in seen.items():
            stills[name] = export.on_background(rendering, card.background, portrait.background)[0, 0].cpu()
        for name, image in stills.items():
            export.still(folder / f"{name}.png", image)
            wrote(name, folder / f"{name}.png")
        export.comparison(folder / "comparison.png", stills, recipe.prompt)
        wrote("comparison", folder / "comparison.png")
        _sheet(folder / "sheet.png", prepared, result, scenes)
        wrote("sheet", folder / "sheet.png")
        if recipe.frames:
            last = list(scenes.values())[-1]
            path = folder / "turntable.mp4"
            export.turntable(
                path, _frames(prepared, result, last, export.turntable_angles(result.generator.orbit, recipe.frames))
            )
            wrote("turntable", path)
        measured = _measured(prepared, result, seen, stills)
        judged = _judged(prepared, result, scenes, tell)
    if judged:
        measured["judged"] = judged
        measured["said"] += [line for name, verdict in judged.items() if (line := _verdict(name, verdict))]
    return files, measured


def _tensors(folder: Path, result: Outcome, state: State, wrote: Callable[[str, Path], None]) -> None:
    tensors = {"w": result.final.w, "edited.w": result.edited.w, "camera": result.camera.camera}
    if result.inverted is not None:
        tensors["inverted.w"] = result.inverted.w
    tensors |= {f"noise.{name}": value for name, value in result.final.noise.items()}
    write_tensors(folder / "latent.safetensors", {name: value.clone() for name, value in tensors.items()})
    wrote("latent", folder / "latent.safetensors")
    if state.weights:
        write_tensors(folder / "tuned.safetensors", state.weights)
        wrote("tuned", folder / "tuned.safetensors")


def _around(result: Outcome, pairs: Sequence[tuple[float, float]]) -> View:
    """The photo's camera carried to each (yaw, pitch), so that its framing is kept."""
    import torch

    home = result.camera.camera[:, :1]
    own_yaw, own_pitch = angles(home)
    wanted = torch.tensor(pairs, dtype=home.dtype, device=home.device)
    camera = home.expand(-1, len(pairs), -1)
    moved = orbited(camera, result.generator.orbit, wanted[:, 0] - own_yaw, wanted[:, 1] - own_pitch)
    pose = None if result.camera.pose is None else result.camera.pose[:, :1].expand(-1, len(pairs), -1)
    return View(moved, pose)


def _shown(prepared: Prepared, rendering: Rendering) -> Tensor:
    """Images (V, 3, H, W) of the first subject over a quiet backdrop."""
    card = prepared.plan.scene
    behind = export.backdrop(prepared.portrait.background, (rendering.image.shape[-2], rendering.image.shape[-1]))
    return export.on_background(rendering, card.background, behind)[0].cpu()


def _frames(prepared: Prepared, result: Outcome, scene: Scene, pairs: Sequence[tuple[float, float]]) -> Iterator[Tensor]:
    for first in range(0, len(pairs), TOGETHER):
        view = _around(result, pairs[first : first + TOGETHER])
        yield from _shown(prepared, result.generator.render(scene, view, jitter=None))


def _sheet(path: Path, prepared: Prepared, result: Outcome, scenes: Mapping[str, Scene]) -> None:
    import torch

    pairs = export.sheet_angles(result.generator.orbit)
    rows = {name: torch.stack(list(_frames(prepared, result, scene, pairs))) for name, scene in scenes.items()}
    recipe = prepared.plan.recipe
    subtitle = f"{recipe.backbone} / {prepared.plan.pack}, seed {recipe.seed}"
    export.contact_sheet(path, rows, pairs, recipe.prompt or Path(recipe.photo).name, subtitle)


def _measured(
    prepared: Prepared, result: Outcome, seen: Mapping[str, Rendering], stills: Mapping[str, Tensor]
) -> dict[str, Any]:
    from facednerf_core import photos

    portrait, card = prepared.portrait, prepared.plan.scene
    measured: dict[str, Any] = {"said": []}
    if "inverted" in seen:
        truth = photos.composited(portrait, card.background)[0, 0]
        mask = None if portrait.mask is None else portrait.mask[0, 0]
        measured["inversion_psnr"] = round(metrics.psnr(seen["inverted"].image[0, 0].cpu(), truth, mask), 2)
        where = "inside the mask" if mask is not None else "of the whole crop"
        measured["said"].append(f"the inversion is {measured['inversion_psnr']:.1f} dB from the photo, {where}")
    if "after" in seen and "inverted" in seen and result.inverted is not None:
        marks = None if portrait.landmarks is None else portrait.landmarks[0, 0]
        change = metrics.changes(stills["inverted"], stills["after"], marks)
        measured["changes"] = {name: round(value, 4) for name, value in change.items()}
        deviation = result.generator.deviation()
        moved = ((result.final.w - result.inverted.w) / deviation.clamp_min(1e-8)).square().mean().sqrt()
        measured["latent_moved"] = round(float(moved), 4)
        measured["said"].append(metrics.said(change))
    return measured


def _judged(
    prepared: Prepared, result: Outcome, scenes: Mapping[str, Scene], tell: Callable[[Event], None]
) -> dict[str, dict[str, Any]]:
    """What the metrics of plugins find, by their names, and the networks that they judged with.

    One that cannot be built, raises, or gives what JSON cannot hold has its reason instead; the run loses nothing else.
    """
    from facednerf_core import compute, photos

    parts, recipe = prepared.plan.metrics, prepared.plan.recipe
    if not parts:
        return {}
    aside = min(ASIDE * result.generator.orbit.yaw, ASIDE_MOST)
    view = stack([result.camera, _around(result, [(-aside, 0.0), (aside, 0.0)])])
    shots = [result.generator.render(scene, view, jitter=None) for scene in scenes.values()]
    device = compute.device(recipe.device)
    subject = photos.subject(prepared.portrait, prepared.plan.scene.background).to(device)
    judged: dict[str, dict[str, Any]] = {}
    for name, part in parts.items():
        seen = [shot if aside <= part.card.sees else shot[:1] for shot in shots]
        try:
            with redirect_stdout(sys.stderr):  # a metric that prints must not spoil --json
                metric = part.build(device)
                found = dict(metric.measure(seen[0] if len(seen) > 1 else None, seen[-1], subject, recipe))
            networks = [*([part.weights.card.name] if part.weights else []), *metric.networks]
            judged[name] = json.loads(json.dumps({"numbers": found, "networks": networks}, allow_nan=False))
        except Exception as error:
            judged[name] = {"failed": f"{type(error).__name__}: {error}"}
            tell(Noted(f"the metric {name!r} failed ({judged[name]['failed']}); all else of the run is there", "warning"))
    return judged


def _verdict(name: str, verdict: Mapping[str, Any]) -> str:
    """What a metric found, in one line; empty where it found no number."""
    numbers = {key: value for key, value in verdict.get("numbers", {}).items() if type(value) in (int, float)}
    return f"{name}: {', '.join(f'{key} {value:.4g}' for key, value in numbers.items())}" if numbers else ""
