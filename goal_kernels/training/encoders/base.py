"""Base classes of encoders, grouping by length, normalisation of embeddings."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from goal_kernels.training.data import ImageBatch
from goal_kernels.training.pooling import Pooling, widened

MOST_PADDING = 3  # length of the longest caption encoded with others, over their mean length


class Rows(NamedTuple):
    """What an encoder pools: values [B, K, embed_dim] of regions or words, mask [B, K] bool."""

    values: Tensor
    mask: Tensor


class Encoder(nn.Module):
    """An encoder of either side: `rows`, then `pooled`.

    Attributes:
        lr_scales: learning rates of submodules, by name, relative to that of all the rest.
        pool, normalize: what makes embeddings of rows, and whether these get unit length.
    """

    lr_scales: dict[str, float]
    pool: Pooling
    normalize: bool

    def __init__(self) -> None:
        super().__init__()
        self.lr_scales = {}

    def rows(self, batch: Any) -> Rows:
        """Encode regions or words; K is that of the batch.

        Raises: ValueError when the encoder has one vector of a sample and no more.
        """
        raise ValueError(
            "model.scores: it and model.fusion expected encoders of regions and words, got "
            f"{type(self).__name__}, which has one vector an image; use --model.image.kind grid"
        )

    def pooled(self, rows: Rows) -> Tensor:
        """[B, K, embed_dim] rows to [B, embed_dim] float32."""
        return finished(self.pool(*rows), self.normalize)

    def forward(self, batch: Any) -> Tensor:
        """Encode a batch: [B, embed_dim] float32."""
        return self.pooled(self.rows(batch))


class ImageEncoder(Encoder):
    """From an `ImageBatch` to [B, embed_dim] float32."""

    def augment(self, batch: ImageBatch, rows: int, generator: torch.Generator) -> ImageBatch:
        """The batch as one training step sees it: parts of images left out at random.

        Args:
            batch: images, of which only the mask and the sizes are read.
            rows: B, for which masks are drawn; more than there are images where several processes
                draw for the batch they share.
            generator: the only source of randomness, on the device of the images.
        Returns: the same images, `image_mask` [B, K] bool saying what is left of them.
        """
        return batch

    def set_fixed_blocks(self, fixed_blocks: int) -> None:
        """Freeze the first blocks of the backbone and let all others train.

        Raises: ValueError when the encoder has no backbone.
        """
        raise ValueError(
            f"fixed_blocks: expected an image encoder with a backbone, got {type(self).__name__}, "
            "which has none; use --model.image.kind grid"
        )


def rows_by_length(lengths: Tensor) -> list[Tensor]:
    """Rows to encode together, so that one long caption does not pad all the others.

    Args:
        lengths: [B] integers.
    Returns: rows [b] int64 on the device of the lengths, shorter captions first; one group unless
        a caption is more than `MOST_PADDING` times as long as the mean of its group.
    """
    groups: list[Tensor] = []
    left = torch.arange(len(lengths), device=lengths.device)
    while True:
        own = lengths[left]
        long = own * len(own) > MOST_PADDING * own.sum()
        if not long.any():
            return [*groups, left]
        groups.append(left[~long])
        left = left[long]


def start_as_published(linear: nn.Linear) -> None:
    """The start of image projections in VSE++, SCAN and VSE-infinity: Xavier, no bias."""
    nn.init.xavier_uniform_(linear.weight)
    nn.init.zeros_(linear.bias)


def finished(pooled: Tensor, normalize: bool) -> Tensor:
    """The output of an encoder, in float32 at least.

    Args:
        pooled: [B, D].
        normalize: give rows unit length.
    Returns: [B, D] float32, or float64 for float64. A row of zeros stays one.
    """
    wide = widened(pooled)
    return F.normalize(wide, dim=1) if normalize else wide
