"""Sentences, as a CLIP text encoder reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from facednerf_core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


class Prompts:
    """A tokenizer and text encoder, and the words that the encoder has learnt, where these are few."""

    def __init__(self, tokenizer: Any, encoder: Any, vocabulary: frozenset[str] = frozenset()) -> None:
        self.tokenizer = tokenizer
        self.encoder = encoder
        self.vocabulary = vocabulary  # empty: open

    @torch.no_grad()
    def encode(self, text: str) -> Tensor:
        """The text's embedding (1, T, D), padded to the encoder's length.

        Raises:
            InputError: the text is too long; nothing is cut.
        """
        taken, room = self.length(text)
        if taken > room:
            raise InputError(f"the prompt {text!r} takes {taken} tokens and sds reads {room}; say it in fewer words.")
        tokens = self.tokenizer(text, padding="max_length", max_length=room, return_tensors="pt").input_ids
        return self.encoder(tokens.to(self.encoder.device)).last_hidden_state

    def length(self, text: str) -> tuple[int, int]:
        """How many tokens a text takes, begin and end included, and how many there may be."""
        limit = min(self.tokenizer.model_max_length, self.encoder.config.max_position_embeddings)
        return len(self.tokenizer(text, verbose=False).input_ids), limit
