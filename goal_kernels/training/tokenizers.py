"""From captions to token ids."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from goal_kernels.data.files import read_lines
from goal_kernels.data.vocabulary import (
    LETTERS,
    MAX_WORDS,
    SPECIAL_WORDS,
    UNKNOWN,
    Vocabulary,
    count_words,
    first_characters,
)
from goal_kernels.extras import load_package

NO_WORD = -1  # in `Tokens.words`, of special tokens and padding

WORDS = "words"  # names the tokenizer of whole words
PAD, MASK = "[PAD]", "[MASK]"  # of a WordPiece vocabulary
LONGEST = 512  # tokens that a published BERT can read
SHOWN_DIGITS = 8  # of the digest of a vocabulary


class Tokens(NamedTuple):
    """One caption. ids: token ids, special ones included. words: for each token the number, within
    the caption, of the word it belongs to; `NO_WORD` for special tokens."""

    ids: list[int]
    words: list[int]


class Tokenizer(ABC):
    """From captions to token ids; the id of padding is 0.

    Attributes:
        max_words: words of a caption that are encoded; the rest is left out.
        mask_id: token that stands for a masked word.
        first_word_id: lowest id of an ordinary word.
        identity: names the tokenizer in records of runs.
        marks: punctuation marks are words.
    """

    mask_id: int
    first_word_id: int
    identity: str
    marks: bool

    def __init__(self, max_words: int) -> None:
        if max_words < 1:
            raise ValueError(f"data.max_words: expected at least 1 word a caption, got {max_words}")
        self.max_words = max_words

    @abstractmethod
    def encode(self, caption: str) -> Tokens:
        """The tokens of a caption."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of ids."""

    def count_words(self, caption: str) -> int:
        """How many words a caption has, those left out included; at most `MOST_COUNTED`."""
        return count_words(caption, marks=self.marks)


class WordTokenizer(Tokenizer):
    """One id a word, between <start> and <end>; <unk> also serves as the mask.

    Args:
        vocabulary: knows the words, and how captions are split into them.
        max_words: see `Tokenizer`.
    """

    def __init__(self, vocabulary: Vocabulary, max_words: int = MAX_WORDS) -> None:
        super().__init__(max_words)
        self.vocabulary = vocabulary
        self.marks = vocabulary.rule != LETTERS
        self.mask_id = SPECIAL_WORDS.index(UNKNOWN)
        self.first_word_id = len(SPECIAL_WORDS)
        rule = "" if vocabulary.rule == LETTERS else f"{vocabulary.rule} "
        self.identity = f"{rule}words ({len(vocabulary)} ids)"

    def encode(self, caption: str) -> Tokens:
        """The ids of `Vocabulary.encode`, every word its own."""
        ids = self.vocabulary.encode(caption, self.max_words)
        return Tokens(ids, [NO_WORD, *range(len(ids) - 2), NO_WORD])

    def __len__(self) -> int:
        return len(self.vocabulary)


