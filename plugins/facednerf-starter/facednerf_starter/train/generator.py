"""Trains the starter's generator: EG3D's architecture, supervised by many views of the world's heads.

A head's latent z is the Gaussian draw from which the world made it, mixed by an orthogonal matrix, so that no axis is
an attribute. z -> mapping -> w -> planes is learned end to end; no attribute, caption or camera enters. The mapping
begins as the recipe `mapping` taught it; while training, and only then, a linear reading of w goes on to have to tell
the head's attributes and light, on fresh draws. Or W is designed, where that recipe says so, and the mapping is fitted
to it apart. The fixed noise maps of the planes' layers (`noise_const`) are learned too. Part of each batch has its w
disturbed a little, so that what lies between latents stays a head.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from facednerf_eg3d.layers import ModulatedConvolution
from facednerf_eg3d.mapping import statistics
from facednerf_eg3d.network import TriPlaneGenerator
from facednerf_eg3d.sampling import Draws
from safetensors.torch import load_file
from torch import Tensor, nn

from facednerf_core.perceptual import distance, from_tensors
from facednerf_starter.train import draws, showing
from facednerf_starter.train.arguments import add_run_arguments, device_of
from facednerf_starter.train.exports import card, export
from facednerf_starter.train.likeness import Truth, likeness
from facednerf_starter.train.mapping import Design, Readout, layers_of, taught
from facednerf_starter.train.pieces import Piece, rate
from facednerf_starter.train.shards import Shards
from facednerf_starter.world.attributes import Z_DIM

WEIGHTS = {"image": 1.0, "raw": 0.5, "edges": 1.0, "alpha": 0.5, "depth": 5.0, "features": 0.3, "reading": 0.5}
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
LATE = 0.6
"""Share of the steps after which rays get all their samples and the perceptual features join in."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the recipe."""
    add_run_arguments(parser, batch=24)
    parser.add_argument("--views", type=int, default=2, help="views of each head in a step")
    parser.add_argument("--rate", type=float, default=1e-2, help="Adam's learning rate")
    parser.add_argument("--channels", type=int, default=256, help="most channels of a layer")
    parser.add_argument("--features", type=int, default=16, help="channels of a plane")
    parser.add_argument("--hidden", type=int, default=48, help="width of the decoder")
    parser.add_argument("--samples", type=int, nargs=2, default=[20, 20], help="coarse and fine samples of a ray")
    parser.add_argument("--disturb", type=float, default=0.15, help="largest disturbance of w, in its deviation")
    parser.add_argument("--mapping", type=Path, help="mapping.safetensors of the recipe `mapping`, to begin with")
    parser.add_argument("--perceptual", type=Path, help="perceptual.safetensors, for the last part of the training")


def configuration(args: argparse.Namespace, size: int, *, width: int, layers: int) -> dict[str, Any]:
    """Arguments of `TriPlaneGenerator`; `width` and `layers` are the mapping's."""
    return {
        "z_dim": Z_DIM,
        "c_dim": 25,
        "w_dim": width,
        "img_resolution": size,
        "img_channels": 3,
        "rendering_kwargs": {
            "depth_resolution": 6 if args.tiny else args.samples[0],
            "depth_resolution_importance": 6 if args.tiny else args.samples[1],
            "ray_start": 2.25,
            "ray_end": 3.3,
            "box_warp": 1,
            "white_back": True,
            "c_scale": 0.0,
            "c_gen_conditioning_zero": True,
            "superresolution_module": "SuperresolutionHybrid2X",
            "superresolution_noise_mode": "none",
            "sr_antialias": True,
            "decoder_lr_mul": 1.0,
            "avg_camera_radius": 2.7,
            "avg_camera_pivot": [0, 0, 0.2],
        },
        "mapping_kwargs": {"num_layers": layers},
        "channel_base": 512 if args.tiny else 24 * args.channels,
        "channel_max": 8 if args.tiny else args.channels,
        "plane_resolution": 32 if args.tiny else 128,
        "plane_features": 4 if args.tiny else args.features,
        "decoder_hidden": 8 if args.tiny else args.hidden,
        "neural_rendering_resolution": size // 2,
        "sr_input_resolution": size // 2,
        "sr_widths": [8, 4] if args.tiny else [48, 24],
    }


