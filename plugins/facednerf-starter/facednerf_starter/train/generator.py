"""Trains the starter's generators: EG3D's or PanoHead's architecture, supervised by many views of the world's heads.

A head's latent z is the Gaussian draw from which the world made it, mixed by an orthogonal matrix, so that no axis is
an attribute. z -> mapping -> w -> planes is learned end to end; no attribute, caption or camera enters. The mapping
begins as the recipe `mapping` taught it; while training, and only then, a linear reading of w goes on to have to tell
the head's attributes and light, on fresh draws. Or W is designed, where that recipe says so, and the mapping is fitted
to it apart. The fixed noise maps of the planes' layers (`noise_const`) are learned too. Part of each batch has its w
disturbed a little, so that what lies between latents stays a head.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from facednerf_eg3d import axesfile
from facednerf_eg3d.layers import ModulatedConvolution
from facednerf_eg3d.mapping import statistics
from facednerf_eg3d.sampling import Draws
from safetensors.torch import load_file
from torch import Tensor

from facednerf_core import statedicts
from facednerf_core.errors import InputError
from facednerf_core.perceptual import distance, from_tensors
from facednerf_starter.train import draws, showing
from facednerf_starter.train.architectures import ARCHITECTURES, Network, build, configuration
from facednerf_starter.train.arguments import add_run_arguments, device_of
from facednerf_starter.train.capture import Captured, Step, adam_of
from facednerf_starter.train.exports import card, export, keep
from facednerf_starter.train.likeness import Truth, likeness
from facednerf_starter.train.mapping import Design, Readout, layers_of, taught, told
from facednerf_starter.train.pieces import Piece, rate, set_rate
from facednerf_starter.train.shards import Shards
from facednerf_starter.world.attributes import Z_DIM

WEIGHTS = {
    "image": 1.0,
    "raw": 0.5,
    "edges": 1.0,
    "texture": 1.0,
    "alpha": 0.5,
    "depth": 5.0,
    "features": 0.3,
    "reading": 0.5,
}
LEARNED = (
    "W was learned, not designed: z -> mapping -> w -> planes end to end, from Gaussian draws; no attribute or caption "
    "enters. Supervised, though: while training, the world's attributes were to be read linearly from w."
)
DESIGNED = (
    "W was designed, not learned: it is the world's attributes and light, standardised and lifted by a fixed orthogonal "
    "matrix; the mapping was fitted to it. Edits are easier in it than in a real GAN's W: it is no evidence about one."
)
READ = 1024
"""Fresh draws in each step from whose w the attributes are read."""
CONVOLUTION = 4
"""Dimensions of a convolution's weights."""
LATE = 0.6
"""Share of the steps after which rays get all their samples and the perceptual features join in."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the recipe."""
    add_run_arguments(parser, batch=24)
    parser.add_argument("--backbone", choices=sorted(ARCHITECTURES), default="eg3d", help="whose architecture")
    parser.add_argument("--views", type=int, default=2, help="views of each head in a step")
    parser.add_argument("--rate", type=float, default=1e-2, help="Adam's learning rate")
    parser.add_argument("--channels", type=int, default=256, help="most channels of a layer")
    parser.add_argument("--features", type=int, default=16, help="channels of a plane")
    parser.add_argument("--hidden", type=int, default=48, help="width of the decoder")
    parser.add_argument("--samples", type=int, nargs=2, default=[20, 20], help="coarse and fine samples of a ray")
    parser.add_argument("--unrecorded", action="store_true", help="make every step plainly, also on a GPU")
    parser.add_argument("--half", action="store_true", help="the convolutions in bfloat16")
    parser.add_argument("--disturb", type=float, default=0.15, help="largest disturbance of w, in its deviation")
    parser.add_argument("--mapping", type=Path, help="mapping.safetensors of the recipe `mapping`, to begin with")
    parser.add_argument("--designed", action="store_true", help="W by design, its mapping to be fitted apart")
    parser.add_argument("--layers", type=int, default=4, help="layers of the mapping, where none is given")
    parser.add_argument("--start", type=Path, help="tensors of an earlier run of the same sizes, to begin with")
    parser.add_argument("--perceptual", type=Path, help="perceptual.safetensors, for the last part of the training")


