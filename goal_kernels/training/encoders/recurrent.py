"""Text encoders that read word vectors with a GRU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from goal_kernels.training.data import TextBatch
from goal_kernels.training.encoders.base import TextEncoder, finished
from goal_kernels.training.encoders.word_vectors import Coverage, read_word_vectors
from goal_kernels.training.options import DataSizes, TextOptions
from goal_kernels.training.pooling import gru_states, make_pooling

WORD_BOUND = 0.1  # word vectors start uniform in [-0.1, 0.1] in VSE++ and SCAN


class RecurrentEncoder(TextEncoder):
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
        found = read_word_vectors(self.word_vectors, words, width)
        for index, vector in found.vectors.items():
            self.embedding.weight[index] = vector.to(self.embedding.weight)
        self.word_vectors = None
        return found.coverage

    def forward(self, batch: TextBatch) -> Tensor:
        """Encode [B, L] tokens: [B, embed_dim] float32.

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
        return finished(self.pool(states, mask), self.normalize)


class OneWayEncoder(RecurrentEncoder):
    """The encoder of VSE++: the GRU reads from the first to the last token only."""

    bidirectional = False
