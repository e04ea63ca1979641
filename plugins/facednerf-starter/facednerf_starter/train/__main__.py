"""`python -m facednerf_starter.train NAME ...`: one subcommand per recipe, imported when it is called."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from facednerf_core.errors import FacednerfError

COMMANDS: dict[str, str] = {
    "data": "facednerf_starter.train.data",
    "autoencoder": "facednerf_starter.train.autoencoder",
    "diffusion": "facednerf_starter.train.diffusion",
    "mapping": "facednerf_starter.train.mapping",
    "generator": "facednerf_starter.train.generator",
    "identity": "facednerf_starter.train.identity",
    "detector": "facednerf_starter.train.detector",
    "segmenter": "facednerf_starter.train.segmenter",
    "perceptual": "facednerf_starter.train.perceptual",
    "judges": "facednerf_starter.train.judges",
    "clip": "facednerf_starter.train.clip",
    "light": "facednerf_starter.train.light",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the recipe named first in `argv`; its module offers `add_arguments(parser)` and `run(args)`.

    What a user can mend ends it as a wrong argument does: one message on stderr, and exit code 2.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    front = argparse.ArgumentParser(prog="facednerf_starter.train", description=__doc__)
    front.add_argument("command", choices=sorted(COMMANDS))
    name: str = front.parse_args(words[:1]).command
    module = import_module(COMMANDS[name])
    parser = argparse.ArgumentParser(prog=f"facednerf_starter.train {name}", description=module.__doc__)
    module.add_arguments(parser)
    args = parser.parse_args(words[1:])
    try:
        module.run(args)
    except FacednerfError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