def parameter_groups(network: Network, *, taught: bool) -> list[dict[str, Any]]:
    """The mapping's layers, whose stored weights are a hundredfold, move fiftyfold, half as fast as all others; one that
    was taught before, tenfold."""
    mapping = layers_of(network.backbone.mapping)
    chosen = {id(p) for p in mapping}
    rest = [p for p in network.parameters() if id(p) not in chosen]
    return [{"params": rest, "factor": 1.0}, {"params": mapping, "factor": 10.0 if taught else 50.0}]


class HeadReader:
    """Reads heads with several views each."""

    def __init__(self, shards: Shards, device: torch.device) -> None:
        self.shards, self.device = shards, device
        self._training = shards.training.to(device)
        self._fields = {name: shards.field(name, device) for name in ("image", "mask", "depth", "landmarks", "cameras")}
        self._z = shards.field("z").take(torch.arange(shards.count)).float().to(device)
        self._told = torch.cat([told(part) for part in self._z.split(4096)])

    def pick(self, count: int, views: int, at: draws.Key) -> tuple[Tensor, Tensor]:
        """Training heads (count,), and different views of each (count, views)."""
        heads = self._training[draws.integers((count,), len(self._training), at, self.device)]
        order = draws.uniform((count, self.shards.views), (at[0] ^ 1, at[1]), self.device).argsort(1)
        return heads, order[:, :views]

    def read(self, heads: Tensor, views: Tensor) -> tuple[Tensor, Tensor, Truth]:
        """The latents (N, z_dim), what the world makes of them (N, A), and what it shows of heads (N,) in views (N, V)."""
        field = {name: field.take(heads, views).to(self.device) for name, field in self._fields.items()}
        truth = Truth(
            image=field["image"].permute(0, 1, 4, 2, 3).float() / 127.5 - 1,
            mask=field["mask"].unsqueeze(2).float() / 255,
            depth=field["depth"].unsqueeze(2).float(),
            landmarks=field["landmarks"].float(),
            cameras=field["cameras"].float(),
        )
        return self._z[heads], self._told[heads], truth