def build(config: dict[str, Any]) -> TriPlaneGenerator:
    """The generator, its planes' noise maps made parameters: zero at first, at full strength."""
    network = TriPlaneGenerator(**config)
    for layer in network.backbone.synthesis.modules():
        if isinstance(layer, ModulatedConvolution):
            shape = layer.noise_const.shape
            del layer.noise_const
            layer.noise_const = nn.Parameter(torch.zeros(shape))
            nn.init.ones_(layer.noise_strength)
    return network


def parameter_groups(network: TriPlaneGenerator, *, taught: bool) -> list[dict[str, Any]]:
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
        self._fields = {name: shards.field(name, device) for name in ("z", "image", "mask", "depth", "landmarks", "cameras")}

    def pick(self, count: int, views: int, at: draws.Key) -> tuple[Tensor, Tensor]:
        """Training heads (count,), and different views of each (count, views)."""
        heads = self._training[draws.integers((count,), len(self._training), at, self.device)]
        order = draws.uniform((count, self.shards.views), (at[0] ^ 1, at[1]), self.device).argsort(1)
        return heads, order[:, :views]

    def read(self, heads: Tensor, views: Tensor) -> tuple[Tensor, Truth]:
        """The latents (N, z_dim) and what the world shows of heads (N,) in views (N, V)."""
        field = {
            name: (field.take(heads) if name == "z" else field.take(heads, views)).to(self.device)
            for name, field in self._fields.items()
        }
        truth = Truth(
            image=field["image"].permute(0, 1, 4, 2, 3).float() / 127.5 - 1,
            mask=field["mask"].unsqueeze(2).float() / 255,
            depth=field["depth"].unsqueeze(2).float(),
            landmarks=field["landmarks"].float(),
            cameras=field["cameras"].float(),
        )
        return field["z"].float(), truth


