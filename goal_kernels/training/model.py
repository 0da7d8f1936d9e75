"""The dual encoder: one image encoder, one text encoder, one embedding space."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from goal_kernels.training.augmentation import DROP_PROBABILITY, region_dropout, word_dropout
from goal_kernels.training.data import Batch
from goal_kernels.training.encoders import RegionEncoder, TextEncoder

WORD_DIM = 300  # width of word vectors throughout the VSE lineage


class VSE(nn.Module):
    """Visual-semantic embedding of region features and captions, plain torch.

    Args:
        region_dim: width of one region feature.
        vocabulary_size: number of token ids, the four special ones included.
        embed_dim: width of the joint space.
        word_dim: width of the word vectors.
        drop_probability: region and word dropout in training mode, in [0, 1).
    """

    def __init__(
        self,
        region_dim: int,
        vocabulary_size: int,
        embed_dim: int,
        word_dim: int = WORD_DIM,
        drop_probability: float = DROP_PROBABILITY,
    ) -> None:
        super().__init__()
        self.vocabulary_size = vocabulary_size
        self.drop_probability = drop_probability
        self.image_encoder = RegionEncoder(region_dim, embed_dim)
        self.text_encoder = TextEncoder(vocabulary_size, word_dim, embed_dim)

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The batch with regions and words dropped at random; the images and ids are untouched."""
        if self.drop_probability == 0:
            return batch
        tokens, lengths = word_dropout(
            batch.tokens, batch.lengths, self.vocabulary_size, self.drop_probability, generator
        )
        mask = region_dropout(batch.region_mask, self.drop_probability, generator)
        return batch._replace(tokens=tokens, lengths=lengths, region_mask=mask)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Embed the pairs of a batch.

        Returns: image_embeddings [B, embed_dim] and text_embeddings [B, embed_dim], unit rows.
        """
        images = self.image_encoder(batch.regions, batch.region_mask)
        texts = self.text_encoder(batch.tokens, batch.lengths)
        return images, texts
