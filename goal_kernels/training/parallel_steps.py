"""One step on several processes, or in two passes over chunks of a batch, under Lightning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

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
from goal_kernels.training.scoring import TokenSet, lengthened
from goal_kernels.training.tokenizers import NO_WORD
from goal_kernels.whole_batch.shares import current_share

Embeddings = tuple[Tensor, ...]


def first_pass(
    model: VSE, batch: Batch, chunks: int, trainer: pl.Trainer
) -> tuple[Embeddings, Callable[[], None]]:
    """Embed a batch in chunks, inside `training_step`.

    Returns: what the model returns, image and text embeddings [B, D] first, leaves of a graph; and
        the second pass, to be run in the module's `backward` after that of the loss, once gradients
        have been cleared.
    """

    parallel = trainer.model

    def encode(chunk: Batch) -> Embeddings:
        # The trainer's autocast does not reach into `backward`, where the second pass runs.
        with trainer.precision_plugin.forward_context():
            first, *others = model(chunk)
        if isinstance(parallel, DistributedDataParallel) and model.fusion is not None:
            # What the loss itself has trained has to be seen in the backward that is averaged.
            parts = [part for part in model.fusion.parameters() if part.grad is not None]
            first = first + sum(0.0 * part.sum() for part in parts)
        return first, *others

    encoding = ChunkedEncoding(encode, split_batch(batch, chunks), model)
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
            "model.frozen_epochs, model.unfreezing_epochs and model.fusion.start_epochs change "
            "what trains; got one that waits for the gradient of every parameter"
        )


class BatchShare(NamedTuple):
    """Where this process's batch lies among those of all processes.

    rows, text_rows: images and captions of each process, in order of their ranks. longest: width of
    the widest tokens. rank: of this process.
    """

    rows: list[int]
    text_rows: list[int]
    longest: int
    rank: int

    @classmethod
    def of(cls, batch: Batch) -> BatchShare:
        """The share that `batch` is; one small collective where there are other processes."""
        images, (texts, width) = len(batch.images), batch.tokens.shape
        if world_size() == 1:
            return cls([images], [texts], width, 0)
        own = batch.tokens.new_tensor([[images, texts, width]])
        sizes = gather_rows(own, rows=[1] * world_size()).T.tolist()
        return cls(sizes[0], sizes[1], max(sizes[2]), rank())


def gather_tokens(
    tokens: Sequence[Tensor], share: BatchShare, averaged_gradients: bool = True
) -> tuple[TokenSet, TokenSet]:
    """Tokens of the images and the captions of all processes, in order of their ranks.

    Every process scores all pairs, and hands back the gradient of its own tokens.
    Args:
        tokens: values and weights of the images, then of the captions, of this process.
        averaged_gradients: as in `gather_rows`.
    """

    def together(side: Sequence[Tensor], rows: list[int], longest: int) -> TokenSet:
        options: Any = {"rows": rows, "averaged_gradients": averaged_gradients}
        return TokenSet(*(gather_rows(lengthened(part, longest), **options) for part in side))

    return (
        together(tokens[:2], share.rows, tokens[0].shape[1]),
        together(tokens[2:], share.text_rows, share.longest),
    )


class _AddedGradients(torch.autograd.Function):
    """The values themselves; backward adds up what the processes know of their gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.share = current_share()
        return values.view_as(values)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        ctx.share.add_large(total)
        return total


def shared_tokens(tokens: Sequence[Tensor], share: BatchShare) -> tuple[TokenSet, TokenSet]:
    """`gather_tokens` for a loss of which each process, in `sharing`, computes a part."""
    if len(share.rows) == 1:
        return gather_tokens(tokens, share)
    images, texts = (
        side._replace(values=_AddedGradients.apply(side.values))
        for side in gather_tokens(tokens, share, averaged_gradients=False)
    )
    return images, texts


