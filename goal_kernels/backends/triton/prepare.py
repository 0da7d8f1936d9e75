# mypy: allow-untyped-defs, allow-untyped-decorators
"""The first kernel: everything about single rows and pairs, in one launch.

The rows of both sides are cut into blocks of ROWS, image blocks first; program p takes the blocks
p, p + programs, ... It writes what belongs to its rows, and to column p of the *facts*
(`facts.py`) what they say about the batch.
"""

from __future__ import annotations

import triton
import triton.language as tl

from goal_kernels.backends.triton import configs
from goal_kernels.backends.triton.keys import NOTHING
from goal_kernels.backends.triton.rows import copy_rows, pair_score, row_lengths, row_pointers

RANGE_ROWS = tl.constexpr(configs.RANGE_ROWS)
HIGHEST = tl.constexpr(2**63 - 1)
LOWEST = tl.constexpr(-(2**63))


@triton.jit
def _smaller(a, b):
    return tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _larger(a, b):
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _store_fact(place, values, extreme):
    """Store `extreme`, a reduction of `values`, or NaN if there is one among them."""
    broken = tl.max((values != values).to(tl.int32), 0)
    tl.store(place, tl.where(broken > 0, float("nan"), extreme))


@triton.jit
def _row_scale(length, shortest):
    return tl.div_rn(1.0, _larger(length, shortest))


@triton.jit
def _start_row(keys, counts, row, inside):
    """No negative yet, none counted; counts: None if no one counts."""
    tl.store(keys + row, tl.zeros_like(row).to(tl.int64) + NOTHING, mask=inside)
    if counts is not None:
        tl.store(counts + row, tl.zeros_like(row), mask=inside)


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


@triton.jit
def _store_ranges(values, ranges, length, upper):
    """[min, max] of every RANGE_ROWS of `values` (int64 [length]) that lie in [0, upper).

    ranges int64 [2, blocks]; min > max where there are none. upper None: all of them.
    """
    blocks = tl.cdiv(length, RANGE_ROWS)
    for block in range(tl.program_id(0), blocks, tl.num_programs(0)):
        row = block * RANGE_ROWS + tl.arange(0, RANGE_ROWS)
        inside = row < length
        value = tl.load(values + row, mask=inside, other=0)
        if upper is not None:
            inside &= (value >= 0) & (value < upper)
        tl.store(ranges + block, tl.min(tl.where(inside, value, HIGHEST), 0))
        tl.store(ranges + blocks + block, tl.max(tl.where(inside, value, LOWEST), 0))


@triton.jit
def prepare_kernel(
    image,
    text,
    target,
    image_ids,
    text_ids,
    positive,
    scales,
    facts,
    row_keys,
    column_keys,
    row_counts,
    column_counts,
    ticket,
    image_operand,
    text_operand,
    row_ranges,
    column_ranges,
    target_ranges,
    rows,
    columns,
    width,
    padded,
    pitch,
    image_stride,
    text_stride,
    shortest,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Positives, scales, facts, empty keys, zeroed counters, operands, ranges.

    image [rows, width], text [columns, width]: unit stride along width. target, image_ids, text_ids
    as in `Pairing`. positive float32 [rows]; row_keys, column_keys: int64; ticket: int32 [1].

    Written if not None: scales float32 [rows + columns], which asks for
    normalised rows; row_counts, column_counts int32; image_operand, text_operand: copies to mine
    from, see `copy_rows`, rows `pitch` apart; row_ranges, column_ranges: ids int64 [2, blocks] of
    RANGE_ROWS rows; target_ranges likewise, of the targets that exist.
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
            _start_row(row_keys, row_counts, row, inside)
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
            _start_row(column_keys, column_counts, row, inside)
            length = row_lengths(pointers, inside, width, WIDTH)
            length = _finish_row(
                pointers, length, row, inside, text_scales, text_operand, shape, WIDTH
            )
            text_length = _larger(text_length, length)
    _store_fact(facts + program, lowest, tl.min(lowest, 0))
    _store_fact(facts + programs + program, image_length, tl.max(image_length, 0))
    _store_fact(facts + 2 * programs + program, text_length, tl.max(text_length, 0))
    if program == 0:
        tl.store(ticket, 0)
    if row_ranges is not None:
        _store_ranges(image_ids, row_ranges, rows, None)
        _store_ranges(text_ids, column_ranges, columns, None)
    if target_ranges is not None:
        _store_ranges(target, target_ranges, rows, columns)
