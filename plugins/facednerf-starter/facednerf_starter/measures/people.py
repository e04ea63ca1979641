"""Held-out people of the world, and their portraits as the product takes them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

import numpy as np
import torch
from torch import Tensor

from facednerf_core.photos import Portrait
from facednerf_core.views import angles
from facednerf_starter.train.albums import Album, drawn_by_world
from facednerf_starter.world.attributes import Attributes, decode, draw
from facednerf_starter.world.cameras import look
from facednerf_starter.world.render import WorldRendering

CPU = torch.device("cpu")
SEED = 20270127
"""Of all heads of the benchmark: training uses other seeds, so nobody has seen them."""
SIZE = 128
TURN = 0.25
"""Largest yaw of a portrait, radians."""
SHARE = 6
"""Heads that a process draws at a time."""


def held_out(count: int, *, first: int = 0, wanted: Callable[[Attributes], Tensor] | None = None) -> Attributes:
    """The first `count` heads from number `first` on, of those that are `wanted` (a boolean for each head)."""
    found: list[Attributes] = []
    while sum(map(len, found)) < count:
        some = decode(draw(SEED, first, 64))
        found.append(some if wanted is None else some[wanted(some).nonzero()[:, 0]])
        first += 64
    return Attributes.cat(found)[:count]


def looked_at(count: int, *, name: int = 0) -> Tensor:
    """A camera for each of `count` heads (count, 25), within TURN and a pitch of 0.1."""
    rng = np.random.Generator(np.random.Philox(key=[SEED, name]))
    turns = torch.from_numpy(rng.uniform(-1, 1, (count, 2)).astype(np.float32))
    return look(turns[:, 0] * TURN, turns[:, 1] * 0.1)


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread of the CPU: the world is drawn by many small steps, whose threads wait for one another longer than
    they work, above all where others use the processor too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def drawn(heads: Attributes, cameras: Tensor, device: torch.device) -> Album:
    """What the world shows of N heads from one camera each, (N, 1, 25).

    A CPU draws with as many processes as torch has threads: a head's second and a half are many small steps, in which
    threads gain nothing.
    """
    workers = torch.get_num_threads()
    if device.type != "cpu" or workers == 1 or len(heads) <= SHARE:
        return _drawn(heads, cameras, device)
    rows = torch.arange(len(heads)).split(SHARE)
    parts = list(_workers(workers).map(_drawn, [heads[part] for part in rows], [cameras[part] for part in rows]))
    return Album(torch.cat([part.image for part in parts]), torch.cat([part.mask for part in parts]))


def _drawn(heads: Attributes, cameras: Tensor, device: torch.device = CPU) -> Album:
    with one_thread():
        return drawn_by_world(heads, cameras, SIZE, device)


@functools.cache
def _workers(count: int) -> ProcessPoolExecutor:
    """Processes that stay until the program ends: each takes seconds to import torch."""
    return ProcessPoolExecutor(count, mp_context=get_context("spawn"))


def portrait(seen: WorldRendering, head: int, camera: Tensor) -> Portrait:
    """One head of a rendering, seen first of all from `camera` (25,): a photo whose crop, camera and mask are known.

    So what is measured is the inverter, and neither the detector nor the matting.
    """
    image, mask = seen.image[head : head + 1, :1], seen.mask[head : head + 1, :1]
    yaw, pitch = (float(value) for value in angles(camera))
    return Portrait(
        image=image,
        seen=torch.ones_like(mask),
        camera=camera,
        yaw=yaw,
        pitch=pitch,
        transform=np.eye(3),
        mask=mask,
        person=torch.where(mask > 0.02, ((image - 1) / mask.clamp_min(0.02) + 1).clamp(-1, 1), 1.0),  # drawn over white
        background=torch.ones_like(image),
        landmarks=seen.landmarks[head : head + 1, :1],
    )
