"""fdn in processes of its own, quickly: forked from a server that has imported the libraries once.

A child that is killed dies as any process does; it shares nothing with the test but the files that it writes.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LIBRARIES = (
    "facednerf_core.cli.app",
    "facednerf_core.results",
    "facednerf_core.runs",
    "facednerf_core.photos",
    "facednerf_arcface.identity",
    "facednerf_eg3d.generator",
    "facednerf_inverters",
    "facednerf_sds.guidance",
    "facednerf_starter.detector.finder",
    "diffusers.models.autoencoders.autoencoder_kl",
    "diffusers.models.unets.unet_2d_condition",
    "diffusers.schedulers.scheduling_ddim",
    "transformers.models.clip.modeling_clip",
    "transformers.models.clip.tokenization_clip",
    "skimage.feature",
    "scipy.stats",
    "av",
)
_server = multiprocessing.get_context("forkserver")


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code, or less than 0 the signal, and what it said."""

    code: int
    out: str
    err: str


def fdn(arguments: Sequence[object], said: Path, environment: Mapping[str, str] | None = None) -> Ended:
    """Runs fdn to its end; `said` is a folder for what it writes on its two streams."""
    _server.set_forkserver_preload(["torch", *LIBRARIES])
    said.mkdir(parents=True, exist_ok=True)
    given = {name: value for name, value in os.environ.items() if name not in ("PYTEST_CURRENT_TEST",)}
    words = [str(word) for word in arguments]
    child = _server.Process(target=_run, args=(words, str(said), {**given, **(environment or {})}, list(sys.path)))
    child.start()
    child.join()
    assert child.exitcode is not None
    return Ended(child.exitcode, (said / "out").read_text(), (said / "err").read_text())


def _run(arguments: list[str], said: str, environment: dict[str, str], path: list[str]) -> None:
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(os.path.join(said, name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)  # noqa: PTH118
        os.dup2(file, number)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:] = path
    sys.argv = ["fdn", *arguments]
    import torch

    torch.set_num_threads(1)
    from facednerf_core.cli import main

    main()
