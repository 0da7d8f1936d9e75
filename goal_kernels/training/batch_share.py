"""Batches cut by rows: one process's share of a larger batch, and chunks of a batch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from goal_kernels.distributed import gather_rows
from goal_kernels.distributed.gather import rank, world_size
from goal_kernels.training.data import Batch
from goal_kernels.training.model import VSE
from goal_kernels.training.tokenizers import NO_WORD


class BatchShare(NamedTuple):
    """Where this process's batch lies among those of all processes.

    rows: pairs of each process, in order of their ranks. longest: width of the widest tokens.
    rank: of this process.
    """

    rows: list[int]
    longest: int
    rank: int

    @classmethod
    def of(cls, batch: Batch) -> BatchShare:
        """The share that `batch` is; one small collective where there are other processes."""
        rows, width = batch.tokens.shape
        if world_size() == 1:
            return cls([rows], width, 0)
        own = batch.tokens.new_tensor([[rows, width]])
        sizes = gather_rows(own, rows=[1] * world_size()).tolist()
        return cls([size[0] for size in sizes], max(size[1] for size in sizes), rank())


def augment_share(model: VSE, batch: Batch, share: BatchShare, generator: torch.Generator) -> Batch:
    """Augment this process's rows as they would be augmented inside the batch of all processes.

    Random numbers are drawn for the rows of all processes, from the same generator state in each,
    and the own rows are kept: k processes with B / k pairs drop the same regions and words as one
    process with B. Rows of others are empty here, and never images: drawing costs little.
    """
    if len(share.rows) == 1:
        return model.augment(batch, generator)
    first, own = sum(share.rows[: share.rank]), share.rows[share.rank]
    behind = sum(share.rows) - first - own
    wider = share.longest - batch.tokens.shape[1]

    def among_all(rows: Tensor, value: int = 0, width: int = 0) -> Tensor:
        """[b, ...] as rows of [B, ...], filled up with `value`, and `width` more columns."""
        return F.pad(rows, [0, width] * (rows.dim() - 1) + [first, behind], value=value)

    mask = batch.image_mask
    everyone = batch._replace(
        image_mask=among_all(mask) if mask is not None else None,
        tokens=among_all(batch.tokens, width=wider),
        words=among_all(batch.words, NO_WORD, wider),
        lengths=among_all(batch.lengths),
        image_ids=among_all(batch.image_ids),
    )
    augmented = model.augment(everyone, generator)
    kept = {
        name: part.narrow(0, first, own)
        for name, part in augmented._asdict().items()
        if part is not None and name != "images"
    }
    return augmented._replace(**kept)


def split_batch(batch: Batch, chunks: int) -> list[Batch]:
    """The batch as `chunks` batches of nearly equal size, in order; tokens keep their width.

    Raises: ValueError when there are fewer pairs than chunks.
    """
    pairs = len(batch.image_ids)
    if chunks > pairs:
        raise ValueError(
            f"model.accumulate_negatives: expected at most one chunk a pair, got {chunks} chunks "
            f"of {pairs} pairs; give fewer chunks or a larger data.batch_size"
        )
    parts = [
        field.tensor_split(chunks) if field is not None else [None] * chunks for field in batch
    ]
    return [Batch(*fields) for fields in zip(*parts, strict=True)]