def run(args: argparse.Namespace) -> None:
    """One piece of the recipe; exports when the last step is done."""
    device = device_of(args)
    shards = Shards(args.data, held_every=args.held)
    reader = HeadReader(shards, device)
    views = min(args.views, shards.views)
    torch.manual_seed(args.seed)
    about: dict[str, Any] = {"width": 32 if args.tiny else 256, "layers": 4}
    if args.mapping:
        mapping, reading, about = taught(args.mapping)
    config = configuration(args, shards.size, width=about["width"], layers=about["layers"])
    network = build(config).to(device)
    designed = bool(about.get("designed"))
    w_reader = (Design if designed else Readout)(config["w_dim"], args.seed, device).to(device)
    if args.mapping:
        network.backbone.mapping.load_state_dict(mapping)
        w_reader.load_state_dict(reading)
    network.backbone.mapping.requires_grad_(not designed)
    groups = parameter_groups(network, taught=bool(args.mapping))
    groups += [{"params": list(w_reader.parameters()), "factor": 0.3}]
    adam = torch.optim.Adam(groups, lr=args.rate, betas=(0.9, 0.99))
    features = None
    if args.perceptual:
        features = from_tensors(load_file(args.perceptual), shards.size, str(args.perceptual)).to(device)
    piece = Piece(
        args.out,
        "generator",
        seed=args.seed,
        steps=args.steps,
        networks={"generator": network, "reader": w_reader},
        optimizers={"adam": adam},
        averaged=("generator",),
        ema=0.998,
        settings={
            "batch": args.batch, "views": views, "rate": args.rate, "held": args.held, "tiny": args.tiny,
            "disturb": args.disturb, "mapping": about, **config,
        },
    )  # fmt: skip
    full = network.options
    sparse = replace(full, coarse=max(4, full.coarse * 2 // 3), fine=max(4, full.fine * 2 // 3))
    rays = network.neural_rendering_resolution**2
    label = torch.zeros(args.batch, 25, device=device)
    print(f"generator: {sum(p.numel() for p in network.parameters()) / 1e6:.2f} M parameters", flush=True)

    def one_step(step: int) -> dict[str, Tensor]:
        def at(name: str) -> draws.Key:
            return draws.key(args.seed, "generator", name, step)

        late = piece.steps is not None and step >= LATE * piece.steps
        factor = 0.04 + 0.96 * rate(step, piece.steps, warm=100) if step >= 100 else rate(step, piece.steps, warm=100)
        for group in adam.param_groups:
            group["lr"] = args.rate * factor * group["factor"]
        z, truth = reader.read(*reader.pick(args.batch, views, at("pick")))
        ws = w_reader.rows(z, network.num_ws) if isinstance(w_reader, Design) else network.mapping(z, label)
        ws = disturbed(ws, args.disturb, at("disturb"))
        options = full if late else sparse
        jitter = Draws(
            draws.uniform((1, views, rays, options.coarse), at("coarse"), device),
            draws.uniform((1, views, rays, options.fine), at("fine"), device),
        )
        volume = network.render(network.planes(ws), truth.cameras, draws=jitter, options=options)
        image = network.enlarge(volume.feature, ws)
        parts = likeness(image, volume, truth)
        if features is not None and late:
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                with torch.no_grad():
                    wanted = features(truth.image[:, 0])
                found = features(image[:, 0])
            parts["features"] = distance([x.float() for x in found], [x.float() for x in wanted]).mean()
        if not designed:
            fresh = draws.normal((4 * args.batch if args.tiny else READ, Z_DIM), at("fresh"), device)
            w = network.mapping(fresh, label[:1].expand(len(fresh), -1))[:, 0]
            parts["reading"] = w_reader.errors(w, fresh).mean()
        loss = torch.stack([WEIGHTS[name] * value for name, value in parts.items()]).sum()
        adam.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        adam.step()
        return {**{name: value.detach() for name, value in parts.items()}, "gradient": norm.detach()}

    if piece.run(one_step, args.minutes, total=args.total, every=100) or args.close:
        finish(args, piece, reader, config, w_reader if isinstance(w_reader, Design) else None)


def disturbed(ws: Tensor, largest: float, at: draws.Key) -> Tensor:
    """Latents (N, L, C), half of them moved by up to `largest` deviations: a quarter by one vector for all rows, a
    quarter by one for each row."""
    count, rows, width = ws.shape
    deviation = ws[:, 0].detach().std(0) if count > 1 else torch.zeros_like(ws[0, 0])
    device = ws.device
    kind = draws.uniform((count, 1, 1), at, device)
    size = draws.uniform((count, 1, 1), (at[0] ^ 1, at[1]), device) * largest
    each = draws.normal((count, rows, width), (at[0] ^ 2, at[1]), device)
    move = torch.where(kind < 0.25, each[:, :1], torch.where(kind < 0.5, each, 0.0))
    return ws + move * size * deviation


def finish(
    args: argparse.Namespace, piece: Piece, reader: HeadReader, config: dict[str, Any], design: Design | None
) -> None:
    """Statistics of W, the noise maps at unit deviation, measures and pictures of what the file holds, the file."""
    device = reader.device
    network = build(config).to(device).requires_grad_(False).eval()
    piece.average_into("generator", network)
    with torch.no_grad():
        for layer in network.backbone.synthesis.modules():
            if isinstance(layer, ModulatedConvolution):
                size = layer.noise_const.square().mean().sqrt().clamp_min(1e-8)
                layer.noise_const.div_(size)
                layer.noise_strength.mul_(size)
    found = statistics(network.backbone.mapping, torch.zeros(25))
    network.backbone.mapping.w_avg.copy_(found.mean)
    halved = {k: v.half().float() if v.is_floating_point() else v for k, v in network.state_dict().items()}
    frozen = TriPlaneGenerator.from_state_dict(halved, **config)
    measured = showing.measure(frozen, reader, args.out, design)
    showing.pictures(frozen, reader, args.out, seed=args.seed, deviation=found.deviation)
    measured["w_deviation_mean"] = round(float(found.deviation.mean()), 4)
    print(f"generator: {measured}", flush=True)
    export(
        args.out,
        "generator",
        network.state_dict(),
        {"class": "facednerf_eg3d.network.TriPlaneGenerator", **config},
        card(
            piece,
            reader.shards,
            device,
            about=(LEARNED if design is None else DESIGNED) + " EG3D-architecture generator of the starter world's heads, "
            "128 px, over white.",
            recipe="python -m facednerf_starter.train generator: many-view supervision (not adversarial): weighted L1 "
            "and edges of the image, L1 of raw image and alpha, depth; w disturbed in half of a batch; learned noise_const.",
            measured=measured,
            limits="Synthetic, stylised heads only. Supervised latents are smoother and more complete than a GAN's: "
            "inversions and edits look easier here than with EG3D's official weights.",
        ),
    )
