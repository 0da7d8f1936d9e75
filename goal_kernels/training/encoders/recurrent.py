"""Text encoders that read word vectors with a GRU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from goal_kernels.data.vocabulary import SPECIAL_WORDS
from goal_kernels.training.data import TextBatch
from goal_kernels.training.encoders.base import Encoder, Rows
from goal_kernels.training.options import DataSizes, TextOptions
from goal_kernels.training.pooling import gru_states, make_pooling

WORD_BOUND = 0.1  # word vectors start uniform in [-0.1, 0.1] in VSE++ and SCAN


class RecurrentEncoder(Encoder):
    """Encodes token ids: embedding, GRU, pooling.

    Equals: normalize(pool(gru(embedding(tokens)))), the states of two directions averaged.
    Source: two directions and GPO, VSE-infinity; one direction and its last state, VSE++.

    Args:
        options: of the text encoder.
        sizes: gives the number of ids.
        embed_dim: width of the joint space and of the GRU's states.
        pretrained: ask for the file of word vectors when one is named.
    """

    bidirectional = True  # captions are read from both ends

    def __init__(
        self, options: TextOptions, sizes: DataSizes, embed_dim: int, pretrained: bool = True
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(sizes.vocabulary_size, options.word_dim, padding_idx=0)
        self.gru = nn.GRU(
            options.word_dim, embed_dim, batch_first=True, bidirectional=self.bidirectional
        )
        self.pool = make_pooling("model.text.pooling", options.pooling, ordered=True)
        self.normalize = options.normalize
        self.word_vectors = options.word_vectors if pretrained else None
        if options.initialisation == "published":
            with torch.no_grad():
                self.embedding.weight[1:].uniform_(-WORD_BOUND, WORD_BOUND)

    @torch.no_grad()
    def load_word_vectors(self, words: Sequence[str]) -> Coverage | None:
        """Start from the vectors of `model.text.word_vectors`, where the file has the word.

        Args:
            words: the word of each id.
        Returns: how many words were found; None when no file was named.
        Raises: FileNotFoundError or ValueError, naming the option, when the file is unusable.
        """
        if self.word_vectors is None:
            return None
        expected, width = self.embedding.weight.shape
        if len(words) != expected:
            raise ValueError(f"words: expected {expected}, one an id, got {len(words)}")
        vectors = read_word_vectors(self.word_vectors, words, width)
        for index, vector in vectors.items():
            self.embedding.weight[index] = vector.to(self.embedding.weight)
        self.word_vectors = None
        return Coverage(len(vectors), sum(word not in SPECIAL_WORDS for word in words))

    def rows(self, batch: TextBatch) -> Rows:
        """Encode [B, L] tokens: [B, L, embed_dim].

        Positions at and beyond a caption's length are never read.
        Raises: RuntimeError when the file of word vectors was never read.
        """
        if self.training and self.word_vectors is not None:
            raise RuntimeError(
                f"model.text.word_vectors: {self.word_vectors} was named but never read; call "
                "VSE.load_word_vectors(words) before training"
            )
        tokens, lengths = batch.tokens, batch.lengths
        states = gru_states(self.gru, self.embedding(tokens), lengths.cpu())
        mask = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
        return Rows(states, mask)


class OneWayEncoder(RecurrentEncoder):
    """The encoder of VSE++: the GRU reads from the first to the last token only."""

    bidirectional = False


class Coverage(NamedTuple):
    """found: words with a vector in the file. total: words asked for, special ones apart."""

    found: int
    total: int

    def __str__(self) -> str:
        share = 100 * self.found / max(1, self.total)
        return f"word vectors: {self.found} of {self.total} words found ({share:.1f} %)"


def read_word_vectors(path: str | Path, words: Sequence[str], width: int) -> dict[int, Tensor]:
    """The vectors of some words; the file is streamed, never held.

    Args:
        path: text file, a line being a word and its numbers, separated by single spaces; a first
            line of two numbers (fastText's header) is skipped. The first vector of a word counts.
        words: the words looked for.
        width: numbers a vector is expected to have.
    Returns: [width] float32 each, by the number of the word, those that the file has.
    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a vector has another width or is no vector, or no word was found at all.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"model.text.word_vectors: expected a text file of word vectors, found no {path}; "
            "nothing is downloaded, get the file yourself"
        )
    wanted = {word: index for index, word in enumerate(words) if word not in SPECIAL_WORDS}
    vectors: dict[int, Tensor] = {}
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            word, _, numbers = line.rstrip().partition(" ")
            index = wanted.get(word)
            if index is None or index in vectors or _is_other(number, line):
                continue
            vectors[index] = _parse(path, number, numbers, width)
    if wanted and not vectors:
        raise ValueError(
            f"model.text.word_vectors: expected some of {len(wanted)} words in {path}, found none; "
            "is it a text file of lower-case words with a vector each?"
        )
    return vectors


def _is_other(number: int, line: str) -> bool:
    """Whether a line is no vector of its first word.

    fastText's first line is two counts; some files of GloVe hold "words" with spaces in them.
    """
    parts = line.split()
    if number == 1 and len(parts) == 2:
        return all(part.isdigit() for part in parts)
    return len(parts) > 2 and not _is_number(parts[1]) and _is_number(parts[-1])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _parse(path: Path, number: int, numbers: str, width: int) -> Tensor:
    """[width] float32. Raises: ValueError saying what is wrong with the line."""
    place = f"model.text.word_vectors: {path}, line {number}"
    parts = numbers.split()
    if not all(_is_number(part) for part in parts):
        raise ValueError(f"{place}: expected a word and numbers, got {numbers[:40]!r}")
    if len(parts) != width:
        raise ValueError(
            f"{place}: expected {width} numbers (model.text.word_dim), got {len(parts)}; give "
            f"--model.text.word_dim {len(parts)} or another file"
        )
    vector = torch.tensor([float(part) for part in parts], dtype=torch.float32, device="cpu")
    if not vector.isfinite().all():
        raise ValueError(f"{place}: expected finite numbers, got NaN or infinity")
    return vector
