# mypy: allow-untyped-defs, allow-untyped-decorators
"""Relative sums once more, where those that start at the threshold cannot be trusted.

Similarities too far above the threshold, or not finite, would overflow or cancel
(`common.wide_range`). Then the products are repeated, with the mined maxima known. Everywhere else
the programs return at once.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from goal_kernels.backends.base import Pairing
from goal_kernels.backends.gpu import runtime
from goal_kernels.backends.gpu.configs import (
    KIND_CODES,
    LAUNCH_OPTIONS,
    PARTS,
    StripTile,
    strip_tile,
)
from goal_kernels.backends.gpu.kernels.common import (
    COUNTS,
    LINEAR,
    NOTHING,
    decode,
    read_bound,
    read_threshold,
    unpack,
    wide_range,
)
from goal_kernels.backends.gpu.kernels.masks import exclude
from goal_kernels.backends.gpu.kernels.product import operands_of, product_constants, product_tile
from goal_kernels.backends.gpu.plan import usual_programs
from goal_kernels.backends.gpu.records import MiningQuery, MiningResult, Prepared


@triton.jit
def _tile_sums(
    score,
    negative,
    value,
    index,
    position,
    threshold,
    slope,
    AXIS: tl.constexpr,
    KIND: tl.constexpr,
):
    """Total and count along AXIS of one tile; value, index: maxima of the anchors.

    position: positions along AXIS. `Mined` says what is counted.
    """
    value = tl.expand_dims(value, AXIS)
    kept = negative & (score >= threshold)
    if KIND == LINEAR:
        kept &= score < value
        terms = value - score
    else:
        kept &= tl.expand_dims(position, 1 - AXIS) != tl.expand_dims(index, AXIS)
        gap = tl.maximum(value - score, 0.0, propagate_nan=tl.PropagateNan.ALL)
        terms = tl.exp2(-slope * gap)
    return tl.sum(tl.where(kept, terms, 0.0), AXIS), tl.sum(kept.to(tl.int32), AXIS)


@triton.jit
def _resum(
    tensors,
    shape,
    pairing,
    keys,
    sums,
    counts,
    anchor_tile,
    threshold,
    slope,
    AXIS: tl.constexpr,
    KIND: tl.constexpr,
    DESCRIPTORS: tl.constexpr,
    SPLIT: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
):
    """Sums of one tile of anchors: rows where AXIS is 1, columns where it is 0.

    Products as in `strip_kernel`, tile by tile, so that similarities are the same to the last bit.
    Another mining kernel may have rounded the maximum otherwise: it is never less than 0 away.
    """
    ANCHORS: tl.constexpr = BLOCK_ROWS if AXIS == 1 else BLOCK_COLUMNS
    WALKED: tl.constexpr = BLOCK_COLUMNS if AXIS == 1 else BLOCK_ROWS
    length, walk = shape[0], shape[1]
    if AXIS == 0:
        length, walk = shape[1], shape[0]
    anchor = anchor_tile * ANCHORS + tl.arange(0, ANCHORS)
    inside = anchor < length
    key, index = unpack(tl.load(keys + anchor, mask=inside, other=NOTHING))
    total = tl.zeros([ANCHORS], tl.float32)
    count = tl.zeros([ANCHORS], tl.int32)
    for step in range(tl.cdiv(walk, WALKED)):
        position = step * WALKED + tl.arange(0, WALKED)
        if AXIS == 1:
            row_start, column_start, row, column = (
                anchor_tile * ANCHORS, step * WALKED, anchor, position,
            )  # fmt: skip
        else:
            row_start, column_start, row, column = (
                step * WALKED, anchor_tile * ANCHORS, position, anchor,
            )  # fmt: skip
        score = product_tile(
            tensors[0], tensors[1], row_start, column_start, shape, DESCRIPTORS, SPLIT, PRECISION,
            UPCAST, BLOCK_ROWS, BLOCK_COLUMNS, BLOCK_WIDTH,
        )  # fmt: skip
        none = tl.zeros_like(score)
        negative = exclude(
            none, row, column, shape[0], shape[1], pairing[0], pairing[1], pairing[2]
        )
        tile = _tile_sums(
            score, negative == 0.0, decode(key), index, position, threshold, slope, AXIS, KIND
        )
        total += tile[0]
        count += tile[1]
    tl.store(sums + anchor, total.to(tl.int32, bitcast=True).to(tl.int64), mask=inside)
    tl.store(counts + anchor, count, mask=inside)


@triton.jit(do_not_specialize=COUNTS)
def resum_kernel(
    image,
    text,
    target,
    image_ids,
    text_ids,
    batch_stats,
    row_keys,
    column_keys,
    row_sums,
    column_sums,
    row_counts,
    column_counts,
    rows,
    columns,
    width,
    image_stride,
    text_stride,
    parts,
    epsilon,
    slope,
    KIND: tl.constexpr,
    DESCRIPTORS: tl.constexpr,
    SPLIT: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
):
    """Final sums and counts, where `wide_range` says so; arguments of `strip_kernel`."""
    threshold = read_threshold(batch_stats, parts, epsilon, PARTS)
    if wide_range(read_bound(batch_stats, parts, PARTS), threshold, slope, KIND):
        shape = (rows, columns, width, image_stride, text_stride)
        pairing = (target, image_ids, text_ids)
        row_tiles = tl.cdiv(rows, BLOCK_ROWS)
        tiles = row_tiles + tl.cdiv(columns, BLOCK_COLUMNS)
        for tile in range(tl.program_id(0), tiles, tl.num_programs(0)):
            if tile < row_tiles:
                _resum(
                    (image, text), shape, pairing, row_keys, row_sums, row_counts, tile,
                    threshold, slope, 1, KIND, DESCRIPTORS, SPLIT, PRECISION, UPCAST,
                    BLOCK_ROWS, BLOCK_COLUMNS, BLOCK_WIDTH,
                )  # fmt: skip
            else:
                _resum(
                    (image, text), shape, pairing, column_keys, column_sums, column_counts,
                    tile - row_tiles, threshold, slope, 0, KIND, DESCRIPTORS, SPLIT, PRECISION,
                    UPCAST, BLOCK_ROWS, BLOCK_COLUMNS, BLOCK_WIDTH,
                )  # fmt: skip


def resum_constants(
    tile: StripTile, dtype: torch.dtype, kind: str, split: bool, upcast: bool
) -> dict[str, object]:
    """Compile-time arguments of `resum_kernel`."""
    return {
        "KIND": KIND_CODES[kind],
        "SPLIT": split,
        "PARTS": PARTS,
        **product_constants(tile, dtype, upcast),
    }


def usual_tile(prepared: Prepared, pairing: Pairing, kind: str) -> StripTile:
    """The tile that suits the device."""
    image, ids = prepared.operands.image, pairing.image_ids is not None
    major, minor = runtime.device_capability(image.device)
    return strip_tile(10 * major + minor, image.dtype, kind, ids)


def resum(
    prepared: Prepared,
    pairing: Pairing,
    result: MiningResult,
    query: MiningQuery,
    tile: StripTile | None = None,
    programs: int = 0,
) -> None:
    """Run `resum_kernel`; tile, programs: other than what suits the device."""
    image, text, width = prepared.operands
    rows, columns = image.shape[0], text.shape[0]
    tile = tile or usual_tile(prepared, pairing, query.kind)
    programs = programs or usual_programs(image.device)
    split, upcast = prepared.operands.split, runtime.interpreting()
    anchor_tiles = -(-rows // tile.rows) - (-columns // tile.columns)
    resum_kernel[(min(programs, anchor_tiles),)](
        *operands_of(prepared.operands, tile),
        *pairing,
        prepared.batch_stats,
        *(result.rows.keys, result.columns.keys),
        *(result.rows.sums, result.columns.sums),
        *(result.rows.counts, result.columns.counts),
        *(rows, columns, width, image.stride(0), text.stride(0)),
        prepared.batch_stats.shape[1],
        query.epsilon,
        query.slope,
        **resum_constants(tile, image.dtype, query.kind, split, upcast),
        num_warps=tile.warps,
        num_stages=tile.stages,
        **LAUNCH_OPTIONS,
    )
