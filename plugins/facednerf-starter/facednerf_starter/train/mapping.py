"""Teaches the generator's mapping without a picture: z -> w, on many millions of fresh Gaussian draws of the world.

Two ways. Learned: w must tell the head's attributes and light linearly; the generator's recipe begins with this mapping
and learns both on together. Designed: w is the standardised attributes and light under a fixed orthogonal lift
(`Design`), with which the generator is trained directly; the mapping is fitted to it. Nothing but z enters a mapping.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from facednerf_eg3d.mapping import MappingNetwork, statistics
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from facednerf_core.errors import InputError
from facednerf_starter.train import draws
from facednerf_starter.train.arguments import add_piece_arguments, device_of
from facednerf_starter.train.capture import Captured, adam_of
from facednerf_starter.train.pieces import Piece, rate, set_rate, write_json
from facednerf_starter.world.attributes import VECTOR, Z_DIM, Attributes, decode

LABEL_DIM = 25
"""Numbers of the camera label, which the mapping ignores."""


def standard(seed: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Means and deviations (A,) of what the world makes of Gaussian draws."""
    truth = told(draws.normal((8192, Z_DIM), draws.key(seed, "generator", "standard"), device))
    return truth.mean(0), truth.std(0).clamp_min(1e-2)


def told(z: Tensor) -> Tensor:
    """What the world makes of Gaussian draws (N, Z_DIM), as numbers (N, A): every attribute, then the light."""
    return numbers(decode(z))


def numbers(heads: Attributes) -> Tensor:
    """Heads as numbers (N, A): every attribute, then the light."""
    return torch.cat([heads.vector(), heads.light.flatten(1)], dim=1).float()


class Design(nn.Module):
    """W by design: a head's attributes and light, standardised, lifted by a fixed matrix with orthonormal columns."""

    mean: Tensor
    deviation: Tensor
    lift: Tensor  # (C, A)

    def __init__(self, w_dim: int, seed: int, device: torch.device) -> None:
        super().__init__()
        mean, deviation = standard(seed, device)
        gaussian = draws.normal((max(w_dim, len(mean)), len(mean)), draws.key(seed, "generator", "lift")).double()
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)
        self.register_buffer("lift", torch.linalg.qr(gaussian).Q[:w_dim].float().to(device))

    def forward(self, heads: Tensor) -> Tensor:
        """w (N, C) of heads as numbers (N, A), from `told`."""
        return ((heads - self.mean) / self.deviation) @ self.lift.T

    def rows(self, heads: Tensor, count: int) -> Tensor:
        """Latents (N, count, C) of heads as numbers."""
        return self(heads)[:, None].repeat(1, count, 1)

    def loss(self, w: Tensor, heads: Tensor) -> Tensor:
        """Mean squared error of w (N, C), also where no attribute is, in units of a number's variance."""
        return (w - self(heads)).square().sum(1).mean() / self.lift.shape[1]

    def errors(self, w: Tensor, heads: Tensor) -> Tensor:
        """Mean squared error (A,) of what w (N, C) says of each number, in units of its variance."""
        return ((w - self(heads)) @ self.lift).square().mean(0)


class Readout(nn.Module):
    """Attributes and light of a head, standardised, as a linear function of w: asked for while training, then discarded."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, w_dim: int, seed: int, device: torch.device) -> None:
        super().__init__()
        mean, deviation = standard(seed, device)
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)
        self.linear = nn.Linear(w_dim, len(mean))

    def loss(self, w: Tensor, heads: Tensor) -> Tensor:
        """The mean of `errors`."""
        return self.errors(w, heads).mean()

    def errors(self, w: Tensor, heads: Tensor) -> Tensor:
        """Mean squared error (A,) of reading w (N, C), in units of the variance of each of heads' numbers (N, A)."""
        return (self.linear(w) - (heads - self.mean) / self.deviation).square().mean(0)


class Pool:
    """Fresh draws and what the world makes of them, made for several steps at once: each of many small operations then
    has enough to do."""

    STEPS = 32

    def __init__(self, batch: int, seed: int, device: torch.device) -> None:
        self.batch, self.seed, self.device = batch, seed, device
        self._made: int | None = None
        self._z = self._heads = torch.empty(0)

    def draw(self, step: int) -> tuple[Tensor, Tensor]:
        """The draws (batch, Z_DIM) of a step, and their heads as numbers (batch, A)."""
        number, part = divmod(step, self.STEPS)
        if number != self._made:
            at = draws.key(self.seed, "mapping", "draw", number)
            self._z = draws.normal((self.STEPS * self.batch, Z_DIM), at, self.device)
            self._heads, self._made = told(self._z), number
        rows = slice(part * self.batch, (part + 1) * self.batch)
        return self._z[rows], self._heads[rows]


def built(w_dim: int, layers: int) -> MappingNetwork:
    """A mapping as the starter's generator has it."""
    return MappingNetwork(z_dim=Z_DIM, c_dim=LABEL_DIM, w_dim=w_dim, num_ws=1, num_layers=layers, c_scale=0.0, zero_c=True)


