"""Trains the starter's generator: EG3D's architecture, supervised by many views of the world's heads.

A head's latent z is the Gaussian draw from which the world made it, mixed by an orthogonal matrix, so that no axis is
an attribute. z -> mapping -> w -> planes is learned end to end; no attribute, caption or camera enters. While training,
and only then, a linear reading of w has to tell the head's attributes and light, on fresh draws: so the mapping learns
within minutes what many more pictures would teach it. The fixed
noise maps of the planes' layers (`noise_const`) are learned too. Part of each batch has its w disturbed a little, so
that what lies between latents stays a head.
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
from facednerf_starter.train.pieces import Piece, rate
from facednerf_starter.train.shards import Shards
from facednerf_starter.world.attributes import Z_DIM, decode

WEIGHTS = {"image": 1.0, "raw": 0.5, "edges": 1.0, "alpha": 0.5, "depth": 5.0, "features": 0.3, "reading": 0.5}
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
    parser.add_argument("--perceptual", type=Path, help="perceptual.safetensors, for the last part of the training")


def configuration(args: argparse.Namespace, size: int) -> dict[str, Any]:
    """Arguments of `TriPlaneGenerator`."""
    return {
        "z_dim": Z_DIM,
        "c_dim": 25,
        "w_dim": 32 if args.tiny else 256,
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
        "mapping_kwargs": {"num_layers": 4},
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


def parameter_groups(network: TriPlaneGenerator) -> list[dict[str, Any]]:
    """The mapping's layers, whose stored weights are a hundredfold, move fiftyfold: half as fast as all others."""
    mapping = [p for name, p in network.backbone.mapping.named_parameters() if name.startswith("fc")]
    chosen = {id(p) for p in mapping}
    rest = [p for p in network.parameters() if id(p) not in chosen]
    return [{"params": rest, "factor": 1.0}, {"params": mapping, "factor": 50.0}]


class Readout(nn.Module):
    """Attributes and light of a head, standardised, as a linear function of w: asked for while training, then discarded."""

    def __init__(self, w_dim: int, seed: int, device: torch.device) -> None:
        super().__init__()
        truth = self.truth(draws.normal((8192, Z_DIM), draws.key(seed, "generator", "standard"), device))
        self.register_buffer("mean", truth.mean(0))
        self.register_buffer("deviation", truth.std(0).clamp_min(1e-2))
        self.linear = nn.Linear(w_dim, truth.shape[1])

    @staticmethod
    def truth(z: Tensor) -> Tensor:
        """What the world makes of Gaussian draws (N, Z_DIM), as numbers (N, A)."""
        heads = decode(z)
        return torch.cat([heads.vector(), heads.light.flatten(1)], dim=1).float()

    def forward(self, w: Tensor, z: Tensor) -> Tensor:
        """Mean squared error of reading w (N, C), in units of each number's variance."""
        return (self.linear(w) - (self.truth(z) - self.mean) / self.deviation).square().mean()


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
    config = configuration(args, shards.size)
    network = build(config).to(device)
    readout = Readout(config["w_dim"], args.seed, device).to(device)
    groups = [*parameter_groups(network), {"params": list(readout.parameters()), "factor": 0.3}]
    adam = torch.optim.Adam(groups, lr=args.rate, betas=(0.9, 0.99))
    features = None
    if args.perceptual:
        features = from_tensors(load_file(args.perceptual), shards.size, str(args.perceptual)).to(device)
    piece = Piece(
        args.out,
        "generator",
        seed=args.seed,
        steps=args.steps,
        networks={"generator": network, "readout": readout},
        optimizers={"adam": adam},
        averaged=("generator",),
        ema=0.998,
        settings={
            "batch": args.batch, "views": views, "rate": args.rate, "held": args.held, "tiny": args.tiny,
            "disturb": args.disturb, **config,
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
        ws = disturbed(network.mapping(z, label), args.disturb, at("disturb"))
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
        fresh = draws.normal((4 * args.batch if args.tiny else READ, Z_DIM), at("fresh"), device)
        parts["reading"] = readout(network.mapping(fresh, label[:1].expand(len(fresh), -1))[:, 0], fresh)
        loss = torch.stack([WEIGHTS[name] * value for name, value in parts.items()]).sum()
        adam.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        adam.step()
        return {**{name: value.detach() for name, value in parts.items()}, "gradient": norm.detach()}

    if piece.run(one_step, args.minutes, total=args.total, every=100) or args.close:
        finish(args, piece, reader, config, device)


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


def finish(args: argparse.Namespace, piece: Piece, reader: HeadReader, config: dict[str, Any], device: torch.device) -> None:
    """Statistics of W, the noise maps at unit deviation, measures and pictures of what the file holds, the file."""
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
    measured = showing.measure(frozen, reader, args.out)
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
            about="EG3D-architecture generator of the starter world's heads, 128 px, over white. W was learned, not "
            "designed: z -> mapping -> w -> planes end to end, from Gaussian draws; no attribute or caption "
            "enters. An auxiliary loss read the attributes linearly from w while training.",
            recipe="python -m facednerf_starter.train generator: many-view supervision (not adversarial): weighted L1 "
            "and edges of the image, L1 of raw image and alpha, depth; w disturbed in half of a batch; learned noise_const.",
            measured=measured,
            limits="Synthetic, stylised heads only. Supervised latents are smoother and more complete than a GAN's: "
            "inversions and edits look easier here than with EG3D's official weights.",
        ),
    )
