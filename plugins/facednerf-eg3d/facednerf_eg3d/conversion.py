"""Official checkpoints become the two files that a weights card of `eg3d` names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from facednerf_core.errors import InputError
from facednerf_core.unpickle import Network, network
from facednerf_eg3d.official import RELEASES, Release

CLASS = "TriPlaneGenerator"
TELLING = ("img_resolution", "superresolution_module", "avg_camera_pivot")
"""Arguments that tell the published networks apart."""


def ffhq(source: Path, folder: Path) -> None:
    """Converts the checkpoint of faces."""
    convert(source, folder, RELEASES["ffhq"])


def cats(source: Path, folder: Path) -> None:
    """Converts the checkpoint of cats."""
    convert(source, folder, RELEASES["cats"])


def cars(source: Path, folder: Path) -> None:
    """Converts the checkpoint of cars."""
    convert(source, folder, RELEASES["cars"])


def convert(source: Path, folder: Path, release: Release) -> None:
    """Writes `generator.safetensors` and `generator.json` of an official `.pkl` file, or of its tensors as torch.save wrote
    them ({'G_ema': tensors by name}), which are given the arguments of the release.

    Raises:
        InputError: the file is no such checkpoint, or another release's.
    """
    from safetensors.torch import save_file

    from facednerf_eg3d.arguments import UNUSED
    from facednerf_eg3d.network import TriPlaneGenerator

    found = network(source)
    if found.name not in (CLASS, ""):
        raise InputError(f"'{source}' holds a {found.name}; a {CLASS} is wanted.")
    config = arguments(found) if found.name else release.arguments()
    _check(source, config, release)
    TriPlaneGenerator.from_state_dict(found.tensors, **config)  # says what is wrong with them
    save_file({name: value for name, value in found.tensors.items() if name not in UNUSED}, folder / "generator.safetensors")
    note = {"class": "facednerf_eg3d.network.TriPlaneGenerator", **config}
    (folder / "generator.json").write_text(json.dumps(note, indent=1), encoding="utf-8")


def arguments(found: Network) -> dict[str, Any]:
    """The arguments of `TriPlaneGenerator` that a checkpoint tells.

    Its attributes go before what it was constructed with: rendering arguments may have been changed since, and the number
    of rays and the planes' axes stand nowhere else.
    """
    known = found.attributes
    config = dict(found.arguments)
    config["rendering_kwargs"] = known.get("rendering_kwargs", config.get("rendering_kwargs", {}))
    if "neural_rendering_resolution" in known:
        config["neural_rendering_resolution"] = known["neural_rendering_resolution"]
    if "renderer.plane_axes" in known:
        config["axes"] = known["renderer.plane_axes"].tolist()
    return config


def _check(source: Path, config: dict[str, Any], release: Release) -> None:
    """Refuses another release's checkpoint, by what tells them apart."""
    seen = _telling(config)
    if seen == _telling(release.arguments()):
        return
    fitting = [f"eg3d/{other.name}" for other in RELEASES.values() if _telling(other.arguments()) == seen]
    advice = f"It looks like {fitting[0]}." if fitting else "Register a weights card of your own for it."
    told = ", ".join(f"{name} {value}" for name, value in zip(TELLING, seen, strict=True))
    raise InputError(f"'{source}' is not what eg3d/{release.name} stands for: it has {told}. {advice}")


def _telling(config: dict[str, Any]) -> tuple[Any, ...]:
    rendering = config["rendering_kwargs"]
    pivot = rendering.get("avg_camera_pivot")
    module = str(rendering.get("superresolution_module")).rsplit(".", 1)[-1]
    return config.get("img_resolution"), module, None if pivot is None else tuple(float(part) for part in pivot)
