"""From captions to token ids."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from goal_kernels.data.vocabulary import SPECIAL_WORDS, UNKNOWN, Vocabulary

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
