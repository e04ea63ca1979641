"""fdn edit, fdn invert and fdn resume."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from facednerf_core.cli.console import print_json
from facednerf_core.errors import FacednerfError, InputError
from facednerf_core.recipe import Recipe

if TYPE_CHECKING:
    from facednerf_core.runs import Run

Photo = Annotated[str, typer.Argument(metavar="PHOTO", help="A picture file with a face.")]
Config = Annotated[Path | None, typer.Option(help="A TOML file with fields of the recipe; the command line goes above it.")]
Out = Annotated[Path | None, typer.Option(help="The run folder; a new one under runs/ if not given.")]
Backbone = Annotated[str | None, typer.Option(help="The generator: see `fdn plugins`.")]
Guided = Annotated[str | None, typer.Option(help="What makes the result follow the sentence.")]
Identified = Annotated[str | None, typer.Option(help="What keeps the person; none leaves it out.")]
Pack = Annotated[str | None, typer.Option("--weights", help="The weights pack: starter, official, or auto.")]
Cards = Annotated[list[str] | None, typer.Option("--weights-card", metavar="KIND=NAME", help="One set of weights by name.")]
How = Annotated[str | None, typer.Option("--recipe", help="default (invert, tune, edit) or paper (Eq. 1, then Eq. 8).")]
Steps = Annotated[list[str] | None, typer.Option(metavar="STAGE=N", help="Steps of a stage, such as edit=60.")]
Loss = Annotated[
    list[str] | None,
    typer.Option(
        "--weight",
        metavar="[STAGE.]TERM=X",
        help="Factor on a loss in every stage that has it, such as identity=2, or in one stage, edit.identity=2.",
    ),
]
Options = Annotated[list[str] | None, typer.Option("--option", metavar="PLUGIN.NAME=X", help="An option of a plugin.")]
Camera = Annotated[str | None, typer.Option(metavar="YAW,PITCH", help="Where the face looks, in radians.")]
Crop = Annotated[str | None, typer.Option(metavar="X,Y,SIDE", help="The crop in pixels, instead of a found face.")]
Which = Annotated[int | None, typer.Option("--face", help="Which of several faces; the largest is 1.")]
Size = Annotated[int | None, typer.Option(help="Height of renderings while optimising; lower needs less memory.")]
Frames = Annotated[int | None, typer.Option(help="Frames of the turntable; 0 for none.")]
Seed = Annotated[int | None, typer.Option(help="Of all random draws.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")]


def edit(
    photo: Photo,
    sentence: Annotated[str, typer.Argument(metavar="SENTENCE", help="What the result should show.")],
    config: Config = None,
    out: Out = None,
    backbone: Backbone = None,
    guidance: Guided = None,
    identity: Identified = None,
    weights: Pack = None,
    weights_card: Cards = None,
    recipe: How = None,
    steps: Steps = None,
    weight: Loss = None,
    option: Options = None,
    strength: Annotated[
        float | None, typer.Option(help="0 is the inversion, 1 the edit; also afterwards, by resume.")
    ] = None,
    negative: Annotated[str | None, typer.Option(help="What the result should not show.")] = None,
    source_prompt: Annotated[str | None, typer.Option(help="What the photo shows; '' for plain guidance.")] = None,
    camera: Camera = None,
    crop: Crop = None,
    face: Which = None,
    size: Size = None,
    frames: Frames = None,
    seed: Seed = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Edit the head in PHOTO so that it follows SENTENCE, in 3D."""
    fields = {
        "task": "edit",
        "photo": photo,
        "prompt": sentence,
        "backbone": backbone,
        "guidance": guidance,
        "identity": identity,
        "weights_pack": weights,
        "recipe": recipe,
        "strength": strength,
        "negative": negative,
        "source_prompt": source_prompt,
        "face": face,
        "size": size,
        "frames": frames,
        "seed": seed,
        "device": device,
    }
    _carry_out(fields | _parsed(weights_card, steps, weight, option, camera, crop), config, out, as_json)