def augment_share(model: VSE, batch: Batch, share: BatchShare, generator: torch.Generator) -> Batch:
    """Augment this process's rows as they would be augmented inside the batch of all processes.

    Random numbers are drawn for the rows of all processes, from the same generator state in each,
    and the own rows are kept: k processes with B / k pairs drop the same regions and words as one
    process with B. Rows of others are empty here, and never images: drawing costs little.
    """
    if len(share.rows) == 1:
        return model.augment(batch, generator)
    wider = share.longest - batch.tokens.shape[1]

    def among_all(part: Tensor, rows: list[int], value: int = 0, width: int = 0) -> Tensor:
        """Own rows [b, ...] as rows of [B, ...], filled up with `value`, and more columns."""
        first, behind = sum(rows[: share.rank]), sum(rows[share.rank + 1 :])
        return F.pad(part, [0, width] * (part.dim() - 1) + [first, behind], value=value)

    def own(part: Tensor, rows: list[int]) -> Tensor:
        return part.narrow(0, sum(rows[: share.rank]), rows[share.rank])

    texts, mask = share.text_rows, batch.image_mask
    everyone = batch._replace(
        image_mask=among_all(mask, share.rows) if mask is not None else None,
        tokens=among_all(batch.tokens, texts, width=wider),
        words=among_all(batch.words, texts, NO_WORD, wider),
        lengths=among_all(batch.lengths, texts),
    )
    augmented = model.augment(everyone, generator, sum(share.rows))
    mask = augmented.image_mask
    changed = {name: getattr(augmented, name) for name in ("tokens", "lengths", "words")}
    return batch._replace(
        image_mask=own(mask, share.rows) if mask is not None else None,
        **{name: own(part, texts) for name, part in changed.items()},
    )


def split_batch(batch: Batch, chunks: int) -> list[Batch]:
    """The batch as `chunks` batches of nearly as many images each, in order, with their captions.

    Tokens keep their width.
    Raises: ValueError when there are fewer pairs, or images, than chunks.
    """
    owner, images = batch.text_to_image, len(batch.images)
    if chunks > images:
        kind = "pair" if owner is None else "image"
        raise ValueError(
            f"model.accumulate_negatives: expected at most one chunk a {kind}, got {chunks} chunks "
            f"of {images} {kind}s; give fewer chunks or a larger data.batch_size"
        )
    firsts = [int(part[0]) for part in torch.arange(images).tensor_split(chunks)]
    cuts = text_cuts = firsts[1:]
    if owner is not None:
        text_cuts = torch.searchsorted(owner, owner.new_tensor(cuts)).tolist()

    def parts(field: Tensor | None, at: list[int]) -> list[Any]:
        return list(field.tensor_split(at)) if field is not None else [None] * chunks

    fields = {
        **{name: parts(field, cuts) for name, field in batch.image_part._asdict().items()},
        **{name: parts(field, text_cuts) for name, field in batch.text_part._asdict().items()},
    }
    if owner is not None:
        owners = zip(parts(owner, text_cuts), firsts, strict=True)
        fields["text_to_image"] = [own - first for own, first in owners]
    chunks_of_fields = zip(*fields.values(), strict=True)
    return [Batch(**dict(zip(fields, chunk, strict=True))) for chunk in chunks_of_fields]


def several(batch: Batch, times: int) -> Batch:
    """The batch so many times over, each time with images of their own."""
    if times == 1:
        return batch
    copies = torch.arange(times)[:, None]

    def apart(name: str, part: Tensor) -> Tensor:
        if name == "text_to_image":
            return (part + len(batch.images) * copies).flatten()
        if name in ("image_ids", "group_ids"):
            return (part + (int(part.max()) + 1) * copies).flatten()
        return part.repeat(times, *[1] * (part.dim() - 1))

    fields = batch._asdict().items()
    repeated: Any = {name: p if p is None else apart(name, p) for name, p in fields}
    return Batch(**repeated)
