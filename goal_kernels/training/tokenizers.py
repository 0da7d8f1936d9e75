"""From captions to token ids."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol

from goal_kernels.data.vocabulary import SPECIAL_WORDS, UNKNOWN, Vocabulary

WORDS = "words"  # names the tokenizer of whole words
NO_WORD = -1  # in `Tokens.words`, of special tokens and padding


class Tokens(NamedTuple):
    """One caption. ids: token ids, special ones included. words: for each token the number, within
    the caption, of the word it belongs to; `NO_WORD` for special tokens."""

    ids: list[int]
    words: list[int]


class Tokenizer(Protocol):
    """What data and augmentation need of a tokenizer; the id of padding is 0."""

    @property
    def mask_id(self) -> int:
        """Token that stands for a masked word."""

    @property
    def first_word_id(self) -> int:
        """Lowest id of an ordinary word."""

    @property
    def identity(self) -> str:
        """Names the tokenizer in records of runs."""

    def encode(self, caption: str) -> Tokens:
        """The tokens of a caption."""

    def __len__(self) -> int:
        """Number of ids."""


class WordTokenizer:
    """One id a word, between <start> and <end>; <unk> also serves as the mask."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.mask_id = SPECIAL_WORDS.index(UNKNOWN)
        self.first_word_id = len(SPECIAL_WORDS)
        self.identity = f"words ({len(vocabulary)} ids)"

    def encode(self, caption: str) -> Tokens:
        """The ids of `Vocabulary.encode`, every word its own."""
        ids = self.vocabulary.encode(caption)
        return Tokens(ids, [NO_WORD, *range(len(ids) - 2), NO_WORD])

    def __len__(self) -> int:
        return len(self.vocabulary)


def make_tokenizer(name: str, folder: str | Path) -> Tokenizer:
    """The tokenizer of that name.

    Args:
        name: "words", whose vocabulary is `vocab.json` in the folder.
        folder: of the dataset.
    Raises: FileNotFoundError without that file, ValueError for another name.
    """
    if name == WORDS:
        return WordTokenizer(Vocabulary.load(Path(folder) / "vocab.json"))
    raise ValueError(f"data.tokenizer: expected {WORDS!r}, got {name!r}")