def layers_of(mapping: MappingNetwork) -> list[nn.Parameter]:
    """The parameters that learn: its stored weights are a hundredfold, so they want a learning rate of their own."""
    return [parameter for name, parameter in mapping.named_parameters() if name.startswith("fc")]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the recipe."""
    add_piece_arguments(parser, batch=8192)
    parser.add_argument("--rate", type=float, default=1.0, help="Adam's learning rate")
    parser.add_argument("--width", type=int, default=256, help="numbers of w")
    parser.add_argument("--designed", action="store_true", help="fit the mapping to the designed W")
    parser.add_argument("--start", type=Path, help="mapping.safetensors of an earlier run, to go on from")
    parser.add_argument("--into", type=Path, help="generator.safetensors of the same designed W, to be given this mapping")
    parser.add_argument("--layers", type=int, default=4, help="layers of the mapping")


def run(args: argparse.Namespace) -> None:
    """One piece of the recipe; exports when the last step is done."""
    device = device_of(args)
    width = 32 if args.tiny else args.width
    torch.manual_seed(args.seed)
    mapping = built(width, args.layers).to(device)
    reader = (Design if args.designed else Readout)(width, args.seed, device).to(device)
    before = 0
    if args.start:
        tensors, _, earlier = taught(args.start)
        mapping.load_state_dict(tensors)
        before = earlier["draws"]
    groups = [{"params": layers_of(mapping), "factor": 1.0}, {"params": list(reader.parameters()), "factor": 0.002}]
    adam = adam_of([group for group in groups if group["params"]], args.rate, device)
    piece = Piece(
        args.out,
        "mapping",
        seed=args.seed,
        steps=args.steps,
        networks={"mapping": mapping, "reader": reader},
        optimizers={"adam": adam},
        averaged=("mapping", "reader"),
        settings={
            "batch": args.batch, "rate": args.rate, "width": width, "layers": args.layers, "tiny": args.tiny,
            "designed": args.designed,
        },
    )  # fmt: skip
    label = torch.zeros(args.batch, LABEL_DIM, device=device)

    def learn(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        adam.zero_grad(set_to_none=True)
        loss = reader.loss(mapping.row(given["z"], label), given["heads"])
        loss.backward()
        adam.step()
        return {"unexplained": loss.detach()}

    captured = Captured(learn, device)
    pool = Pool(args.batch, args.seed, device)

    def one_step(step: int) -> dict[str, Tensor]:
        set_rate(adam, args.rate * rate(step, piece.steps, warm=100))
        z, heads = pool.draw(step)
        return captured({"z": z, "heads": heads})

    if not (piece.run(one_step, args.minutes, total=args.total, every=500) or args.close):
        return
    piece.average_into("mapping", mapping)
    piece.average_into("reader", reader)
    with torch.no_grad():
        z = draws.normal((args.batch, Z_DIM), draws.key(args.seed, "mapping", "held"), device)
        errors = reader.errors(mapping.row(z, label), told(z)).tolist()
    missed = {name: round(error, 3) for name, error in zip(VECTOR, errors, strict=False)}
    missed["light"] = round(sum(errors[len(VECTOR) :]) / (len(errors) - len(VECTOR)), 3)
    print(f"mapping: share of variance not explained: {missed}", flush=True)
    unexplained = round(sum(errors) / len(errors), 4)
    about = {
        "width": width, "layers": args.layers, "designed": args.designed, "seed": args.seed,
        "draws": before + piece.step * args.batch, "unexplained": unexplained,
    }  # fmt: skip
    tensors = {f"mapping.{key}": value for key, value in mapping.state_dict().items()}
    tensors |= {f"reader.{key}": value for key, value in reader.state_dict().items()}
    path = Path(args.out) / "mapping.safetensors"
    fresh = path.with_name(path.name + ".part")
    save_file(
        {key: value.cpu().contiguous() for key, value in tensors.items()}, fresh, metadata={"mapping": json.dumps(about)}
    )
    fresh.replace(path)
    if args.into:
        give(args.into, mapping.cpu(), about)


@torch.no_grad()
def give(path: Path, mapping: MappingNetwork, about: dict[str, Any]) -> None:
    """Puts a mapping, and the mean of its W, into a generator's file, and says so on the card beside it.

    Raises:
        InputError: the mapping was fitted to a W designed from another seed than the generator's: nothing that it samples
            would be the head of its draw.
    """
    card = path.with_suffix(".card.json")
    told_of = json.loads(card.read_text("utf-8"))
    if about["designed"] and about["seed"] != told_of["settings"]["seed"]:
        raise InputError(
            f"the mapping is of seed {about['seed']} and '{path}' of seed {told_of['settings']['seed']}: their designed W "
            "differ. Fit a mapping with the generator's --seed."
        )
    mapping.w_avg.copy_(statistics(mapping, torch.zeros(LABEL_DIM)).mean)
    tensors = load_file(path)
    tensors |= {f"backbone.mapping.{key}": value.half().contiguous() for key, value in mapping.state_dict().items()}
    fresh = path.with_name(path.name + ".part")
    save_file(tensors, fresh)
    fresh.replace(path)
    told_of["settings"]["mapping"] = about
    write_json(card, told_of)


def taught(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]]:
    """Of a file that this recipe wrote: the mapping's tensors, its reader's, and how it was made."""
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["mapping"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (safe_open is no mapping)
    parts = {
        which: {key.removeprefix(f"{which}."): value for key, value in tensors.items() if key.startswith(f"{which}.")}
        for which in ("mapping", "reader")
    }
    return parts["mapping"], parts["reader"], about
