"""What a step of optimisation costs with EG3D at full size: seconds and memory, on one thread of a CPU.

    python benchmarks/backbones.py            # a table
    python benchmarks/backbones.py --json     # the same, for a machine

One step is the synthesis of planes, a rendering of 128 x 128 rays with 48 + 48 samples, super-resolution to 512 pixels, and
the gradient of the picture with respect to the latent: the FFHQ configuration, with weights made from their names. Each case
runs in a process of its own, whose greatest memory (with Python, PyTorch and the weights) is what is stated. The time is the
best of several steps, after one to warm up. Other work on the machine reaches the wall clock first; the processor's time is
stated beside it.

Each case is measured twice: as it is, where glibc returns large pieces of memory to the system when they are freed, and asks
for them again at the next step, cleared; and with two settings of glibc's environment that make it keep them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
import zlib
from collections.abc import Sequence
from typing import Any

VIEWS = (1, 2)
OFFICIAL = "the official code, one view, on a like machine: 22 to 33 s, 3.9 GiB"
KEPT = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**34)}
"""Tells glibc to keep memory that was freed."""


def generator() -> Any:
    """EG3D's generator for FFHQ at 512 pixels."""
    import torch
    from facednerf_eg3d.network import TriPlaneGenerator
    from facednerf_eg3d.official import RELEASES

    def made(name: str, like: torch.Tensor) -> torch.Tensor:
        if name.endswith("resample_filter"):
            return torch.outer(*[torch.tensor([1.0, 3.0, 3.0, 1.0])] * 2) / 64
        value = torch.randn(like.shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
        if ".mapping.fc" in name:
            return 100 * value if name.endswith("weight") else 20 * value
        if name.endswith("bias"):
            return 1 + 0.25 * value if ".affine." in name else 0.3 * value
        return value

    config = RELEASES["ffhq"].arguments()
    with torch.device("meta"):
        shapes = TriPlaneGenerator(**config).state_dict()
    return TriPlaneGenerator.from_state_dict({name: made(name, like) for name, like in shapes.items()}, **config)


def measure(views: int, steps: int) -> dict[str, Any]:
    """The best of some steps, in this process."""
    import torch

    from facednerf_core.views import Orbit

    torch.set_num_threads(1)
    network = generator()
    camera = Orbit().view(*[(0.2 * index, 0.1 * index) for index in range(views)]).camera
    z = torch.randn(1, network.backbone.mapping.z_dim, generator=torch.Generator().manual_seed(0))
    latent = network.mapping(z, camera[:, 0], 0.7)
    runs: list[tuple[float, float, dict[str, float]]] = []  # processor, wall clock, processor by part
    for _ in range(steps + 1):
        ws = latent.clone().requires_grad_()
        clock = [(time.process_time(), time.perf_counter())]
        planes = network.planes(ws)
        clock.append((time.process_time(), time.perf_counter()))
        volume = network.render(planes, camera)
        clock.append((time.process_time(), time.perf_counter()))
        image = network.enlarge(volume.feature, ws)
        clock.append((time.process_time(), time.perf_counter()))
        image.square().mean().backward()
        clock.append((time.process_time(), time.perf_counter()))
        assert image.shape == (1, views, 3, network.img_resolution, network.img_resolution)
        assert ws.grad is not None
        assert bool(ws.grad.isfinite().all())
        del planes, volume, image
        parts = {name: clock[i + 1][0] - clock[i][0] for i, name in enumerate(("planes", "rays", "enlarging", "backward"))}
        runs.append((clock[-1][0] - clock[0][0], clock[-1][1] - clock[0][1], parts))
    best = min(runs[1:], key=lambda run: run[0])
    unit = 2**20 if sys.platform != "darwin" else 2**30
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return {
        "views": views,
        "cpu_seconds": round(best[0], 3),
        "wall_seconds": round(min(run[1] for run in runs[1:]), 3),
        "peak_gib": round(memory, 3),
        "cpu_seconds_of": {name: round(seconds, 3) for name, seconds in best[2].items()},
        "torch": torch.__version__,
    }


def apart(views: int, steps: int, *, keep: bool) -> dict[str, Any]:
    """`measure` in a process of its own."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    command = [sys.executable, __file__, "--measure", str(views), "--steps", str(steps)]
    environment = {**os.environ, **threads, **(KEPT if keep else {})}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def table(found: dict[str, Any]) -> None:
    """Prints what was measured."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(title=f"EG3D, FFHQ 512-128: forward and backward to ws, 1 thread, PyTorch {found['torch']}")
    for name in ("views", "freed memory", "CPU s", "wall s", "peak GiB", "planes", "rays", "enlarging", "backward"):
        shown.add_column(name, justify="left" if name == "freed memory" else "right")
    for case in found["cases"]:
        numbers = (case["cpu_seconds"], case["wall_seconds"], case["peak_gib"], *case["cpu_seconds_of"].values())
        shown.add_row(str(case["views"]), case["freed_memory"], *(f"{number:.2f}" for number in numbers))
    console = Console(width=110)
    console.print(shown)
    for memory, ratio in found["two_views_over_one"].items():
        console.print(f"Two views from one synthesis cost {ratio:.2f} times one view (freed memory {memory}).")
    console.print(f"For comparison, {OFFICIAL}.")


def main(given: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--steps", type=int, default=4, help="of which the best counts")
    parser.add_argument("--measure", type=int, metavar="VIEWS", help=argparse.SUPPRESS)
    chosen = parser.parse_args(given)
    if chosen.measure:
        print(json.dumps(measure(chosen.measure, chosen.steps)))
        return
    cases = [
        {"freed_memory": memory} | apart(views, chosen.steps, keep=memory == "kept")
        for memory in ("returned", "kept")
        for views in VIEWS
    ]
    seconds = {(case["freed_memory"], case["views"]): case["cpu_seconds"] for case in cases}
    found = {
        "benchmark": "eg3d ffhq 512-128, forward and backward to ws, 128 x 128 rays, 48 + 48 samples",
        "threads": 1,
        "torch": cases[0]["torch"],
        "cases": [{key: value for key, value in case.items() if key != "torch"} for case in cases],
        "two_views_over_one": {memory: round(seconds[memory, 2] / seconds[memory, 1], 3) for memory in ("returned", "kept")},
        "official": {"seconds": [22, 33], "peak_gib": 3.9},
    }
    if chosen.json:
        print(json.dumps(found, indent=1))
    else:
        table(found)


if __name__ == "__main__":
    main()
