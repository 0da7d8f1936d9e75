"""Image encoders on raw images: the cells of a backbone's feature map, or their mean."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from goal_kernels.training.augmentation import size_augmentation
from goal_kernels.training.backbones import make_backbone
from goal_kernels.training.data import ImageBatch
from goal_kernels.training.encoders.base import (
    ImageEncoder,
    Rows,
    finished,
    start_as_published,
)
from goal_kernels.training.encoders.region import SetEncoder
from goal_kernels.training.options import DataSizes, ImageOptions
from goal_kernels.training.pooling import make_pooling


class BackboneEncoder(ImageEncoder):
    """What encoders of raw images share: the backbone, its learning rate, its frozen blocks.

    Args:
        options: of the image encoder.
        sizes: says that images are raw.
        pretrained: read the backbone's weights; not needed when a checkpoint follows.
    """

    def __init__(self, options: ImageOptions, sizes: DataSizes, pretrained: bool) -> None:
        super().__init__()
        if sizes.region_dim > 0:
            raise ValueError(
                f"model.image.kind: {options.kind!r} needs raw images, and the data holds features "
                f"of width {sizes.region_dim}; give --model.image.kind region, or raw images with "
                "--data.folder"
            )
        self.backbone = make_backbone(options, pretrained)
        self.backbone.set_fixed_blocks(options.fixed_blocks)
        self.lr_scales = {"backbone": options.lr_scale}

    def set_fixed_blocks(self, fixed_blocks: int) -> None:
        """Freeze the first blocks of the backbone, 0 to 4 of them, and let all others train."""
        self.backbone.set_fixed_blocks(fixed_blocks)

    def cells(self, batch: ImageBatch) -> Tensor:
        """[B, 3, H, W] images to [B, cells, channels].

        Raises: ValueError when the images are none.
        """
        if batch.images.ndim != 4 or batch.images.shape[1] != 3:
            raise ValueError(
                f"images: expected raw images [B, 3, H, W], got {list(batch.images.shape)}; "
                "precomputed features need --model.image.kind region"
            )
        return self.backbone(batch.images)


class GridEncoder(BackboneEncoder):
    """Encodes the cells of a feature map as a set, of which training drops some.

    Source: VSE-infinity's grid encoder; no MLP there, `model.image.mlp` adds one.
    """

    def __init__(
        self, options: ImageOptions, sizes: DataSizes, embed_dim: int, pretrained: bool = True
    ) -> None:
        super().__init__(options, sizes, pretrained)
        self.head = SetEncoder(options, self.backbone.channels, embed_dim, options.mlp is True)
        self.drop_probability = options.drop_probability

    def augment(self, batch: ImageBatch, rows: int, generator: torch.Generator) -> ImageBatch:
        """Size augmentation: `image_mask` [rows, cells] says which cells are left."""
        if self.drop_probability == 0:
            return batch
        cells = self.backbone.count_cells(*batch.images.shape[2:])
        whole = torch.ones(rows, cells, dtype=torch.bool, device=batch.images.device)
        mask = size_augmentation(whole, self.drop_probability, generator)
        return batch._replace(image_mask=mask)

    def rows(self, batch: ImageBatch) -> Rows:
        """Encode [B, 3, H, W] images: [B, cells, embed_dim]; all cells count without a mask."""
        cells = self.cells(batch)
        mask = batch.image_mask
        if mask is None:
            mask = torch.ones(cells.shape[:2], dtype=torch.bool, device=cells.device)
        return self.head.project(cells, mask)

    def pooled(self, rows: Rows) -> Tensor:
        """[B, cells, embed_dim] rows to [B, embed_dim] float32."""
        return self.head.pooled(rows)


class GlobalEncoder(BackboneEncoder):
    """Encodes one vector of an image: its cells pooled, given unit length, projected.

    Equals: normalize(linear(normalize(pool(cells)))); pooling "mean" gives what the classifier of a
    ResNet would read.
    Source: VSE++'s encoder of raw images.
    """

    def __init__(
        self, options: ImageOptions, sizes: DataSizes, embed_dim: int, pretrained: bool = True
    ) -> None:
        super().__init__(options, sizes, pretrained)
        self.pool = make_pooling("model.image.pooling", options.pooling, ordered=False)
        self.linear = nn.Linear(self.backbone.channels, embed_dim)
        self.normalize = options.normalize
        if options.mlp:
            raise ValueError(
                "model.image.mlp: expected null or false for kind 'global', which has one linear "
                "projection; use kind 'grid'"
            )
        if options.initialisation == "published":
            start_as_published(self.linear)

    def forward(self, batch: ImageBatch) -> Tensor:
        """Encode [B, 3, H, W] images: [B, embed_dim] float32."""
        cells = self.cells(batch)
        every = torch.ones(cells.shape[:2], dtype=torch.bool, device=cells.device)
        pooled = F.normalize(self.pool(cells, every), dim=1)
        return finished(self.linear(pooled), self.normalize)