def invert(
    photo: Photo,
    config: Config = None,
    out: Out = None,
    backbone: Backbone = None,
    identity: Identified = None,
    weights: Pack = None,
    weights_card: Cards = None,
    steps: Steps = None,
    weight: Loss = None,
    option: Options = None,
    camera: Camera = None,
    crop: Crop = None,
    face: Which = None,
    size: Size = None,
    frames: Frames = None,
    seed: Seed = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Bring the generator to PHOTO: latent, camera, tuned tensors, and views from all sides."""
    fields = {
        "task": "invert",
        "photo": photo,
        "backbone": backbone,
        "identity": identity,
        "weights_pack": weights,
        "face": face,
        "size": size,
        "frames": frames,
        "seed": seed,
        "device": device,
    }
    _carry_out(fields | _parsed(weights_card, steps, weight, option, camera, crop), config, out, as_json)


def resume(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")],
    strength: Annotated[float | None, typer.Option(help="Export a finished edit at another strength.")] = None,
    as_json: Json = False,
) -> None:
    """Go on with a run that was stopped, or export a finished one again at another strength."""
    from facednerf_core import runfolder, runs
    from facednerf_core.observers import watcher

    try:
        _report(runs.resume(run, observers=[watcher(as_json)], strength=strength), as_json)
    except KeyboardInterrupt:
        _interrupted(run)
    except FacednerfError as error:
        error.run = run if (run / runfolder.MANIFEST).exists() else None
        raise


def _carry_out(fields: dict[str, Any], config: Path | None, out: Path | None, as_json: bool) -> None:
    from facednerf_core import runs
    from facednerf_core.events import Event, Started
    from facednerf_core.observers import watcher

    base = Recipe.from_toml(config) if config else {}
    chosen = Recipe.from_dict(_over(base, {name: value for name, value in fields.items() if value is not None}))
    folder: list[Path] = []

    def remember(event: Event) -> None:
        if isinstance(event, Started):
            folder.append(event.run)

    try:
        _report(runs.execute(chosen, out=out, observers=[remember, watcher(as_json)]), as_json)
    except KeyboardInterrupt:
        _interrupted(folder[0] if folder else None)
    except FacednerfError as error:
        error.run = folder[0] if folder else None
        raise


def _interrupted(folder: Path | None) -> None:
    if folder is not None:
        print(f"\nstopped and saved; go on with: fdn resume {folder}", file=sys.stderr)
    sys.exit(130)


def _report(run: Run, as_json: bool) -> None:
    """What changed, and where the files are."""
    manifest = run.manifest
    if as_json:
        files = {path.name: str(path) for path in sorted(run.folder.iterdir()) if not path.name.startswith(".")}
        print_json(
            {"run": str(run.folder), **{key: manifest[key] for key in ("status", "seconds", "metrics")}, "files": files}
        )
        return
    for line in run.metrics.get("said", []):
        print(line)
    if manifest["pack"] == "starter":
        print("made with the starter weights: small networks trained on synthetic heads, not the official ones")
    shown = [
        name
        for name in ("before.png", "inverted.png", "after.png", "sheet.png", "turntable.mp4")
        if (run.folder / name).exists()
    ]
    print(f"{run.folder}: {', '.join(shown)}")


def _over(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """The command line above a config: tables are merged, all else is replaced."""
    merged = dict(base)
    for name, value in top.items():
        old = merged.get(name)
        merged[name] = _over(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _parsed(
    cards: list[str] | None,
    steps: list[str] | None,
    weights: list[str] | None,
    options: list[str] | None,
    camera: str | None,
    crop: str | None,
) -> dict[str, Any]:
    """What is written as NAME=VALUE or as numbers with commas."""
    fields: dict[str, Any] = {}
    if cards:
        fields["weights_cards"] = dict(_pair(text, "--weights-card") for text in cards)
    if steps:
        fields["steps"] = {name: _number(value, int, text) for text in steps for name, value in [_pair(text, "--steps")]}
    if weights:
        fields |= _factors(weights)
    if options:
        fields["options"] = {}
        for text in options:
            name, value = _pair(text, "--option")
            plugin, dot, key = name.partition(".")
            if not dot:
                raise InputError(f"--option {text}: say PLUGIN.NAME=VALUE, such as sds.scale=30.")
            fields["options"].setdefault(plugin, {})[key] = value
    if camera is not None:
        fields["camera"] = _numbers(camera, 2, "--camera YAW,PITCH")
    if crop is not None:
        fields["crop"] = _numbers(crop, 3, "--crop X,Y,SIDE")
    return fields


def _factors(weights: list[str]) -> dict[str, Any]:
    """TERM=X goes to all stages, STAGE.TERM=X to one."""
    everywhere: dict[str, float] = {}
    alone: dict[str, dict[str, float]] = {}
    for text in weights:
        name, value = _pair(text, "--weight")
        stage, _, term = name.rpartition(".")
        (alone.setdefault(stage, {}) if stage else everywhere)[term] = _number(value, float, text)
    return {"weights": everywhere, "stage_weights": alone}


def _pair(text: str, flag: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise InputError(f"{flag} {text!r}: say NAME=VALUE.")
    return name.strip(), value.strip()


def _number(value: str, kind: type, text: str) -> Any:
    try:
        return kind(value)
    except ValueError as error:
        raise InputError(f"{text!r}: {value!r} is not {'a whole number' if kind is int else 'a number'}.") from error


def _numbers(text: str, count: int, flag: str) -> tuple[float, ...]:
    parts = text.split(",")
    if len(parts) != count:
        raise InputError(f"{flag}: got {text!r}, which is {len(parts)} numbers, not {count}.")
    return tuple(_number(part.strip(), float, text) for part in parts)
