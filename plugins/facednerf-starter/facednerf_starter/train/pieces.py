"""Training in pieces: run for some minutes, save everything, go on later as if nothing had happened.

The state of a run is its networks, their running averages, its optimisers and the number of steps done; everything
else is a pure function of (seed, step), so a resumed run equals an uninterrupted one bitwise on the same machine.
One safetensors file holds it, written whole or not at all; the settings stand beside the tensors as JSON.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from facednerf_core.errors import FacednerfError


class PieceError(FacednerfError):
    """A saved run cannot be gone on with, or its training broke."""


COOL = 0.3
"""Share of the steps, at the end, over which the learning rate falls."""


def rate(step: int, steps: int | None, *, warm: int = 200) -> float:
    """Factor of the learning rate: linear from 0 over `warm` steps, then 1, then half a cosine to 0 over the last
    COOL of the steps; while the number of steps is not yet known, no fall."""
    if step < warm:
        return (step + 1) / warm
    if steps is None:
        return 1.0
    fall = (step - (1 - COOL) * steps) / max(1.0, COOL * steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, fall))))


def set_rate(optimizer: Optimizer, value: float) -> None:
    """Sets the learning rate of every parameter group, times the group's `factor` if it has one; a rate that is a tensor
    keeps its place in memory."""
    for group in optimizer.param_groups:
        own = value * group.get("factor", 1.0)
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(own)
        else:
            group["lr"] = own


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file whole or not at all."""
    fresh = path.with_name(path.name + ".part")
    fresh.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    fresh.replace(path)


