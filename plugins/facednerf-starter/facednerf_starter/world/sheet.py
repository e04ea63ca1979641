"""A sheet of heads: the world as one picture, and the truth about it in a file beside."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facednerf_core import compute
from facednerf_core.errors import InputError
from facednerf_core.files import whole_file, writable_folder, write_json
from facednerf_starter.world import light as lighting
from facednerf_starter.world.attributes import Attributes, decode, draw
from facednerf_starter.world.cameras import PIVOT, look
from facednerf_starter.world.captions import captions
from facednerf_starter.world.changes import changed, checked, described
from facednerf_starter.world.layout import Cells, Grid, compose, grid
from facednerf_starter.world.render import STEPS, WorldRendering, render

LIGHTS = ("own", "soft", *lighting.LAMPS)
"""Whose light: each head's own, a plain studio's, or that of a single lamp."""
MAPS = ("normal", "albedo", "depth", "mask")
"""What stands beside or below the picture, in this order."""
SPREAD = 0.8
"""Yaw of the outermost of several views, radians; not of those all round."""
DEPTHS = (2.35, 2.95)
"""The depths that are drawn white and black: about those of the nose's tip and of the shoulders."""
PATIENCE = 4 * STEPS
"""Steps of a ray: more than for training, where a few empty pixels beside edges do not show."""
LIMITS = {"heads": (1, 1000), "views": (1, 36), "size": (32, 1024), "first": (0, 2**40), "seed": (0, 2**63 - 1)}
LARGEST = 100_000_000
"""Pixels of a sheet."""


@dataclass(frozen=True)
class Order:
    """What a sheet shows. The same order gives the same heads, cameras and sentences anywhere.

    Raises:
        InputError: a number out of its limits, an unknown attribute, value or light, or more than a picture can hold.
    """

    heads: int = 12
    first: int = 0  # number of the first head: head i is a function of (seed, i) alone
    seed: int = 0
    size: int = 256  # pixels across each picture
    views: int = 1  # of each head, from left to right; one is the front
    around: bool = False  # the views go all round the head, beginning at the front
    changes: Mapping[str, str | float] = field(default_factory=dict)  # to every head: see `changes.offered`
    light: str = "own"  # one of LIGHTS
    captions: bool = False  # a sentence below each head
    maps: bool = False  # MAPS of each picture as well

    def __post_init__(self) -> None:
        for name, (low, high) in LIMITS.items():
            if not low <= getattr(self, name) <= high:
                raise InputError(f"{name} must be within {low} and {high}, not {getattr(self, name)}.")
        if self.light not in LIGHTS:
            raise InputError(f"no light {self.light!r}; there are {', '.join(LIGHTS)}.")
        object.__setattr__(self, "changes", checked(self.changes))
        width, height = self.grid.size
        if width * height > LARGEST:
            raise InputError(
                f"the sheet would have {width} x {height} pixels; ask for fewer heads or views, or a smaller size."
            )

    @property
    def grid(self) -> Grid:
        """Where each head's block lies. Maps stand beside a single view, and below several."""
        layers = 1 + len(MAPS) * self.maps
        rows, columns = (1, layers) if self.views == 1 else (layers, self.views)
        return grid(self.heads, rows, columns, self.size, text=self.captions)

    @property
    def yaws(self) -> tuple[float, ...]:
        """Of each view, radians, positive towards the picture's right."""
        if self.around:
            return tuple(2 * math.pi * i / self.views for i in range(self.views))
        return tuple(SPREAD * (2 * i / (self.views - 1) - 1) for i in range(self.views)) if self.views > 1 else (0.0,)

    def people(self) -> Attributes:
        """The heads, changed and lit as ordered."""
        people = changed(decode(draw(self.seed, self.first, self.heads)), self.changes)
        if self.light == "own":
            return people
        light = lighting.soft(self.heads) if self.light == "soft" else lighting.lamplight(self.light, self.heads)
        return people.replace(light=light)

    def cameras(self) -> Tensor:
        """The cameras (views, 25), the same for each head; those all round look at the middle of the head."""
        pivot = (0.0, 0.0, 0.0) if self.around else PIVOT
        return look(torch.tensor(self.yaws), torch.zeros(self.views), pivot=pivot)


