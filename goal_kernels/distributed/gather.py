"""Rows of all processes in every process, with the gradient that makes them train as one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed
from torch.distributed import ProcessGroup
from torch.nn import functional as F

from goal_kernels.checks import (
    Index,
    check_embeddings,
    check_ids,
    check_index_vector,
)
from goal_kernels.operators import in_forward_mode, refuse_forward_mode
from goal_kernels.pairing_checks import check_text_to_image
from goal_kernels.pairs import owned

# torch 2.13 gave the collective this name and deprecates the one it had until then.
_all_gather = getattr(distributed, "all_gather_single", None) or distributed.all_gather_into_tensor


def initialized() -> bool:
    """Whether this process belongs to a process group."""
    return distributed.is_available() and distributed.is_initialized()


def world_size(group: ProcessGroup | None = None) -> int:
    """Number of processes in the group (the default one when None); 1 without a group."""
    return distributed.get_world_size(group) if initialized() else 1


def rank(group: ProcessGroup | None = None) -> int:
    """Number of this process in the group, from 0; 0 without a group."""
    return distributed.get_rank(group) if initialized() else 0


class GatheredPairs(NamedTuple):
    """The pairs of all processes, those of rank 0 first.

    image_embeddings, text_embeddings: [B_total, D], with gradient where the given ones have it;
        with `text_to_image` [N_total, D] and [M_total, D].
    image_ids, text_ids: [N_total] and [M_total] int64, or None.
    text_to_image: [M_total] int64, or None as it was given.
    """

    image_embeddings: Tensor
    text_embeddings: Tensor
    image_ids: Tensor | None
    text_ids: Tensor | None
    text_to_image: Tensor | None = None


def rows_per_rank(
    rows: int, device: torch.device | str = "cpu", group: ProcessGroup | None = None
) -> list[int]:
    """How many rows each process of the group holds, in order of their ranks.

    Args:
        rows: of this process, >= 0.
        device: where the collective runs: "cpu" for gloo, the process's GPU for nccl.
        group: the default process group when None.
    One small collective, and the device is waited for: where batches are always equally large, pass
    `[rows] * world_size` to the functions of this module instead.
    """
    if world_size(group) == 1:
        return [rows]
    own = torch.tensor([rows], dtype=torch.int64, device=device)
    return gather_equal(own, group).tolist()


def gather_equal(tensor: Tensor, group: ProcessGroup | None) -> Tensor:
    """[R, ...] of every process, all of one shape, as [world_size * R, ...]; without gradient."""
    gathered = tensor.new_empty(world_size(group) * tensor.shape[0], *tensor.shape[1:])
    _all_gather(gathered, tensor.contiguous(), group=group)
    return gathered


def _gather(tensor: Tensor, rows: Sequence[int], group: ProcessGroup | None) -> Tensor:
    """[rows[rank], ...] of every process as [sum(rows), ...]; without gradient."""
    longest = max(rows)
    missing = longest - tensor.shape[0]
    padded = F.pad(tensor, [0, 0] * (tensor.dim() - 1) + [0, missing]) if missing else tensor
    gathered = gather_equal(padded, group)
    if min(rows) == longest:
        return gathered
    parts = gathered.split(longest)
    return torch.cat([part[:count] for part, count in zip(parts, rows, strict=True)])


class _GatherRows(torch.autograd.Function):
    """All rows forward; own rows of the incoming gradient backward, times `scale`."""

    jvp = staticmethod(refuse_forward_mode)

    @staticmethod
    def forward(
        tensor: Tensor, rows: list[int], group: ProcessGroup | None, scale: float
    ) -> Tensor:
        """tensor: [rows[rank], ...]. Returns: [sum(rows), ...]."""
        return _gather(tensor, rows, group)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """What backward needs to find the own rows."""
        _, rows, group, scale = inputs
        own = rank(group)
        ctx.first, ctx.count, ctx.scale = sum(rows[:own]), rows[own], scale

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        """gradient: [sum(rows), ...]. Returns: [rows[rank], ...]."""
        own = gradient.narrow(0, ctx.first, ctx.count)
        return own * ctx.scale if ctx.scale != 1 else own, None, None, None


def gather_rows(
    tensor: Tensor,
    *,
    rows: Sequence[int] | None = None,
    averaged_gradients: bool = True,
    group: ProcessGroup | None = None,
) -> Tensor:
    """The rows of all processes, in order of their ranks.

    Meant for losses that every process computes in full from the gathered rows. Each process then
    holds the whole gradient, of which backward hands on its own rows: no second collective. A loss
    that differs from process to process would lose what the others know of its rows.

    Args:
        tensor: [R, ...]; R may differ from process to process, the other dimensions may not.
        rows: R of every process; None asks for them (see `rows_per_rank`).
        averaged_gradients: whether gradients of parameters are averaged over the processes
            afterwards, as DistributedDataParallel and FSDP do. Backward then multiplies by the
            number of processes, so that the average is the gradient of a single process. False
            where they are summed.
        group: the default process group when None.
    Returns: [sum of R, ...]; `tensor` itself in a single process.
    Raises: ValueError when `rows` does not fit the group or the tensor.
    """
    size = world_size(group)
    if size == 1:
        return tensor
    counts = list(rows) if rows is not None else rows_per_rank(len(tensor), tensor.device, group)
    if len(counts) != size or counts[rank(group)] != tensor.shape[0]:
        raise ValueError(
            f"rows: expected {size} numbers, {tensor.shape[0]} at place {rank(group)}, got "
            f"{counts}; give the rows of every process in order of their ranks, or None"
        )
    if not (tensor.requires_grad or in_forward_mode()):
        return _gather(tensor, counts, group)
    return _GatherRows.apply(tensor, counts, group, float(size) if averaged_gradients else 1.0)


def gather_pairs(
    image_embeddings: Tensor,
    text_embeddings: Tensor,
    image_ids: Index | None = None,
    text_ids: Index | None = None,
    *,
    text_to_image: Index | None = None,
    rows: Sequence[int] | None = None,
    text_rows: Sequence[int] | None = None,
    averaged_gradients: bool = True,
    group: ProcessGroup | None = None,
) -> GatheredPairs:
    """The pairs of all processes: one collective for the embeddings, one for the ids.

    With `text_to_image` one for each side.

    Args:
        image_embeddings, text_embeddings: [B, D]; B may differ between processes.
        image_ids, text_ids: [B] integers or None, in every process alike. Ids are compared across
            processes, so they have to mean the same everywhere (rows of one dataset do).
        text_to_image: [M] integers or None, in every process alike: the image of each text, as in
            `goal_loss`, among those of this process; they count on through the processes.
        text_rows: with `text_to_image` the texts of every process, as `rows` are its images.
        Others: as in `gather_rows`.
    Returns: `GatheredPairs`; the given tensors themselves in a single process.
    """
    images, texts = check_embeddings(image_embeddings, text_embeddings)
    batch, device = len(images), images.device
    if text_to_image is not None:
        owner = check_text_to_image(text_to_image, batch, len(texts), device)
        if image_ids is not None:
            image_ids = check_index_vector("image_ids", image_ids, batch, device)
        if text_ids is not None:
            text_ids = check_index_vector("text_ids", text_ids, len(texts), device)
        pairs = GatheredPairs(images, texts, image_ids, text_ids, owner)
        if world_size(group) == 1:
            return pairs
        return _gather_captioned(pairs, rows, text_rows, averaged_gradients, group)
    ids = check_ids(image_ids, text_ids, batch, len(texts), device)
    if world_size(group) == 1:
        return GatheredPairs(images, texts, *ids)
    if images.shape != texts.shape:
        raise ValueError(
            f"text_embeddings: expected shape {tuple(images.shape)} like image_embeddings, got "
            f"{tuple(texts.shape)}; pass matching pairs"
        )
    counts = list(rows) if rows is not None else rows_per_rank(batch, device, group)
    # [B, 2 D]: a process has its images and texts under way in one message.
    both = gather_rows(
        torch.cat([images, texts], dim=1),
        rows=counts,
        averaged_gradients=averaged_gradients,
        group=group,
    )
    images, texts = both.chunk(2, dim=1)
    given = [side for side in ids if side is not None]
    if not given:
        return GatheredPairs(images, texts, None, None)
    together = gather_rows(torch.stack(given, dim=1), rows=counts, group=group)  # [B_total, 2]
    return GatheredPairs(images, texts, *together.unbind(1))


def _gather_captioned(
    given: GatheredPairs,
    rows: Sequence[int] | None,
    text_rows: Sequence[int] | None,
    averaged_gradients: bool,
    group: ProcessGroup | None,
) -> GatheredPairs:
    """`gather_pairs` with `text_to_image`, of several processes."""
    images, texts, image_ids, text_ids, owner = given
    assert owner is not None
    device = images.device
    counts = list(rows) if rows is not None else rows_per_rank(len(images), device, group)
    of_texts = (
        list(text_rows) if text_rows is not None else rows_per_rank(len(texts), device, group)
    )
    first = sum(counts[: rank(group)])
    columns = [torch.where(owned(owner, len(images)), owner + first, -1)]
    if text_ids is not None:
        columns.append(text_ids)
    numbers = gather_rows(torch.stack(columns, dim=1), rows=of_texts, group=group)
    if image_ids is not None:
        image_ids = gather_rows(image_ids, rows=counts, group=group)
    together = partial(gather_rows, averaged_gradients=averaged_gradients, group=group)
    return GatheredPairs(
        together(images, rows=counts),
        together(texts, rows=of_texts),
        image_ids,
        None if text_ids is None else numbers[:, 1].contiguous(),
        numbers[:, 0].contiguous(),
    )