class Piece:
    """A resumable run: `piece.run(one_step, minutes)` until `piece.finished`.

    `networks` and `optimizers` are by name; `averaged` names the networks of which a running average is kept
    (decay min(ema, (1 + step) / (10 + step)); buffers are copied). `settings` is whatever must not change between
    pieces (widths, rates, batch); a piece that finds a saved state with other settings refuses it.
    Opening a piece in a folder that holds a state goes on from it. Bring the networks to their device and memory
    layout before: the averages follow the parameters' storage.
    With `steps` None the clock decides: when 1 - COOL of a piece's minutes are over, the number of steps is set so
    that the fall of the learning rate fills the rest, and is saved with the state (give it as `steps` to repeat the
    run).
    """

    def __init__(
        self,
        out: Path,
        name: str,
        *,
        seed: int,
        steps: int | None,
        networks: Mapping[str, nn.Module],
        optimizers: Mapping[str, Optimizer],
        averaged: tuple[str, ...] = (),
        ema: float = 0.999,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.out, self.name, self.seed, self.steps = Path(out), name, seed, steps
        self.networks, self.optimizers, self.ema = dict(networks), dict(optimizers), ema
        self.settings = json.loads(json.dumps({"seed": seed, "steps": steps, "ema": ema, **(settings or {})}))
        self.step = 0
        self.seconds = 0.0
        self.out.mkdir(parents=True, exist_ok=True)
        self.averages: dict[str, dict[str, Tensor]] = {
            which: {key: value.detach().clone() for key, value in self.networks[which].state_dict().items()}
            for which in averaged
        }
        if self.path.exists():
            self._load()
        self._pairs = self._averaged_pairs()

    @property
    def path(self) -> Path:
        """The file of the state."""
        return self.out / f"{self.name}.state.safetensors"

    @property
    def log(self) -> Path:
        """One JSON object per logged line."""
        return self.out / f"{self.name}.log.jsonl"

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.steps is not None and self.step >= self.steps

    def run(
        self,
        one_step: Callable[[int], Mapping[str, Tensor]],
        minutes: float,
        *,
        at_most: int | None = None,
        total: float | None = None,
        every: int = 50,
        save_minutes: float = 3.0,
    ) -> bool:
        """Calls `one_step(step)` until all steps are done, or the minutes are over, or `at_most` steps were made; then
        saves, and returns whether all steps are done. Where the clock decides the number of steps, it is by `total`
        minutes of all pieces together, if given, rather than by this piece's.

        `one_step` moves the networks (gradients and optimisers are its own) and returns detached scalars to log; they
        stay on the device and are read once per `every` steps. A scalar that is not finite stops the run and leaves
        the last saved state.
        """
        began = saved = ticked = time.monotonic()
        before, pending, first = self.seconds, 0, self.step
        sums: dict[str, Tensor] = {}
        while not self.finished and (elapsed := time.monotonic() - began) < 60 * minutes:
            if at_most is not None and self.step - first >= at_most:
                break
            spent = elapsed if total is None else before + elapsed
            if self.steps is None and spent > 60 * (total or minutes) * (1 - COOL):
                self.steps = int(self.step / (1 - 0.97 * COOL)) + 1
                print(f"{self.name}: the clock sets {self.steps} steps", flush=True)
            for key, value in one_step(self.step).items():
                sums[key] = sums[key] + value.detach() if key in sums else value.detach().clone()
            self.step += 1
            pending += 1
            self._average()
            if self.step % every == 0 or self.finished:
                now = time.monotonic()
                self.seconds = before + now - began
                self._report({key: float(value) / pending for key, value in sums.items()}, pending / (now - ticked))
                sums, pending, ticked = {}, 0, time.monotonic()
                if now - saved > 60 * save_minutes:
                    self.save()
                    saved = time.monotonic()
        self._finite({key: float(value) for key, value in sums.items()})
        self.seconds = before + time.monotonic() - began
        self.save()
        return self.finished

    def run_rest(
        self,
        one_step: Callable[[int], Mapping[str, Tensor]],
        minutes: float,
        began: float,
        *,
        total: float | None = None,
        every: int = 50,
    ) -> bool:
        """`run`, for what preparation has left of these minutes since `began`, a time of `time.monotonic`."""
        spent = time.monotonic() - began
        print(f"{self.name}: prepared in {spent:.0f} s", flush=True)
        return self.run(one_step, max(0.0, minutes - spent / 60), total=total, every=every)

    def average_into(self, which: str, network: nn.Module) -> nn.Module:
        """Copies the running average of a network into another of its kind, and returns that."""
        network.load_state_dict(self.averages[which])
        return network

    def save(self) -> None:
        """Writes the state, whole or not at all."""
        tensors = {key: value.detach().cpu().contiguous().clone() for key, value in self._tensors().items()}
        about = {"step": self.step, "steps": self.steps, "seconds": self.seconds, "settings": self.settings}
        fresh = self.path.with_name(self.path.name + ".part")
        save_file(tensors, fresh, metadata={"piece": json.dumps(about)})
        fresh.replace(self.path)

    def _tensors(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for which, network in self.networks.items():
            found |= {f"network/{which}/{key}": value for key, value in network.state_dict().items()}
        for which, average in self.averages.items():
            found |= {f"average/{which}/{key}": value for key, value in average.items()}
        for which, optimizer in self.optimizers.items():
            for number, state in optimizer.state_dict()["state"].items():
                found |= {f"optimizer/{which}/{number}/{key}": torch.as_tensor(value) for key, value in state.items()}
        return found

    def _load(self) -> None:
        with safe_open(self.path, framework="pt") as file:
            about = json.loads(file.metadata()["piece"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (safe_open is no mapping)
        changed = {
            key: (about["settings"].get(key), self.settings.get(key))
            for key in {*about["settings"], *self.settings}
            if about["settings"].get(key) != self.settings.get(key)
        }
        if changed:
            told = ", ".join(f"{key} {old} -> {new}" for key, (old, new) in sorted(changed.items()))
            raise PieceError(f"'{self.path}' was begun with other settings ({told}); use those, or another --out")
        self.step, self.steps, self.seconds = about["step"], about["steps"], about["seconds"]
        groups: dict[tuple[str, str], dict[str, Tensor]] = {}
        for key, value in tensors.items():
            kind, which, rest = key.split("/", 2)
            groups.setdefault((kind, which), {})[rest] = value
        for which, network in self.networks.items():
            network.load_state_dict(groups[("network", which)])
        for which, average in self.averages.items():
            for key, value in average.items():
                value.copy_(groups[("average", which)][key])
        for which, optimizer in self.optimizers.items():
            self._load_optimizer(optimizer, groups.get(("optimizer", which), {}))
        if self.log.exists():
            lines = [line for line in self.log.read_text().splitlines() if json.loads(line)["step"] <= self.step]
            self.log.write_text("".join(line + "\n" for line in lines))
        print(f"{self.name}: going on from step {self.step} of {self.steps or '?'}", flush=True)

    @staticmethod
    def _load_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            number, name = key.split("/", 1)
            parameter = parameters[int(number)]
            if value.shape == parameter.shape and value.ndim:  # a moment: keep the parameter's memory layout
                value = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
            state.setdefault(int(number), {})[name] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})

    def _averaged_pairs(self) -> tuple[list[Tensor], list[Tensor], list[tuple[Tensor, Tensor]]]:
        moving, live, copied = [], [], []
        for which, average in self.averages.items():
            state = self.networks[which].state_dict()  # shares the network's memory, which stays in place
            for key, value in average.items():
                if value.is_floating_point():
                    moving.append(value)
                    live.append(state[key].detach())
                else:
                    copied.append((value, state[key]))
        return moving, live, copied

    @torch.no_grad()
    def _average(self) -> None:
        moving, live, copied = self._pairs
        if moving:
            torch._foreach_lerp_(moving, live, 1 - min(self.ema, (1 + self.step) / (10 + self.step)))
        for value, source in copied:
            value.copy_(source)

    def _finite(self, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            if not math.isfinite(value):
                raise PieceError(
                    f"{self.name}: '{key}' is {value} at step {self.step}; the state before is kept in '{self.path}'. "
                    "Lower the learning rate or change the seed"
                )

    def _report(self, values: dict[str, float], speed: float) -> None:
        self._finite(values)
        line = {"step": self.step, **values, "steps_per_second": speed, "seconds": self.seconds}
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        told = "  ".join(f"{key} {value:.5g}" for key, value in values.items())
        print(
            f"{self.name} {self.step}/{self.steps or '?'}  {told}  {speed:.2f} steps/s  {self.seconds:.0f} s",
            flush=True,
        )
