"""A CLIP in open_clip's own format, read offline: a folder of its config, its tensors and, if it has one, its tokenizer."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from facednerf_core import vocabularies
from facednerf_core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

CONFIG, TENSORS = "open_clip_config.json", "open_clip_model.safetensors"


class Encoder:
    """Pictures and sentences to unit vectors of one space (Radford et al. 2021), frozen.

    Args:
        network: open_clip's; its `visual` says the pictures' size, mean and deviation.
        tokenizer: open_clip's.
        vocabulary: the words that it has learnt, where these are few; empty: open.
    """

    def __init__(self, network: Any, tokenizer: Any, vocabulary: frozenset[str] = frozenset()) -> None:
        self.network, self.tokenizer, self.vocabulary = network, tokenizer, vocabulary
        side = network.visual.image_size
        self.size: int = side if isinstance(side, int) else side[0]
        self._mean, self._deviation = (
            torch.tensor(getattr(network.visual, name)).view(3, 1, 1) for name in ("image_mean", "image_std")
        )

    def pictures(self, image: Tensor) -> Tensor:
        """Unit vectors (..., D), float32, of pictures (..., 3, S, S) in [-1, 1]."""
        unit = (image.float() + 1) / 2
        flat = ((unit - self._mean.to(unit)) / self._deviation.to(unit)).flatten(0, -4)
        found: Tensor = self.network.encode_image(flat, normalize=True)
        return found.float().unflatten(0, image.shape[:-3])

    @torch.no_grad()
    def sentence(self, text: str) -> Tensor:
        """The unit vector (D,) of a text.

        Raises:
            InputError: the text is too long; nothing is cut.
        """
        taken, room = self.length(text)
        if taken > room:
            raise InputError(f"the prompt {text!r} takes {taken} tokens and clip reads {room}; say it in fewer words.")
        tokens = self.tokenizer([text]).to(self._device)
        found: Tensor = self.network.encode_text(tokens, normalize=True)
        return found[0].float()

    def length(self, text: str) -> tuple[int, int]:
        """How many tokens a text takes, begin and end included, and how many there may be."""
        inner = getattr(self.tokenizer, "tokenizer", None)
        taken = len(self.tokenizer.encode(text)) + 2 if inner is None else len(inner(text, verbose=False).input_ids)
        return taken, self.tokenizer.context_length

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device


def load(folder: Path, device: torch.device) -> Encoder:
    """The CLIP in a folder, in float32; nothing is fetched and no pickle is read.

    Raises:
        InputError: a part is missing or cannot be read.
    """
    import open_clip

    if not (folder / CONFIG).is_file():
        raise InputError(f"{folder} is no open_clip folder: it has no {CONFIG}.")
    if not any(folder.glob("*.safetensors")):
        raise InputError(f"{folder} has no {TENSORS}: clip reads tensors from safetensors only.")
    with _quiet():
        try:
            network = open_clip.create_model(f"local-dir:{folder}", device=device)
            tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
        except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
            raise InputError(f"cannot read the CLIP in {folder}: {error}") from error
    return Encoder(network.eval().requires_grad_(False), tokenizer, vocabularies.read(folder))


@contextmanager
def _quiet() -> Iterator[None]:
    """open_clip narrates on the root logger what it reads."""
    shown = logging.root.level
    logging.root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.root.setLevel(shown)
