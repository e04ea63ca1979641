"""A checkpoint: the state of the loop in one safetensors file, written whole or not at all. No pickle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from facednerf_core.errors import InputError
from facednerf_core.files import write_tensors
from facednerf_core.loop import State
from facednerf_core.scene import Latent
from facednerf_core.views import View

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import Tensor

GROUPS = ("noise", "source.noise", "weights", "moments", "guidance")


def save(state: State, path: Path) -> None:
    """Write a state."""
    tensors: dict[str, Tensor] = {
        "source.w": state.source.w,
        "offset": state.offset,
        "home": state.home.camera,
        "increment": state.increment,
    }
    if state.home.pose is not None:
        tensors["pose"] = state.home.pose
    groups: Mapping[str, Mapping[str, Tensor]] = {
        "noise": state.noise,
        "source.noise": state.source.noise,
        "weights": state.weights,
        "moments": state.moments,
        "guidance": state.guidance,
    }
    for group, members in groups.items():
        tensors |= {f"{group}:{name}": value for name, value in members.items()}
    write_tensors(path, tensors, {"stage": state.stage, "index": str(state.index)})


def load(path: Path, device: torch.device) -> State:
    """Read a state back, bit for bit.

    Raises:
        InputError: the file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            # copied: tensors read in place lie at any address, and matrix products differ in the last bit by alignment
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a dict
            meta = file.metadata()
    except (SafetensorError, OSError) as error:
        raise InputError(f"the checkpoint {path} cannot be read ({error}); start the run again.") from error

    def group(name: str) -> dict[str, Tensor]:
        return {key.split(":", 1)[1]: value for key, value in tensors.items() if key.startswith(f"{name}:")}

    return State(
        meta["stage"],
        int(meta["index"]),
        Latent(tensors["source.w"], group("source.noise")),
        tensors["offset"],
        group("noise"),
        View(tensors["home"], tensors.get("pose")),
        tensors["increment"],
        group("weights"),
        group("moments"),
        group("guidance"),
    )
