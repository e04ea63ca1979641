"""What the recipes are told on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from facednerf_core.errors import InputError


def add_run_arguments(parser: argparse.ArgumentParser, *, batch: int) -> None:
    """Adds what `add_piece_arguments` adds, and --data --held: what every recipe that trains on shards is told."""
    add_piece_arguments(parser, batch=batch)
    parser.add_argument("--data", type=Path, required=True, help="folder of shards")
    parser.add_argument("--held", type=int, default=50, help="every so many-th head is held out (default 50)")


def add_piece_arguments(parser: argparse.ArgumentParser, *, batch: int) -> None:
    """Adds --out --minutes --device --seed --steps --total --close --batch --tiny."""
    parser.add_argument("--out", type=Path, required=True, help="folder of this run: its state, log and results")
    parser.add_argument("--minutes", type=float, default=9.0, help="end this piece after so long; call again to go on")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cuda or cpu")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, help="steps in all; without it the clock decides")
    parser.add_argument("--total", type=float, help="minutes of all pieces, by which the clock decides (default: one piece)")
    parser.add_argument("--close", action="store_true", help="export when this piece ends, all steps done or not")
    parser.add_argument("--batch", type=int, default=batch, help=f"samples in a step (default {batch})")
    parser.add_argument("--tiny", action="store_true", help="a very small network, to try the recipe in seconds")


def device_of(args: argparse.Namespace) -> torch.device:
    """The device of a run, set up for training: TF32 products, tuned convolutions.

    Raises:
        InputError: CUDA was asked for and is not there.
    """
    device = torch.device(args.device)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise InputError("--device cuda was asked for, but this machine has no CUDA device; use --device cpu")
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    return device


def memory_format_of(device: torch.device) -> torch.memory_format:
    """Channels last for a GPU's convolutions; plain for a CPU, whose batch norm crashes on narrow channels-last."""
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format
