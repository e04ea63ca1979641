"""Write shards of the synthetic world: heads, views, and the truth about them."""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path

import numpy as np
import torch

from facednerf_starter.world.attributes import Attributes, decode, draw
from facednerf_starter.world.cameras import PIVOT, draw_cameras
from facednerf_starter.world.captions import captions
from facednerf_starter.world.render import WorldRendering, render


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m facednerf_starter.train data`."""
    parser.add_argument("--out", type=Path, required=True, help="the folder of the shards")
    parser.add_argument("--heads", type=int, required=True, help="heads in all")
    parser.add_argument("--views", type=int, default=4, help="views of each head")
    parser.add_argument("--size", type=int, default=128, help="pixels across a picture, even")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the number of the first head")
    parser.add_argument("--shard", type=int, default=512, help="heads in a shard")
    parser.add_argument("--batch", type=int, default=16, help="heads rendered at once")
    parser.add_argument("--yaw", type=float, default=1.0, help="largest yaw, radians")
    parser.add_argument("--pitch", type=float, default=0.35, help="largest pitch, radians")
    parser.add_argument(
        "--pivot", type=float, default=PIVOT[2], help="z of the point looked at (0 for heads from all round)"
    )
    parser.add_argument("--jitter", type=float, default=0.02, help="variation of roll, distance and focal length")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true", help="compile the distance function")
    parser.add_argument("--pieces", default="0/1", help="i/n: write only the shards whose number is i modulo n")


def write_shard(folder: Path, first: int, count: int, args: argparse.Namespace) -> None:
    """Write heads `first` ... `first + count - 1` into a folder that appears only once it is whole."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    z = draw(args.seed, first, count)
    heads = decode(z)
    cameras = draw_cameras(args.seed, first, count, args.views, args.yaw, args.pitch, jitter=args.jitter, depth=args.pivot)
    chunks: list[dict[str, np.ndarray]] = []
    for start in range(0, count, args.batch):
        some = slice(start, start + args.batch)
        chunks.append(_pictures(heads[some], cameras[some], args))
    arrays = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
    arrays |= {
        "z": z.numpy(),
        "attributes": heads.vector().numpy(),
        "light": heads.light.flatten(1).numpy(),
        "cameras": cameras.numpy(),
    }
    for name, array in arrays.items():
        np.save(part / f"{name}.npy", array)
    (part / "captions.json").write_text(json.dumps(captions(heads, args.seed, first)))
    index = {"seed": args.seed, "first": first, "count": count, "views": args.views, "size": args.size}
    (part / "index.json").write_text(json.dumps(index))
    part.rename(folder)


def _pictures(heads: Attributes, cameras: torch.Tensor, args: argparse.Namespace) -> dict[str, np.ndarray]:
    seen: WorldRendering = render(
        heads.to(args.device), cameras.to(args.device), args.size, supersample=2, compile=args.compile
    )
    # the depth of half the size: means over the covered pixels of 2 x 2
    depth = torch.nn.functional.avg_pool2d(seen.depth.flatten(0, 1), 2)
    covered = torch.nn.functional.avg_pool2d((seen.depth > 0).float().flatten(0, 1), 2)
    depth = (depth / covered.clamp_min(0.25)).unflatten(0, seen.depth.shape[:2])[:, :, 0]
    return {
        "image": ((seen.image.clamp(-1, 1) + 1) * 127.5).round().byte().movedim(2, -1).cpu().numpy(),
        "mask": (seen.mask[:, :, 0] * 255).round().byte().cpu().numpy(),
        "depth": depth.half().cpu().numpy(),
        "landmarks": seen.landmarks.cpu().numpy(),
    }


def run(args: argparse.Namespace) -> None:
    """Write the shards that are missing."""
    piece, pieces = (int(v) for v in args.pieces.split("/"))
    for number in range(piece, -(-args.heads // args.shard), pieces):
        folder = args.out / f"shard-{number:04d}"
        if (folder / "index.json").exists():
            continue
        start = time.perf_counter()
        count = min(args.shard, args.heads - number * args.shard)
        write_shard(folder, args.first + number * args.shard, count, args)
        rate = count * args.views / (time.perf_counter() - start)
        print(f"{folder.name}: {count} heads, {args.views} views, {rate:.1f} images/s", flush=True)
