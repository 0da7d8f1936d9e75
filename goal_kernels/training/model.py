"""The dual encoder: one image encoder, one text encoder, one embedding space."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from goal_kernels.training.augmentation import region_dropout, word_dropout
from goal_kernels.training.data import Batch, ImageBatch, TextBatch
from goal_kernels.training.encoders import RegionEncoder, TextEncoder
from goal_kernels.training.options import DataSizes, ImageOptions, TextOptions


class VSE(nn.Module):
    """Visual-semantic embedding of images and captions, plain torch.

    Args:
        image: options of the image encoder.
        text: options of the text encoder.
        sizes: what must be known of the data.
        embed_dim: width of the joint space.
    """

    def __init__(
        self, image: ImageOptions, text: TextOptions, sizes: DataSizes, embed_dim: int
    ) -> None:
        super().__init__()
        self.image, self.text, self.sizes = image, text, sizes
        self.image_encoder = RegionEncoder(sizes.region_dim, embed_dim)
        self.text_encoder = TextEncoder(sizes.vocabulary_size, text.word_dim, embed_dim)

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The batch with regions and words dropped at random; the images and ids are untouched."""
        if self.text.drop_probability > 0:
            tokens, lengths = word_dropout(
                batch.tokens, batch.lengths, self.sizes, self.text.drop_probability, generator
            )
            batch = batch._replace(tokens=tokens, lengths=lengths)
        if self.image.drop_probability > 0 and batch.image_mask is not None:
            mask = region_dropout(batch.image_mask, self.image.drop_probability, generator)
            batch = batch._replace(image_mask=mask)
        return batch

    def encode_images(self, batch: ImageBatch) -> Tensor:
        """Embed images: [B, embed_dim], unit rows."""
        return self.image_encoder(batch.images, batch.image_mask)

    def encode_texts(self, batch: TextBatch) -> Tensor:
        """Embed captions: [B, embed_dim], unit rows."""
        return self.text_encoder(batch.tokens, batch.lengths)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Embed the pairs of a batch.

        Returns: image_embeddings [B, embed_dim] and text_embeddings [B, embed_dim], unit rows.
        """
        return self.encode_images(batch.image_part), self.encode_texts(batch.text_part)

    def parameter_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Groups for an optimiser: all parameters at one learning rate."""
        return [{"params": list(self.parameters()), "lr": lr, "weight_decay": weight_decay}]


def build_model(image: ImageOptions, text: TextOptions, sizes: DataSizes, embed_dim: int) -> VSE:
    """The model that the options describe."""
    return VSE(image, text, sizes, embed_dim)
