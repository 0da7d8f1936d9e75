"""Image and text encoders of the VSE-infinity family: features in, unit vectors out."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from goal_kernels.training.pooling import GeneralizedPooling, averaged_bigru


class RegionEncoder(nn.Module):
    """Encodes a set of region features as one unit vector.

    Equals: normalize(pool(linear(x) + mlp(x))), the MLP being Linear, BatchNorm, ReLU, Linear
    with half of `embed_dim` hidden units. Only valid regions are ever computed, so the batch
    statistics hold no padding.
    Source: VSE-infinity's region encoder, where padding does enter the batch statistics.
    """

    def __init__(self, region_dim: int, embed_dim: int) -> None:
        super().__init__()
        hidden = embed_dim // 2
        self.linear = nn.Linear(region_dim, embed_dim)
        self.mlp = nn.Sequential(
            nn.Linear(region_dim, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, embed_dim),
        )
        self.pool = GeneralizedPooling()

    def forward(self, regions: Tensor, mask: Tensor) -> Tensor:
        """Encode a batch of images.

        Args:
            regions: [B, K, region_dim] float32.
            mask: [B, K] bool, True for valid regions, at least one an image.
        Returns: [B, embed_dim], rows of unit length.
        """
        valid = regions[mask]  # [R, region_dim]
        encoded = self.linear(valid) + self.mlp(valid)  # [R, embed_dim]
        padded = encoded.new_zeros(*mask.shape, encoded.shape[1])  # [B, K, embed_dim]
        padded[mask] = encoded
        return F.normalize(self.pool(padded, mask), dim=1)


class TextEncoder(nn.Module):
    """Encodes token ids as one unit vector: embedding, BiGRU, pooling.

    Equals: normalize(pool(mean of the two directions of gru(embedding(tokens)))).
    """

    def __init__(self, vocabulary_size: int, word_dim: int, embed_dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, word_dim, padding_idx=0)
        self.gru = nn.GRU(word_dim, embed_dim, batch_first=True, bidirectional=True)
        self.pool = GeneralizedPooling()

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Encode a batch of captions.

        Args:
            tokens: [B, L] int64; positions at and beyond a row's length are never read.
            lengths: [B] int64, at least 1.
        Returns: [B, embed_dim], rows of unit length.
        """
        states = averaged_bigru(self.gru, self.embedding(tokens), lengths.cpu())
        mask = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
        return F.normalize(self.pool(states, mask), dim=1)
