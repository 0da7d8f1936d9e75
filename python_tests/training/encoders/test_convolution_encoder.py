"""The convolutional text encoder: padding that changes nothing, order, what it refuses."""

from __future__ import annotations

import pytest
import torch

from goal_kernels.training.data import TextBatch
from goal_kernels.training.encoders.convolution import ConvolutionEncoder
from goal_kernels.training.options import DataSizes, TextOptions

LENGTHS = (3, 9, 5)


def make(**options) -> ConvolutionEncoder:
    torch.manual_seed(0)
    return ConvolutionEncoder(TextOptions(word_dim=12, **options), DataSizes(10, 50), 32)


def captions(tokens: torch.Tensor, lengths: tuple[int, ...]) -> TextBatch:
    rows = torch.arange(len(tokens))
    return TextBatch(tokens, torch.tensor(lengths), torch.full_like(tokens, -1), rows)


@pytest.mark.parametrize("pooling", ["gpo", "mean", "last"])
@pytest.mark.parametrize("training", [True, False])
def test_caption_alone_equals_caption_in_a_padded_batch(pooling: str, training: bool) -> None:
    encoder = make(pooling=pooling).train(training)
    tokens = torch.randint(4, 50, (3, 9))  # what is behind the end of a caption is never read
    with torch.set_grad_enabled(training):
        together = encoder(captions(tokens, LENGTHS))
        for row, length in enumerate(LENGTHS):
            alone = encoder(captions(tokens[row : row + 1, :length], (length,)))
            torch.testing.assert_close(together[row : row + 1], alone)


def test_the_order_of_words_matters() -> None:
    encoder = make(pooling="mean")
    tokens = torch.tensor([[5, 6, 7, 8]])
    swapped = encoder(captions(tokens.flip(1), (4,)))
    assert (encoder(captions(tokens, (4,))) - swapped).norm() > 0.01


def test_a_file_of_word_vectors_is_refused() -> None:
    with pytest.raises(ValueError, match=r"model\.text\.word_vectors: expected null"):
        make(word_vectors="glove.txt")
