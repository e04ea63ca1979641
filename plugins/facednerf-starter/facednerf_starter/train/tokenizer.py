"""A word-level vocabulary in the format of CLIP's tokenizer.

CLIP's byte-pair encoding is kept as it is (so `CLIPTokenizer` reads it), but its merges are laid so that every word of
`words()` is exactly one token, and nothing but a word (or a single character) ends in `</w>`: a word of two or more
tokens, or a single character that is no word, is one that the starter does not know.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facednerf_core.errors import FacednerfError
from facednerf_starter.train import phrasing
from facednerf_starter.world.captions import vocabulary

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

TOKENS = 48
"""Tokens of a caption, begin and end included; longer ones are cut by the tokenizer, so count first."""

_END = "</w>"
_BEGIN_TOKEN, _END_TOKEN = "<|startoftext|>", "<|endoftext|>"
_PIECES = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|[^\s\w]+|_+")


class VocabularyError(FacednerfError):
    """Text that holds words outside the vocabulary."""


@cache
def words() -> tuple[str, ...]:
    """The words of the starter, sorted: what captions can say, other words for it, and plain words."""
    return tuple(sorted({piece for word in phrasing.said(vocabulary()) for piece in split(word) if piece[0].isalpha()}))


def split(text: str) -> list[str]:
    """The words of a text, as the tokenizer sees them: lower case, punctuation and digits apart."""
    return _PIECES.findall(text.lower())


def unknown(text: str) -> list[str]:
    """Words of a text that the vocabulary lacks, in their order; punctuation is never unknown."""
    known = set(words())
    return [word for word in dict.fromkeys(split(text)) if word[0].isalnum() and word not in known]


def _byte_characters() -> list[str]:
    """The 256 printable characters that stand for bytes (GPT-2's byte-level encoding, also CLIP's)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    others = (chr(256 + number) for number in range(256 - len(printable)))
    return [chr(byte) if byte in printable else next(others) for byte in range(256)]


def _encode(word: str, ranks: dict[tuple[str, str], int]) -> list[str]:
    """Byte-pair encoding of one ASCII word (Sennrich et al., 2016): the pair of lowest rank is merged first."""
    pieces = [*word[:-1], word[-1] + _END]
    while len(pieces) > 1:
        rank, pair = min((ranks.get(pair, len(ranks)), pair) for pair in pairwise(pieces))
        if rank == len(ranks):
            break
        merged, index = [], 0
        while index < len(pieces):
            if tuple(pieces[index : index + 2]) == pair:
                merged.append(pieces[index] + pieces[index + 1])
                index += 2
            else:
                merged.append(pieces[index])
                index += 1
        pieces = merged
    return pieces


def merges(known: Sequence[str]) -> list[tuple[str, str]]:
    """Merges that make every word whole.

    Words are taken one by one; the first two pieces of a word that is not whole yet get a new merge of the last rank.
    A later merge never applies while an earlier one does, so whole words stay whole; and since merging goes from the
    left, the piece that ends a word is joined last, so only whole words end in `</w>`.
    """
    ranks: dict[tuple[str, str], int] = {}
    for word in known:
        if not re.fullmatch(r"[a-z]+|'[a-z]+", word):
            raise VocabularyError(f"'{word}' in the vocabulary is not a word of lower-case letters a to z")
        while len(pieces := _encode(word, ranks)) > 1:
            ranks[(pieces[0], pieces[1])] = len(ranks)
    return list(ranks)


def write(folder: Path) -> None:
    """Writes vocab.json, merges.txt, tokenizer_config.json, special_tokens_map.json and vocabulary.txt (the words)."""
    rules = merges(words())
    characters = _byte_characters()
    tokens = [*characters, *(character + _END for character in characters), *(left + right for left, right in rules)]
    tokens = [*dict.fromkeys(tokens), _BEGIN_TOKEN, _END_TOKEN]
    special = {"bos_token": _BEGIN_TOKEN, "eos_token": _END_TOKEN, "pad_token": _END_TOKEN, "unk_token": _END_TOKEN}
    config: dict[str, Any] = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": TOKENS,
        "do_lower_case": True,
        "add_prefix_space": False,
        **special,
    }
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "vocab.json": json.dumps({token: number for number, token in enumerate(tokens)}, ensure_ascii=False),
        "merges.txt": "#version: 0.2\n" + "".join(f"{left} {right}\n" for left, right in rules),
        "tokenizer_config.json": json.dumps(config, indent=2) + "\n",
        "special_tokens_map.json": json.dumps(special, indent=2) + "\n",
        "vocabulary.txt": "\n".join(words()) + "\n",
    }
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")


def load(folder: Path) -> CLIPTokenizer:
    """The tokenizer of a folder, offline."""
    from transformers import CLIPTokenizer

    tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
    return tokenizer
