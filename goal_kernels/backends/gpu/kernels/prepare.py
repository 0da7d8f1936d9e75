# mypy: allow-untyped-defs, allow-untyped-decorators
"""The first kernel: everything about single rows and pairs, in one launch.

The rows of both sides are cut into blocks of ROWS, image blocks first; program p takes the blocks
p, p + programs, ... It writes what belongs to its rows, and to column p of the batch statistics
what they say about the batch (`common.py`).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from goal_kernels.backends.base import Pairing
from goal_kernels.backends.gpu import configs
from goal_kernels.backends.gpu.configs import (
    ALIGNMENT,
    LAUNCH_OPTIONS,
    PADDING,
    WARPS,
    row_block,
)
from goal_kernels.backends.gpu.kernels.common import (
    COUNTS,
    NOTHING,
    copy_rows,
    pair_score,
    row_lengths,
    row_pointers,
)
from goal_kernels.backends.gpu.kernels.masks import store_mixed
from goal_kernels.backends.gpu.records import Operands, Prepared, Side, Wants
from goal_kernels.constants import SHORTEST_LENGTH


@triton.jit
def _smaller(a, b):
    return tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _larger(a, b):
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _store_stat(place, values, extreme):
    """Store `extreme`, a reduction of `values`, or NaN if there is one among them."""
    broken = tl.max((values != values).to(tl.int32), 0)
    tl.store(place, tl.where(broken > 0, float("nan"), extreme))


@triton.jit
def _row_scale(length, shortest):
    return tl.div_rn(1.0, _larger(length, shortest))


@triton.jit
def _start_row(side, row, inside, length, FIELDS: tl.constexpr):
    """No negative yet, none counted. side: keys, sums, counts, tops; all but keys may be None."""
    keys, sums, counts, tops = side
    zero = tl.zeros_like(row)
    nothing = zero.to(tl.int64) + NOTHING
    tl.store(keys + row, nothing, mask=inside)
    if counts is not None:
        tl.store(counts + row, zero, mask=inside)
    for field in tl.static_range(FIELDS):
        tl.store(sums + tl.cast(length, tl.int64) * field + row, zero.to(tl.int64), mask=inside)
    if tops is not None:
        tl.store(tops + row, nothing, mask=inside)


@triton.jit
def _finish_row(pointers, length, row, inside, scales, operand, shape, WIDTH: tl.constexpr):
    """Store scales and operands of rows; returns the lengths of the rows that are mined."""
    width, padded, pitch, shortest = shape
    scale = None
    if scales is not None:
        scale = _row_scale(length, shortest)
        tl.store(scales + row, scale, mask=inside)
        length *= scale
    if operand is not None:
        out = row_pointers(operand, row, pitch)
        copy_rows(out, pointers, scale, inside, width, padded, WIDTH)
    return length


@triton.jit
def _positives(pointers, length, row, inside, texts, shape, NORMALIZE, WIDTH: tl.constexpr):
    """Similarity of image rows and their positives, float32 [ROWS]; -inf for rows without.

    texts: (text, target, columns, text_stride).
    """
    text, target, columns, text_stride = texts
    width, _, _, shortest = shape
    own = row.to(tl.int64)
    if target is not None:
        own = tl.load(target + row, mask=inside, other=-1)
    exists = inside & (own >= 0) & (own < columns)
    partner = row_pointers(text, own, text_stride)
    scale = None
    partner_scale = None
    if NORMALIZE:
        scale = _row_scale(length, shortest)
        partner_scale = _row_scale(row_lengths(partner, exists, width, WIDTH), shortest)
    return pair_score(pointers, partner, scale, partner_scale, exists, width, WIDTH)


@triton.jit(do_not_specialize=COUNTS)
def prepare_kernel(
    image,
    text,
    target,
    image_ids,
    text_ids,
    positive,
    scales,
    batch_stats,
    row_keys,
    column_keys,
    row_sums,
    column_sums,
    row_counts,
    column_counts,
    row_tops,
    column_tops,
    ticket,
    image_operand,
    text_operand,
    mixed,
    rows,
    columns,
    width,
    padded,
    pitch,
    image_stride,
    text_stride,
    shortest,
    words,
    FIELDS: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Positives, scales, batch_stats, empty keys and sums, operands, mixed blocks.

    image [rows, width], text [columns, width]: unit stride along width. target, image_ids, text_ids
    as in `Pairing`. positive float32 [rows]; row_keys, column_keys: int64; ticket: int32 [1].

    Written if not None: scales float32 [rows + columns], which asks for normalised rows; sums with
    FIELDS fields, counts, tops: FIXED sums, see `results.py`; image_operand, text_operand: copies
    to mine from, see `copy_rows`, rows `pitch` apart; mixed: see `store_mixed`.
    """
    program = tl.program_id(0)
    programs = tl.num_programs(0)
    shape = (width, padded, pitch, shortest)
    texts = (text, target, columns, text_stride)
    text_scales = scales
    if scales is not None:
        text_scales = scales + rows
    lowest = tl.full([ROWS], float("inf"), tl.float32)
    image_length = tl.zeros([ROWS], tl.float32)
    text_length = tl.zeros([ROWS], tl.float32)
    image_blocks = tl.cdiv(rows, ROWS)
    for block in range(program, image_blocks + tl.cdiv(columns, ROWS), programs):
        if block < image_blocks:
            row = block * ROWS + tl.arange(0, ROWS)
            inside = row < rows
            pointers = row_pointers(image, row, image_stride)
            side = (row_keys, row_sums, row_counts, row_tops)
            _start_row(side, row, inside, rows, FIELDS)
            length = row_lengths(pointers, inside, width, WIDTH)
            score = _positives(
                pointers, length, row, inside, texts, shape, scales is not None, WIDTH
            )
            tl.store(positive + row, score, mask=inside)
            lowest = _smaller(lowest, tl.where(score == float("-inf"), float("inf"), score))
            length = _finish_row(pointers, length, row, inside, scales, image_operand, shape, WIDTH)
            image_length = _larger(image_length, length)
        else:
            row = (block - image_blocks) * ROWS + tl.arange(0, ROWS)
            inside = row < columns
            pointers = row_pointers(text, row, text_stride)
            side = (column_keys, column_sums, column_counts, column_tops)
            _start_row(side, row, inside, columns, FIELDS)
            length = row_lengths(pointers, inside, width, WIDTH)
            length = _finish_row(
                pointers, length, row, inside, text_scales, text_operand, shape, WIDTH
            )
            text_length = _larger(text_length, length)
    _store_stat(batch_stats + program, lowest, tl.min(lowest, 0))
    _store_stat(batch_stats + programs + program, image_length, tl.max(image_length, 0))
    _store_stat(batch_stats + 2 * programs + program, text_length, tl.max(text_length, 0))
    if program == 0:
        tl.store(ticket, 0)
    if mixed is not None:
        store_mixed(target, image_ids, text_ids, mixed, rows, columns, words)