@dataclass(frozen=True)
class Sheet:
    """A sheet that was written."""

    picture: Path  # PNG
    facts: Path  # JSON: attributes, light, captions and place of each head, and the cameras
    seconds: tuple[float, ...]  # that each head took


def render_sheet(
    out: Path,
    order: Order | None = None,
    *,
    device: str = "auto",
    force: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Sheet:
    """Draws a sheet and writes it with its facts, both or neither.

    Args:
        out: the PNG; its folder exists. The facts lie beside it, as `.json`.
        order: what to show; twelve heads from the front if not given.
        device: see `facednerf_core.compute.device`.
        force: write over files that exist.
        progress: called with the number of heads done after each.

    Raises:
        InputError: it cannot be written, or there is no such device; said before anything is drawn.
    """
    order = order or Order()
    facts = _writable(out, force)
    people, cameras, place = order.people(), order.cameras(), compute.device(device)
    blocks: list[Cells] = []
    seconds: list[float] = []
    for number in range(order.heads):
        begin = time.perf_counter()
        seen = render(people[[number]].to(place), cameras[None].to(place), order.size, steps=PATIENCE)
        blocks.append(_cells(seen, order))
        seconds.append(time.perf_counter() - begin)
        if progress is not None:
            progress(number + 1)
    said = captions(people, order.seed, order.first)
    texts = [f"{order.first + i}: {lines[0]}" for i, lines in enumerate(said)] if order.captions else ()
    picture = compose(order.grid, blocks, texts)
    with ExitStack() as files:
        drawn, written = (files.enter_context(whole_file(path)) for path in (out, facts))
        picture.save(drawn)
        write_json(written, _facts(order, people, cameras, said, out.name))
    return Sheet(out, facts, tuple(seconds))


def _writable(out: Path, force: bool) -> Path:
    """Where the facts go.

    Raises:
        InputError: something is in the way.
    """
    if out.suffix.lower() != ".png":
        raise InputError(f"--out {out}: a sheet is a PNG; choose a name that ends in .png.")
    if not out.parent.is_dir():
        raise InputError(f"--out {out}: there is no folder {out.parent}; make it, or choose another.")
    facts = out.with_suffix(".json")
    for path in (out, facts):
        if path.is_dir() or (path.exists() and not force):
            raise InputError(f"{path} exists; choose another --out{'' if path.is_dir() else ', or --force to replace it'}.")
    writable_folder(out.parent)
    return facts


def _cells(seen: WorldRendering, order: Order) -> Cells:
    """The pictures of one head: one row of layers if there is a single view, else a row of views for each layer."""
    mask = seen.mask[0]  # (V, 1, H, W)
    covered = (seen.depth[0] > 0).float()
    near, far = DEPTHS
    layers = [(seen.image[0] + 1) / 2]
    if order.maps:
        layers += [
            1 - covered + covered * (seen.normal[0] + 1) / 2,
            1 - covered + covered * seen.albedo[0],
            covered * ((far - seen.depth[0]) / (far - near)).expand(-1, 3, -1, -1),
            mask.expand(-1, 3, -1, -1),
        ]
    rows = [[_eight_bit(view) for view in layer] for layer in layers]
    return rows if order.views > 1 else [[row[0] for row in rows]]


def _eight_bit(picture: Tensor) -> NDArray[np.uint8]:
    """(3, H, W) in [0, 1] as (H, W, 3)."""
    eight: NDArray[np.uint8] = (picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    return eight


def _facts(order: Order, people: Attributes, cameras: Tensor, said: list[list[str]], name: str) -> dict[str, Any]:
    """Everything that is known of a sheet, as plain data."""
    return {
        "picture": name,
        "seed": order.seed,
        "size": order.size,
        "light": order.light,
        "changes": dict(order.changes),
        "layers": ["image", *(MAPS if order.maps else ())],
        "depths": {"white": DEPTHS[0], "black": DEPTHS[1]},
        "cameras": [
            {"yaw": yaw, "pitch": 0.0, "label": label} for yaw, label in zip(order.yaws, cameras.tolist(), strict=True)
        ],
        "heads": [
            {
                "number": order.first + i,
                "box": list(order.grid.box(i)),
                "captions": said[i],
                "attributes": described(people, i),
                "light": people.light[i].tolist(),
            }
            for i in range(order.heads)
        ],
    }
