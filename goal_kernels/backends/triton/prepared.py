"""Launch of `prepare_kernel`, and what it leaves for mining and for everything after."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from goal_kernels.backends.base import Pairing
from goal_kernels.backends.triton.configs import (
    ALIGNMENT,
    LAUNCH_OPTIONS,
    PARTS,
    RANGE_ROWS,
    WARPS,
    row_block,
)
from goal_kernels.backends.triton.runtime import load_kernels
from goal_kernels.constants import SHORTEST_LENGTH

PADDING = 8
"""Copied rows have a multiple of this many elements: at least `ALIGNMENT` bytes in every dtype."""


class Wants(NamedTuple):
    """What a mining kernel needs beyond rows of unit inner stride.

    aligned: rows that start at multiples of `ALIGNMENT`. split: float32 rows as bfloat16 pairs.
    ranges: ranges of ids and targets. counts: zeroed counters.
    """

    aligned: bool = False
    split: bool = False
    ranges: bool = False
    counts: bool = False


class Operands(NamedTuple):
    """What mining multiplies: image [N, width], text [M, width], or [., 2 width] if split.

    width: elements of a row, or of each half of it; those beyond the embeddings' are zero.
    """

    image: Tensor
    text: Tensor
    width: int


class Prepared(NamedTuple):
    """What `prepare` leaves.

    image, text: the raw rows. scales: float32 [N + M], what normalises them, or None.
    facts: float32 [3, parts], see `facts`. row_keys [N], column_keys [M]: int64, all NOTHING.
    row_counts [N], column_counts [M]: int32 zeros, None if not wanted. ticket: int32 [1], zero.
    row_ranges, column_ranges: int64 [2, blocks], smallest and largest id of every RANGE_ROWS rows;
    target_ranges: likewise of the targets of rows that exist, min > max if none. None if not
    wanted, or where there are no ids or targets.
    """

    image: Tensor
    text: Tensor
    operands: Operands
    scales: Tensor | None
    facts: Tensor
    row_keys: Tensor
    column_keys: Tensor
    row_counts: Tensor | None
    column_counts: Tensor | None
    ticket: Tensor
    row_ranges: Tensor | None
    column_ranges: Tensor | None
    target_ranges: Tensor | None


def prepare(
    image: Tensor,
    text: Tensor,
    pairing: Pairing,
    wants: Wants,
    positive: Tensor,
    scales: Tensor | None = None,
) -> Prepared:
    """Run `prepare_kernel`: one launch, whatever is asked.

    Args:
        image, text: [N, D], [M, D], unit inner stride.
        positive: float32, gets similarities of the positive pairs in its first N elements.
        scales: float32 [N + M], gets what normalises the rows and asks for it; None otherwise.
    """
    rows, columns = image.shape[0], text.shape[0]
    keys = image.new_empty(rows + columns, dtype=torch.int64)
    counters = image.new_empty(1 + (rows + columns) * wants.counts, dtype=torch.int32)
    prepared = Prepared(
        image,
        text,
        _operands(image, text, wants, scales is not None),
        scales,
        _facts(image, text),
        keys[:rows],
        keys[rows:],
        counters[1 : 1 + rows] if wants.counts else None,
        counters[1 + rows :] if wants.counts else None,
        counters[:1],
        _ranges(pairing.image_ids, wants),
        _ranges(pairing.text_ids, wants),
        _ranges(pairing.target, wants),
    )
    _launch(prepared, pairing, positive)
    return prepared


def _operands(image: Tensor, text: Tensor, wants: Wants, normalize: bool) -> Operands:
    """The rows themselves, or uninitialised copies of both sides."""
    width = image.shape[1]
    aligned = not wants.aligned or (_aligned(image) and _aligned(text))
    split = wants.split and image.dtype == torch.float32
    if aligned and not normalize and not split:
        return Operands(image, text, width)
    padded = -(-width // PADDING) * PADDING
    dtype = torch.bfloat16 if split else image.dtype
    pitch = 2 * padded if split else padded
    return Operands(
        image.new_empty((image.shape[0], pitch), dtype=dtype),
        text.new_empty((text.shape[0], pitch), dtype=dtype),
        padded,
    )


def _aligned(rows: Tensor) -> bool:
    """Whether a tensor descriptor can read the rows in place."""
    stride = rows.stride(0) * rows.element_size()
    return stride > 0 and stride % ALIGNMENT == 0 and rows.data_ptr() % ALIGNMENT == 0


def _facts(image: Tensor, text: Tensor) -> Tensor:
    """Uninitialised facts, one column per program that is worth its launch."""
    block = row_block(image.shape[1])["ROWS"]
    blocks = -(-image.shape[0] // block) - (-text.shape[0] // block)
    return image.new_empty((3, min(PARTS, blocks)), dtype=torch.float32)


def _ranges(values: Tensor | None, wants: Wants) -> Tensor | None:
    """Uninitialised ranges of `values`, None where there are none or no one wants them."""
    if values is None or not wants.ranges:
        return None
    return values.new_empty((2, -(-values.shape[0] // RANGE_ROWS)))


def _launch(prepared: Prepared, pairing: Pairing, positive: Tensor) -> None:
    image, text, operands = prepared.image, prepared.text, prepared.operands
    copied = operands.image is not image
    load_kernels().prepare_kernel[(prepared.facts.shape[1],)](
        image,
        text,
        pairing.target,
        pairing.image_ids,
        pairing.text_ids,
        positive,
        prepared.scales,
        prepared.facts,
        prepared.row_keys,
        prepared.column_keys,
        prepared.row_counts,
        prepared.column_counts,
        prepared.ticket,
        operands.image if copied else None,
        operands.text if copied else None,
        prepared.row_ranges,
        prepared.column_ranges,
        prepared.target_ranges,
        image.shape[0],
        text.shape[0],
        image.shape[1],
        operands.width,
        operands.image.stride(0),
        image.stride(0),
        text.stride(0),
        SHORTEST_LENGTH,
        **row_block(image.shape[1]),
        num_warps=WARPS,
        **LAUNCH_OPTIONS,
    )
