"""A text encoder that reads word vectors with a convolution and one layer of self-attention."""

from __future__ import annotations

import torch
from torch import nn

from goal_kernels.training.data import TextBatch
from goal_kernels.training.encoders.base import Encoder, Rows
from goal_kernels.training.options import DataSizes, TextOptions
from goal_kernels.training.pooling import make_pooling

WINDOW = 5  # words that the convolution sees at once: two to either side
HEAD_WIDTH = 32  # where it divides the width; else there is one head
FEED_FORWARD = 2  # its width, in widths of the joint space


class ConvolutionEncoder(Encoder):
    """Encodes token ids: embedding, convolution, a layer of a transformer, pooling.

    Equals: normalize(pool(layer(relu(convolution(embedding(tokens)))))), the layer torch's, without
    dropout. Order is what the convolution sees of it. Small, and made to start from random weights.

    Args:
        options: of the text encoder.
        sizes: gives the number of ids.
        embed_dim: width of the joint space and of the layer.
        pretrained: what other encoders need; there are no weights to read here.
    """

    def __init__(
        self, options: TextOptions, sizes: DataSizes, embed_dim: int, pretrained: bool = True
    ) -> None:
        super().__init__()
        if options.word_vectors is not None:
            raise ValueError(
                "model.text.word_vectors: expected null for kind 'conv'; use them with "
                "--model.text.kind bigru"
            )
        self.embedding = nn.Embedding(sizes.vocabulary_size, options.word_dim, padding_idx=0)
        self.convolution = nn.Conv1d(options.word_dim, embed_dim, WINDOW, padding=WINDOW // 2)
        self.layer = nn.TransformerEncoderLayer(
            embed_dim,
            1 if embed_dim % HEAD_WIDTH else embed_dim // HEAD_WIDTH,
            FEED_FORWARD * embed_dim,
            dropout=0.0,
            batch_first=True,
        )
        self.pool = make_pooling("model.text.pooling", options.pooling, ordered=True)
        self.normalize = options.normalize

    def rows(self, batch: TextBatch) -> Rows:
        """Encode [B, L] tokens: [B, L, embed_dim]."""
        tokens = batch.tokens
        mask = torch.arange(tokens.shape[1], device=tokens.device) < batch.lengths[:, None]
        vectors = self.embedding(tokens).masked_fill(~mask[:, :, None], 0)
        seen = self.convolution(vectors.transpose(1, 2)).relu().transpose(1, 2)
        return Rows(self.layer(seen, src_key_padding_mask=~mask), mask)
