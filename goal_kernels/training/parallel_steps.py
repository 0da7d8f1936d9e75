"""One step on several processes, or in two passes over chunks of a batch, under Lightning."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.overrides.distributed import prepare_for_backward
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from goal_kernels.distributed import gather_rows
from goal_kernels.distributed.gather import rank, world_size
from goal_kernels.training.accumulation import ChunkedEncoding
from goal_kernels.training.data import Batch
from goal_kernels.training.model import VSE
from goal_kernels.training.tokenizers import NO_WORD

Embeddings = tuple[Tensor, Tensor]


def first_pass(
    model: VSE, batch: Batch, chunks: int, trainer: pl.Trainer
) -> tuple[Embeddings, Callable[[], None]]:
    """Embed a batch in chunks, inside `training_step`.

    Returns: image and text embeddings [B, D], leaves of a graph; and the second pass, to be run in
        the module's `backward` after that of the loss, once gradients have been cleared.
    """

    def encode(chunk: Batch) -> Embeddings:
        # The trainer's autocast does not reach into `backward`, where the second pass runs.
        with trainer.precision_plugin.forward_context():
            return model(chunk)

    encoding = ChunkedEncoding(encode, split_batch(batch, chunks), model)
    parallel = trainer.model
    if not isinstance(parallel, DistributedDataParallel):
        return encoding.embed(), encoding.backward
    # The reducer averages after the one backward it is prepared for. That is the last chunk's, when
    # the others have left their gradients already; so it must not be prepared after this step.
    averages = parallel.require_backward_grad_sync
    parallel.require_backward_grad_sync = False

    def prepare(embeddings: tuple[Tensor, ...]) -> None:
        parallel.require_backward_grad_sync = averages
        prepare_for_backward(parallel, embeddings)

    return encoding.embed(), lambda: encoding.backward(before_last=prepare)


def require_unused_parameters(trainer: pl.Trainer) -> None:
    """See that DistributedDataParallel can do with parameters that are frozen for a while.

    Raises: ValueError naming the strategy that can.
    """
    strategy = trainer.strategy
    if isinstance(strategy, DDPStrategy) and not strategy._ddp_kwargs.get(
        "find_unused_parameters", False
    ):
        raise ValueError(
            "trainer.strategy: expected ddp_find_unused_parameters_true, since "
            "model.frozen_epochs and model.unfreezing_epochs change what trains; got one that "
            "waits for the gradient of every parameter"
        )


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
