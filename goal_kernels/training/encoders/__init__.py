"""Image and text encoders: batches in, embeddings out. A new one is a class and a row here."""

from __future__ import annotations

from typing import Protocol

from goal_kernels.training.encoders.base import ImageEncoder, TextEncoder
from goal_kernels.training.encoders.bert import BertEncoder
from goal_kernels.training.encoders.grid import GlobalEncoder, GridEncoder
from goal_kernels.training.encoders.recurrent import OneWayEncoder, RecurrentEncoder
from goal_kernels.training.encoders.region import RegionEncoder
from goal_kernels.training.options import DataSizes, ImageOptions, TextOptions


class MakesImageEncoder(Protocol):
    """What is registered for images."""

    def __call__(
        self, options: ImageOptions, sizes: DataSizes, embed_dim: int, pretrained: bool
    ) -> ImageEncoder:
        """The encoder that the options describe."""


class MakesTextEncoder(Protocol):
    """What is registered for texts."""

    def __call__(
        self, options: TextOptions, sizes: DataSizes, embed_dim: int, pretrained: bool
    ) -> TextEncoder:
        """The encoder that the options describe."""


IMAGE_ENCODERS: dict[str, MakesImageEncoder] = {
    "region": RegionEncoder,
    "grid": GridEncoder,
    "global": GlobalEncoder,
}
TEXT_ENCODERS: dict[str, MakesTextEncoder] = {
    "bigru": RecurrentEncoder,
    "gru": OneWayEncoder,
    "bert": BertEncoder,
}