def run(args: argparse.Namespace) -> None:
    """One piece of the recipe; exports when the last step is done."""
    device = device_of(args)
    shards = Shards(args.data, held_every=args.held)
    reader = HeadReader(shards, device)
    views = min(args.views, shards.views)
    torch.manual_seed(args.seed)
    about: dict[str, Any] = {"width": 32 if args.tiny else 256, "layers": args.layers, "designed": args.designed}
    if args.mapping:
        mapping, reading, about = taught(args.mapping)
    elif args.start and args.designed:
        about = fitted(args.start, args.seed)
    config = configuration(
        args.backbone, shards.size, width=about["width"], layers=about["layers"], channels=args.channels,
        features=args.features, hidden=args.hidden, samples=(args.samples[0], args.samples[1]), tiny=args.tiny,
    )  # fmt: skip
    network = build(args.backbone, config).to(device)
    designed = bool(about.get("designed"))
    w_reader = (Design if designed else Readout)(config["w_dim"], args.seed, device).to(device)
    if args.start:
        begin(network, args.start)
    if args.mapping:
        network.backbone.mapping.load_state_dict(mapping)
        w_reader.load_state_dict(reading)
    network.backbone.mapping.requires_grad_(not designed)
    groups = parameter_groups(network, taught=bool(args.mapping))
    groups += [{"params": list(w_reader.parameters()), "factor": 0.3}]
    adam = adam_of([group for group in groups if group["params"]], args.rate, device)
    features = None
    if args.perceptual:
        features = from_tensors(load_file(args.perceptual), shards.size, str(args.perceptual)).to(device)
    piece = Piece(
        args.out,
        ARCHITECTURES[args.backbone].file,
        seed=args.seed,
        steps=args.steps,
        networks={"generator": network, "reader": w_reader},
        optimizers={"adam": adam},
        averaged=("generator",),
        ema=0.998,
        settings={
            "batch": args.batch, "views": views, "rate": args.rate, "held": args.held, "tiny": args.tiny,
            "disturb": args.disturb, "mapping": about, "start": bool(args.start), **config,
        },
    )  # fmt: skip
    full = network.options
    sparse = replace(full, coarse=max(4, full.coarse * 2 // 3), fine=max(4, full.fine * 2 // 3))
    rays = network.neural_rendering_resolution**2
    label = torch.zeros(args.batch, 25, device=device)
    print(f"generator: {sum(p.numel() for p in network.parameters()) / 1e6:.2f} M parameters", flush=True)

    def learn(late: bool, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One step of Adam on a batch."""
        adam.zero_grad(set_to_none=True)
        z, wanted, truth = reader.read(given["heads"], given["views"])
        ws = w_reader.rows(wanted, network.num_ws) if isinstance(w_reader, Design) else network.mapping(z, label)
        ws = disturbed(ws, args.disturb, given)
        network.options = full if late else sparse
        with torch.autocast(device.type, torch.bfloat16, enabled=args.half, cache_enabled=False):
            image, volume = network(ws, truth.cameras, draws=Draws(given["coarse"], given["fine"]))
        parts = likeness(image, volume, truth)
        if features is not None and late:
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda", cache_enabled=False):
                with torch.no_grad():
                    seen = features(truth.image[:, 0])
                found = features(image[:, 0])
            parts["features"] = distance([x.float() for x in found], [x.float() for x in seen]).mean()
        if not designed:
            w = network.mapping(given["fresh"], label[:1].expand(len(given["fresh"]), -1))[:, 0]
            parts["reading"] = w_reader.errors(w, given["fresh told"]).mean()
        loss = torch.stack([WEIGHTS[name] * value for name, value in parts.items()]).sum()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        adam.step()
        return {**{name: value.detach() for name, value in parts.items()}, "gradient": norm.detach()}

    steps: dict[bool, Step] = {late: partial(learn, late) for late in (False, True)}
    if not args.unrecorded:
        steps = {late: Captured(step, device) for late, step in steps.items()}

    def one_step(step: int) -> dict[str, Tensor]:
        def at(name: str) -> draws.Key:
            return draws.key(args.seed, "generator", name, step)

        late = piece.steps is not None and step >= LATE * piece.steps
        fall = rate(step, piece.steps, warm=100)
        set_rate(adam, args.rate * (0.04 + 0.96 * fall if step >= 100 else fall))
        options = full if late else sparse
        heads, seen = reader.pick(args.batch, views, at("pick"))
        given = {
            "heads": heads,
            "views": seen,
            "coarse": draws.uniform((1, views, rays, options.coarse), at("coarse"), device),
            "fine": draws.uniform((1, views, rays, options.fine), at("fine"), device),
            **disturbance(args.batch, network.num_ws, config["w_dim"], at("disturb"), device),
        }
        if not designed:
            given["fresh"] = draws.normal((4 * args.batch if args.tiny else READ, Z_DIM), at("fresh"), device)
            given["fresh told"] = told(given["fresh"])
        return steps[late](given)

    if piece.run(one_step, args.minutes, total=args.total, every=100) or args.close:
        finish(args, piece, reader, config, w_reader if isinstance(w_reader, Design) else None)


@torch.no_grad()
def begin(network: Network, path: Path) -> None:
    """Gives a network the tensors of an exported one; its noise maps are taken as they act, at full strength again.

    Raises:
        InputError: the tensors are another network's.
    """
    tensors = statedicts.read(path)
    statedicts.check(
        tensors, network.state_dict(), "the network to be trained", hint=f"Give the sizes and the --backbone of '{path}'."
    )
    for name in tensors:
        if name.startswith("backbone.synthesis.") and name.endswith("noise_const"):
            strength = tensors[name.replace("noise_const", "noise_strength")]
            tensors[name] = tensors[name] * strength
            strength.fill_(1.0)
    network.load_state_dict(tensors)


def fitted(path: Path, seed: int) -> dict[str, Any]:
    """What the card beside exported tensors says of their mapping, which a designed W leaves as it is.

    Raises:
        InputError: their W was not designed, or by another seed: then it is another W.
    """
    about: dict[str, Any] = json.loads(path.with_suffix(".card.json").read_text("utf-8"))["settings"]["mapping"]
    if not about.get("designed"):
        raise InputError(f"the W of '{path}' was learned, so --designed cannot go on from it; leave --designed out.")
    if about.get("seed", seed) != seed:
        raise InputError(
            f"the W of '{path}' was designed by seed {about['seed']}; go on with --seed {about['seed']}, not {seed}."
        )
    return about


def begun_with(path: Path) -> dict[str, Any]:
    """What the card beside exported tensors says of how they were trained."""
    told_of = json.loads(path.with_suffix(".card.json").read_text("utf-8"))
    return {name: told_of[name] for name in ("steps", "seconds", "hardware", "begun_with") if name in told_of} | {
        "heads": told_of["data"]["heads"]
    }


def disturbance(count: int, rows: int, width: int, at: draws.Key, device: torch.device) -> dict[str, Tensor]:
    """The numbers behind `disturbed`: kinds and sizes (count, 1, 1), and directions (count, rows, width)."""
    return {
        "kind": draws.uniform((count, 1, 1), at, device),
        "size": draws.uniform((count, 1, 1), (at[0] ^ 1, at[1]), device),
        "move": draws.normal((count, rows, width), (at[0] ^ 2, at[1]), device),
    }


def disturbed(ws: Tensor, largest: float, numbers: Mapping[str, Tensor]) -> Tensor:
    """Latents (N, L, C), half of them moved by up to `largest` deviations: a quarter by one vector for all rows, a
    quarter by one for each row; `numbers` from `disturbance`."""
    deviation = ws[:, 0].detach().std(0) if len(ws) > 1 else torch.zeros_like(ws[0, 0])
    kind, each = numbers["kind"], numbers["move"]
    move = torch.where(kind < 0.25, each[:, :1], torch.where(kind < 0.5, each, 0.0))
    return ws + move * (numbers["size"] * largest) * deviation


def stored(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the file holds: the convolutions in eight bits, row by row, which is not to be seen; all else in half."""
    kept: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if value.ndim == CONVOLUTION:
            kept |= statedicts.packed(value, name)
        else:
            kept[name] = value.half() if value.is_floating_point() else value
    return kept


def keep_axes(out: Path, design: Design) -> None:
    """Writes axes.safetensors: the directions along which W was designed, where it has room for all of them."""
    width, count = design.lift.shape
    if width >= count:
        keep(out / "axes.safetensors", {axesfile.ROLE: design.lift.T})


def finish(
    args: argparse.Namespace, piece: Piece, reader: HeadReader, config: dict[str, Any], design: Design | None
) -> None:
    """Statistics of W, the noise maps at unit deviation, measures and pictures of what the file holds, the file, and
    the axes of a W by design."""
    device = reader.device
    kind = ARCHITECTURES[args.backbone]
    network = build(args.backbone, config).to(device).requires_grad_(False).eval()
    piece.average_into("generator", network)
    with torch.no_grad():
        for layer in network.backbone.synthesis.modules():
            if isinstance(layer, ModulatedConvolution):
                size = layer.noise_const.square().mean().sqrt().clamp_min(1e-8)
                layer.noise_const.div_(size)
                layer.noise_strength.mul_(size)
    found = statistics(network.backbone.mapping, torch.zeros(25))
    network.backbone.mapping.w_avg.copy_(found.mean)
    tensors = stored(network.state_dict())
    frozen = kind.plain.from_state_dict(statedicts.plain(tensors), **config)
    measured = showing.measure(frozen, reader, args.out, design)
    showing.pictures(frozen, reader, args.out, seed=args.seed, deviation=found.deviation, design=design)
    measured["w_deviation_mean"] = round(float(found.deviation.mean()), 4)
    print(f"{kind.file}: {measured}", flush=True)
    began = {"begun_with": begun_with(args.start)} if args.start else {}
    if design is not None:
        keep_axes(args.out, design)
    export(
        args.out,
        kind.file,
        tensors,
        {"class": f"{kind.plain.__module__}.{kind.plain.__name__}", **config},
        began
        | card(
            piece,
            reader.shards,
            device,
            about=f"{LEARNED if design is None else DESIGNED} {kind.about}",
            recipe=f"python -m facednerf_starter.train generator --backbone {args.backbone}: many-view supervision (not "
            "adversarial): weighted L1, edges and contrast of the image, L1 of raw image and alpha, depth; w disturbed "
            "in half of a batch; learned noise_const.",
            measured=measured,
            limits="Synthetic, stylised heads only. Supervised latents are smoother and more complete than a GAN's: "
            "inversions and edits look easier here than with EG3D's official weights.",
        ),
    )