def prepare(
    image: Tensor,
    text: Tensor,
    pairing: Pairing,
    wants: Wants,
    positive: Tensor,
    scales: Tensor | None = None,
) -> Prepared:
    """Run `prepare_kernel`: always one launch.

    Args:
        image, text: [N, D], [M, D], unit inner stride.
        positive: float32, gets similarities of the positive pairs in its first N elements.
        scales: float32 [N + M], gets what normalises the rows and asks for it; None otherwise.
    """
    prepared = Prepared(
        image,
        text,
        _operands(image, text, wants, scales is not None),
        scales,
        _batch_stats(image, text),
        Side.empty(image, wants.sums),
        Side.empty(text, wants.sums),
        image.new_empty(1, dtype=torch.int32),
        _mixed(image, text, pairing) if wants.mixed else None,
    )
    _launch(prepared, pairing, positive, configs.SUM_FIELDS[wants.sums])
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


def _batch_stats(image: Tensor, text: Tensor) -> Tensor:
    """Uninitialised batch_stats, one column per program worth its launch."""
    block = row_block(image.shape[1])["ROWS"]
    blocks = -(-image.shape[0] // block) - (-text.shape[0] // block)
    return image.new_empty((3, min(configs.PARTS, blocks)), dtype=torch.float32)


def _mixed(image: Tensor, text: Tensor, pairing: Pairing) -> Tensor | None:
    """Uninitialised `mixed`, None where position alone says which pairs are negatives."""
    if pairing.target is None and pairing.image_ids is None:
        return None
    blocks = [-(-x.shape[0] // configs.MASK_ROWS) for x in (image, text)]
    words = min(-(-blocks[1] // 32), configs.MASK_WORDS)
    return image.new_empty((blocks[0], words), dtype=torch.int32)


def _launch(prepared: Prepared, pairing: Pairing, positive: Tensor, fields: int) -> None:
    image, text, operands = prepared.image, prepared.text, prepared.operands
    copied = operands.image is not image
    prepare_kernel[(prepared.batch_stats.shape[1],)](
        image,
        text,
        pairing.target,
        pairing.image_ids,
        pairing.text_ids,
        positive,
        prepared.scales,
        prepared.batch_stats,
        *(prepared.rows.keys, prepared.columns.keys),
        *(prepared.rows.sums, prepared.columns.sums),
        *(prepared.rows.counts, prepared.columns.counts),
        *(prepared.rows.tops, prepared.columns.tops),
        prepared.ticket,
        operands.image if copied else None,
        operands.text if copied else None,
        prepared.mixed,
        image.shape[0],
        text.shape[0],
        image.shape[1],
        operands.width,
        operands.image.stride(0),
        image.stride(0),
        text.stride(0),
        SHORTEST_LENGTH,
        prepared.mask_words,
        FIELDS=fields,
        **row_block(image.shape[1]),
        num_warps=WARPS,
        **LAUNCH_OPTIONS,
    )
