"""Encoders of sets of vectors: regions that a detector found, cells of a feature map."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from goal_kernels.training.augmentation import region_dropout
from goal_kernels.training.data import ImageBatch
from goal_kernels.training.encoders.base import ImageEncoder, Rows, start_as_published
from goal_kernels.training.encoders.reasoning import RegionReasoning
from goal_kernels.training.options import DataSizes, ImageOptions
from goal_kernels.training.pooling import make_pooling


class SetEncoder(ImageEncoder):
    """Encodes a set of vectors as one.

    Equals: normalize(pool(reason(linear(x) + mlp(x)))), the MLP being Linear, BatchNorm, ReLU,
    Linear with `mlp_width` hidden units, or no MLP at all; reason: `reasoning` layers, by default
    none. Only valid rows are ever computed, so the batch statistics hold no padding, unless
    `padding_in_batch_norm` asks for it.
    Source: VSE-infinity's image encoders; without MLP and with one row, VSE++'s.

    Args:
        options: of the image encoder.
        width: of the vectors.
        embed_dim: width of the joint space.
        mlp: whether there is an MLP.
    """

    def __init__(self, options: ImageOptions, width: int, embed_dim: int, mlp: bool) -> None:
        super().__init__()
        hidden = options.mlp_width or max(1, embed_dim // 2)
        self.linear = nn.Linear(width, embed_dim)
        self.mlp = (
            nn.Sequential(
                nn.Linear(width, hidden),
                nn.BatchNorm1d(hidden),
                nn.ReLU(),
                nn.Linear(hidden, embed_dim),
            )
            if mlp
            else None
        )
        layers = (RegionReasoning(embed_dim) for _ in range(options.reasoning))
        self.reasoning = nn.ModuleList(layers)
        self.pool = make_pooling("model.image.pooling", options.pooling, ordered=False)
        self.normalize = options.normalize
        self.padding_in_batch_norm = options.padding_in_batch_norm
        if options.initialisation == "published":
            start_as_published(self.linear)

    def project(self, vectors: Tensor, mask: Tensor) -> Rows:
        """Project a batch of sets.

        Args:
            vectors: [B, K, width] float; masked-out rows are never read.
            mask: [B, K] bool, True for valid rows, at least one a set.
        Returns: [B, K, embed_dim], zeros where masked out, and the mask.
        """
        rows = self._project(vectors[mask], mask)  # [R, embed_dim]
        padded = rows.new_zeros(*mask.shape, rows.shape[1])
        padded[mask] = rows
        for layer in self.reasoning:
            padded = layer(padded, mask)
        return Rows(padded, mask)

    def _project(self, valid: Tensor, mask: Tensor) -> Tensor:
        """[R, width] valid rows to [R, embed_dim]."""
        linear = self.linear(valid)
        if self.mlp is None:
            return linear
        if not (self.training and self.padding_in_batch_norm):
            return linear + self.mlp(valid)
        # Published batches are padded with zeros to their largest set, and no further.
        padding = int(mask.sum(dim=1).max()) * mask.shape[0] - valid.shape[0]
        rows = torch.cat([valid, valid.new_zeros(padding, valid.shape[1])])
        return linear + self.mlp(rows)[: valid.shape[0]]


class RegionEncoder(SetEncoder):
    """Encodes precomputed features of regions, [B, K, region_dim] with a mask.

    One global feature an image (VSE++ on precomputed features) is the case K = 1.
    """

    def __init__(
        self, options: ImageOptions, sizes: DataSizes, embed_dim: int, pretrained: bool = True
    ) -> None:
        """`pretrained` is what other encoders need; there are no weights to read here.

        Raises: ValueError when the data holds raw images.
        """
        if sizes.region_dim < 1:
            raise ValueError(
                "model.image.kind: 'region' needs precomputed features, and the data holds raw "
                "images; give --model.image.kind grid and --model.image.backbone, or a folder of "
                "features with --data.folder"
            )
        super().__init__(options, sizes.region_dim, embed_dim, mlp=options.mlp is not False)
        self.drop_probability = options.drop_probability

    def augment(self, batch: ImageBatch, rows: int, generator: torch.Generator) -> ImageBatch:
        """Region dropout."""
        if self.drop_probability == 0:
            return batch
        mask = region_dropout(_given_mask(batch, rows), self.drop_probability, generator)
        return batch._replace(image_mask=mask)

    def rows(self, batch: ImageBatch) -> Rows:
        """Encode [B, K, region_dim] regions: [B, K, embed_dim].

        Raises: ValueError when the images are not regions of that width.
        """
        if batch.images.ndim != 3 or batch.images.shape[2] != self.linear.in_features:
            raise ValueError(
                f"images: expected region features [B, K, {self.linear.in_features}], got "
                f"{list(batch.images.shape)}; the model was built for other data"
            )
        return self.project(batch.images, _given_mask(batch, len(batch.images)))


def _given_mask(batch: ImageBatch, rows: int) -> Tensor:
    """The mask [rows, K]; every region counts where there is none."""
    if batch.image_mask is not None:
        return batch.image_mask
    return torch.ones(rows, batch.images.shape[1], dtype=torch.bool, device=batch.images.device)