class WordPieceTokenizer(Tokenizer):
    """BERT's tokenizer: pieces of words between [CLS] and [SEP].

    Args:
        folder: holds tokenizer.json, or vocab.txt and perhaps tokenizer_config.json, whose
            "do_lower_case" counts, true without it.
        max_words: see `Tokenizer`; a punctuation mark is a word.
    Raises:
        FileNotFoundError: the folder holds neither; nothing is downloaded.
        ValueError: a file is unusable, or the ids are not those of a BERT.
        MissingPackageError: the tokenizers package is not installed.
    """

    marks = True

    def __init__(self, folder: str | Path, max_words: int = MAX_WORDS) -> None:
        super().__init__(max_words)
        self.folder = Path(folder)
        self._tokenizer = _read_wordpieces(self.folder)
        vocabulary: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
        pieces = sorted(vocabulary, key=lambda piece: vocabulary[piece])
        if [vocabulary[piece] for piece in pieces] != list(range(len(pieces))):
            raise ValueError(f"{_place(self.folder)}: expected the ids 0 .. {len(pieces) - 1}")
        if pieces[:1] != [PAD] or MASK not in vocabulary:
            raise ValueError(
                f"{_place(self.folder)}: expected a BERT vocabulary with {PAD} as id 0 and {MASK}, "
                f"got {pieces[:1]} first and {'a' if MASK in vocabulary else 'no'} {MASK}"
            )
        self.mask_id = vocabulary[MASK]
        # Special and unused tokens lead the published vocabularies.
        self.first_word_id = len(list(takewhile(_is_special, pieces)))
        digest = hashlib.sha256("\n".join(pieces).encode()).hexdigest()[:SHOWN_DIGITS]
        self.identity = f"wordpieces ({len(pieces)} ids, {digest})"
        self._size = len(pieces)

    def encode(self, caption: str) -> Tokens:
        """The ids of a caption, cut to what a BERT can read; pieces of a word share its number."""
        encoding = self._tokenizer.encode(first_characters(caption, self.max_words))
        words = [NO_WORD if word is None else word for word in encoding.word_ids]
        kept = [place for place, word in enumerate(words) if word < self.max_words]
        return Tokens([encoding.ids[place] for place in kept], [words[place] for place in kept])

    def __len__(self) -> int:
        return self._size


def _read_wordpieces(folder: Path) -> Any:
    """A `tokenizers.Tokenizer` that adds [CLS] and [SEP], cuts and does not pad."""
    tokenizers = load_package("tokenizers", "bert", "data.tokenizer")
    whole, vocabulary = folder / "tokenizer.json", folder / "vocab.txt"
    if whole.is_file():
        try:
            tokenizer = tokenizers.Tokenizer.from_file(str(whole))
        except Exception as error:  # the package raises nothing narrower
            raise ValueError(f"{_place(whole)}: no tokenizer can be read: {error}") from error
        tokenizer.no_padding()
    elif vocabulary.is_file():
        tokenizer = _from_vocabulary(tokenizers, vocabulary, _lower_case(folder))
    else:
        found = "neither is in it" if folder.is_dir() else "no such folder"
        raise FileNotFoundError(
            f"data.tokenizer: expected {WORDS!r} or a local folder with tokenizer.json or "
            f"vocab.txt, got {folder} ({found}); nothing is downloaded, put BERT's files there"
        )
    tokenizer.enable_truncation(LONGEST)
    return tokenizer


def _from_vocabulary(tokenizers: Any, path: Path, lower_case: bool) -> Any:
    """BERT's own tokenizer over the pieces in a file, one a line."""
    pieces = read_lines(path)
    ids = {piece: index for index, piece in enumerate(pieces)}
    lacking = [piece for piece in ("[UNK]", "[CLS]", "[SEP]") if piece not in ids]
    if lacking or len(ids) != len(pieces):
        raise ValueError(
            f"{_place(path)}: expected distinct pieces, one a line, with [UNK], [CLS] and [SEP], "
            + (f"found no {' and no '.join(lacking)}" if lacking else "found one of them twice")
        )
    tokenizer = tokenizers.BertWordPieceTokenizer(ids, lowercase=lower_case)
    return tokenizer._tokenizer


def _lower_case(folder: Path) -> bool:
    """Whether captions become lower case: what tokenizer_config.json says, else yes."""
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        return True
    try:
        return bool(json.loads(path.read_text(encoding="utf-8")).get("do_lower_case", True))
    except (json.JSONDecodeError, AttributeError) as error:
        raise ValueError(f"{_place(path)}: expected a JSON object: {error}") from error


def _is_special(piece: str) -> bool:
    """Whether a token is no ordinary word: [PAD], [CLS], [unused12], ..."""
    return len(piece) > 2 and piece.startswith("[") and piece.endswith("]")


def _place(path: Path) -> str:
    return f"data.tokenizer: {path}"
