# mypy: allow-untyped-defs, allow-untyped-decorators
"""Ranking: count what scores better than the best positive, and what scores the same.

A fast product tells most pairs apart; the few it cannot are put on a list of the program and
decided in float64, many at a time. Counts are whole numbers added by atomics, so they depend on no
order and on no grid.

A *side* is what the kernel knows of images or of texts: (embeddings, bounds, counts, length,
stride). Embeddings [length, width] have unit stride along the width. *Score bounds*, float32
[5, length padded to a multiple of BOUND_UNIT], say what a candidate of every query is compared
with (`score_bounds.py`):

    BEST        score of the best positive, -inf for a query without one
    CENTRE      what fast products are compared with: BEST, or a number below all of them
    UNKNOWN     1 where nothing is known of the fast products of a row, else 0
    LONGEST     over BOUND_UNIT queries: the fast product of a known pair lies within
                LONGEST(image) * LONGEST(text) of the float64 one
    RESOLUTION  over BOUND_UNIT queries: more than the step from a best positive to the next score

Counts, int32 [2, length], start at zero: wrong candidates that score better, and the same.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from goal_kernels.backends.gpu import configs, runtime
from goal_kernels.backends.gpu.configs import (
    GROUP,
    LAUNCH_OPTIONS,
    RANK_ALIGNMENT,
    RANK_WARPS,
    SEGMENTS_LIMIT,
    rank_tile,
)
from goal_kernels.backends.gpu.kernels.common import COUNTS
from goal_kernels.backends.gpu.kernels.tile import similarity_tile
from goal_kernels.backends.gpu.score_bounds import any_unknown, make_bounds, product_error
from goal_kernels.backends.scores import RankCounts, best_positives, comparable

ALIGNMENT = tl.constexpr(configs.RANK_ALIGNMENT)
"""Elements that rows are padded to a multiple of: whatever their width, loads are wide."""


@triton.jit
def exact_dots(left, right, valid, width, BATCH: tl.constexpr, BLOCK_WIDTH: tl.constexpr):
    """Dot products float64 [BATCH] of pairs; left, right: pointers [BATCH] to their rows.

    Products are exact and every pair is summed in the same order, whatever else is in the batch.
    """
    total = tl.zeros([BATCH, BLOCK_WIDTH], tl.float64)
    for start in range(0, width, BLOCK_WIDTH):
        element = start + tl.arange(0, BLOCK_WIDTH)
        inside = valid[:, None] & (element < width)[None, :]
        x = tl.load(left[:, None] + element[None, :], mask=inside, other=0.0)
        y = tl.load(right[:, None] + element[None, :], mask=inside, other=0.0)
        total += x.to(tl.float32).to(tl.float64) * y.to(tl.float32).to(tl.float64)
    return tl.sum(total, 1)


@triton.jit(do_not_specialize=COUNTS)
def dots_kernel(
    out,
    left,
    index,
    right,
    pairs,
    width,
    left_stride,
    right_stride,
    BATCH: tl.constexpr,
    BATCH_WIDTH: tl.constexpr,
):
    """out[p] = <left[index[p]], right[p]>, float64 [pairs]; index int64, None for index[p] = p.

    width, strides: in units of ALIGNMENT.
    """
    pair = tl.program_id(0).to(tl.int64) * BATCH + tl.arange(0, BATCH)
    valid = pair < pairs
    partner = pair
    if index is not None:
        partner = tl.load(index + pair, mask=valid, other=0)
    left += partner * (left_stride * ALIGNMENT)
    right += pair * (right_stride * ALIGNMENT)
    dots = exact_dots(left, right, valid, width * ALIGNMENT, BATCH, BATCH_WIDTH)
    tl.store(out + pair, dots, mask=valid)


LOWEST = tl.constexpr(float("-inf"))
LARGEST = tl.constexpr(3.4028234663852886e38)
"""Largest finite float32: what an infinite score compares as."""

BOUND_UNIT = tl.constexpr(128)
"""Queries that share LONGEST and RESOLUTION; every block divides it."""

BEST = tl.constexpr(0)
CENTRE = tl.constexpr(1)
UNKNOWN = tl.constexpr(2)
LONGEST = tl.constexpr(3)
RESOLUTION = tl.constexpr(4)
"""Fields of a bar."""


@triton.jit
def bound_field(side, field, query):
    """Pointers to a field of the bounds of queries."""
    embeddings, bounds, counts, length, stride = side
    return bounds + tl.cast(tl.cdiv(length, BOUND_UNIT), tl.int64) * (BOUND_UNIT * field) + query


@triton.jit
def tally_scores(side, query, score, valid):
    """Add exact scores float32 [BATCH] to the counts of their queries int64 [BATCH]."""
    embeddings, bounds, counts, length, stride = side
    best = tl.load(bound_field(side, BEST, query), mask=valid, other=0.0)
    one = tl.full(query.shape, 1, tl.int32)
    better = counts + query
    ties = better + tl.cast(length, tl.int64)
    tl.atomic_add(better, one, mask=valid & (score > best), sem="relaxed")
    tl.atomic_add(ties, one, mask=valid & (score == best), sem="relaxed")


@triton.jit
def decide_pairs(
    sides,
    listed,
    waiting,
    corner,
    width,
    BLOCK_COLUMNS: tl.constexpr,
    BATCH: tl.constexpr,
    BATCH_WIDTH: tl.constexpr,
):
    """Count the `waiting` pairs of a list, both directions, by their float64 products.

    corner: row and column that the places on the list, row * BLOCK_COLUMNS + column, count from.
    """
    image, image_stride = sides[0][0], sides[0][4]
    text, text_stride = sides[1][0], sides[1][4]
    for start in range(0, waiting, BATCH):
        entry = start + tl.arange(0, BATCH)
        valid = entry < waiting
        place = tl.load(listed + entry, mask=valid, other=0)
        row = (corner[0] + place // BLOCK_COLUMNS).to(tl.int64)
        column = (corner[1] + place % BLOCK_COLUMNS).to(tl.int64)
        left = image + row * image_stride
        right = text + column * text_stride
        score = exact_dots(left, right, valid, width, BATCH, BATCH_WIDTH).to(tl.float32)
        score = tl.where(score > LARGEST, LARGEST, tl.where(score != score, LOWEST, score))
        tally_scores(sides[0], row, score, valid)
        tally_scores(sides[1], column, score, valid)
    # The next pairs on the list take the places of these.
    tl.debug_barrier()


@triton.jit
def sign_word(value):
    """Bits of a float32; negative as an integer where it is."""
    return value.to(tl.int32, bitcast=True)


@triton.jit
def sign_bit(word):
    """1 where an int32 is negative, else 0."""
    return (word.to(tl.uint32, bitcast=True) >> 31).to(tl.int32)


@triton.jit
def compare_tile(score, row_centre, column_centre, row_slack, column_slack):
    """How a tile of fast products compares in both directions.

    score: [BLOCK_ROWS, BLOCK_COLUMNS], finite. A direction of a pair is open where its product is
    within the slack, 0-d, of the centre. Returns: int32 tiles, negative where neither direction is
    open; 1 where then the pair scores better than the best positive of its row; of its column.
    In signs, not in comparisons: a tile of those takes more predicates than there are, and to move
    these takes longer than to compare.
    """
    row_lead = row_centre[:, None] - score
    column_lead = column_centre[None, :] - score
    clear = sign_word(row_slack - tl.abs(row_lead))
    clear &= sign_word(column_slack - tl.abs(column_lead))
    along = sign_bit(sign_word(row_lead) & clear)
    return clear, along, sign_bit(sign_word(column_lead) & clear)


@triton.jit
def load_slacks(sides, first_row, first_column):
    """Slacks of the rows and of the columns of a tile, see `compare_tile`."""
    reach = tl.load(bound_field(sides[0], LONGEST, first_row))
    reach *= tl.load(bound_field(sides[1], LONGEST, first_column))
    row_slack = reach + tl.load(bound_field(sides[0], RESOLUTION, first_row))
    return row_slack, reach + tl.load(bound_field(sides[1], RESOLUTION, first_column))


@triton.jit
def patch_tile(score, sides, row, column, row_centre):
    """Products that compare right: open where nothing is known, outside below every centre."""
    unknown = tl.load(bound_field(sides[0], UNKNOWN, row))[:, None]
    unknown += tl.load(bound_field(sides[1], UNKNOWN, column))[None, :]
    score = tl.where(unknown > 0, row_centre[:, None], score)
    inside = (row < sides[0][3])[:, None] & (column < sides[1][3])[None, :]
    return tl.where(inside, score, -LARGEST)


@triton.jit
def list_open(
    clear,
    open_rows,
    sides,
    work,
    corner,
    origin,
    waiting,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BACKLOG: tl.constexpr,
    GROUP: tl.constexpr,
):
    """Append the open wrong pairs of a tile to the list; its new length, 0-d int32.

    clear: see `compare_tile`; open_rows: whether a row has an open pair, [BLOCK_ROWS]. corner:
    first row and column of the tile; origin: first row of the work item, where the list starts.
    The open rows pass through memory, GROUP pairs at a time: to find places for a whole tile at
    once takes more registers than there are.
    """
    owner, broken, flags, listed = work
    tile = tl.arange(0, BLOCK_ROWS)[:, None] * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)[None, :]
    tl.store(flags + tile, (clear >= 0).to(tl.int8))
    row_rank = tl.cumsum(open_rows.to(tl.int32), 0)
    row_list = listed + (BACKLOG + BLOCK_ROWS * BLOCK_COLUMNS)
    tl.store(row_list + row_rank - 1, tl.arange(0, BLOCK_ROWS), mask=open_rows)
    pairs = tl.max(row_rank, 0) * BLOCK_COLUMNS
    tl.debug_barrier()
    for start in range(0, pairs, GROUP):
        pair = start + tl.arange(0, GROUP)
        row = tl.load(row_list + pair // BLOCK_COLUMNS, mask=pair < pairs, other=0)
        column = pair % BLOCK_COLUMNS
        place = row * BLOCK_COLUMNS + column
        wrong = tl.load(flags + place, mask=pair < pairs, other=0) != 0
        wrong &= (corner[0] + row < sides[0][3]) & (corner[1] + column < sides[1][3])
        # The product of an own pair is its bar, or below: open in one direction and never counted.
        own = tl.load(owner + corner[1] + column, mask=wrong, other=0)
        wrong &= own != corner[0] + row
        rank = tl.cumsum(wrong.to(tl.int32), 0)
        entry = (corner[0] - origin) * BLOCK_COLUMNS + place
        tl.store(listed + (waiting + rank - 1), entry, mask=wrong)
        waiting += tl.max(rank, 0)
    tl.debug_barrier()
    return waiting


@triton.jit
def rank_segment(
    sides,
    work,
    first_column,
    first_row,
    last_row,
    width,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
    ROW_WARPS: tl.constexpr,
    GROUP: tl.constexpr,
    BACKLOG: tl.constexpr,
    BATCH: tl.constexpr,
    BATCH_WIDTH: tl.constexpr,
):
    """One work item: a block of columns, and whole row tiles up to last_row.

    sides: of images and of texts. work: owner, broken, and the program's own flags and list.
    Counts of columns stay in registers over all row tiles. They are kept apart by warp and by lane
    of a matrix instruction's fragment, so that a tile adds to them without an exchange.
    """
    image_side, text_side = sides
    image, image_bounds, image_counts, rows, image_stride = image_side
    text, text_bounds, text_counts, columns, text_stride = text_side
    owner, broken, flags, listed = work
    corner = (first_row, first_column)
    column = first_column + tl.arange(0, BLOCK_COLUMNS)
    column_inside = column < columns
    counted = tl.zeros([ROW_WARPS, 8, BLOCK_COLUMNS], tl.int32)
    waiting = tl.zeros([], tl.int32)
    for top in range(first_row, last_row, BLOCK_ROWS):
        row = top + tl.arange(0, BLOCK_ROWS)
        row_inside = row < rows
        score = similarity_tile(
            image + row.to(tl.int64) * image_stride,
            text + column.to(tl.int64) * text_stride,
            row_inside,
            column_inside,
            width,
            PRECISION,
            UPCAST,
            BLOCK_ROWS,
            BLOCK_COLUMNS,
            BLOCK_WIDTH,
        )
        row_centre = tl.load(bound_field(image_side, CENTRE, row))
        ragged = (top + BLOCK_ROWS > rows) | (first_column + BLOCK_COLUMNS > columns)
        if ragged | tl.load(broken):
            score = patch_tile(score, sides, row, column, row_centre)
        # Read anew for every tile: there are not registers enough to keep it.
        column_centre = tl.load(bound_field(text_side, CENTRE, column))
        row_slack, column_slack = load_slacks(sides, top, first_column)
        clear, along, down = compare_tile(score, row_centre, column_centre, row_slack, column_slack)
        better = tl.sum(along, 1)
        tl.atomic_add(image_counts + row, better, mask=row_inside & (better > 0), sem="relaxed")
        down = tl.reshape(down, [BLOCK_ROWS // (16 * ROW_WARPS), ROW_WARPS, 2, 8, BLOCK_COLUMNS])
        counted += tl.sum(tl.sum(down, 2), 0)
        open_rows = tl.max(clear, 1) >= 0
        if tl.max(open_rows.to(tl.int32), 0) > 0:
            waiting = list_open(
                clear,
                open_rows,
                sides,
                work,
                (top, first_column),
                first_row,
                waiting,
                BLOCK_ROWS,
                BLOCK_COLUMNS,
                BACKLOG,
                GROUP,
            )
        if (waiting > BACKLOG) | ((top + BLOCK_ROWS >= last_row) & (waiting > 0)):
            decide_pairs(sides, listed, waiting, corner, width, BLOCK_COLUMNS, BATCH, BATCH_WIDTH)
            waiting = tl.zeros([], tl.int32)
    total = tl.sum(tl.sum(counted, 1), 0)
    tl.atomic_add(text_counts + column, total, mask=column_inside & (total > 0), sem="relaxed")


@triton.jit(do_not_specialize=COUNTS)
def rank_kernel(
    image,
    text,
    owner,
    broken,
    image_bounds,
    text_bounds,
    image_counts,
    text_counts,
    flags,
    lists,
    rows,
    columns,
    width,
    image_stride,
    text_stride,
    segments,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
    ROW_WARPS: tl.constexpr,
    GROUP: tl.constexpr,
    BACKLOG: tl.constexpr,
    BATCH: tl.constexpr,
    BATCH_WIDTH: tl.constexpr,
):
    """Counts of both sides, from one pass over the tiles.

    A work item is a block of columns and a segment of the row tiles; `segments` of them per block.
    owner int64 [columns]: row of the image of each text. broken int32 0-d: whether any row is
    unknown. flags int8 [programs, one tile], lists int32 [programs, BACKLOG + one tile +
    BLOCK_ROWS]: to find and keep what to decide in float64. width, strides: in units of ALIGNMENT.
    """
    image_side = (image, image_bounds, image_counts, rows, image_stride * ALIGNMENT)
    text_side = (text, text_bounds, text_counts, columns, text_stride * ALIGNMENT)
    blocks = tl.cdiv(columns, BLOCK_COLUMNS)
    items = tl.cast(blocks, tl.int64) * segments
    tiles = tl.cast(tl.cdiv(rows, BLOCK_ROWS), tl.int64)
    program = tl.program_id(0).to(tl.int64)
    flags += program * (BLOCK_ROWS * BLOCK_COLUMNS)
    listed = lists + program * (BACKLOG + BLOCK_ROWS * BLOCK_COLUMNS + BLOCK_ROWS)
    for item in range(program, items, tl.num_programs(0)):
        segment = item // blocks
        rank_segment(
            (image_side, text_side),
            (owner, broken, flags, listed),
            (item % blocks).to(tl.int32) * BLOCK_COLUMNS,
            (segment * tiles // segments).to(tl.int32) * BLOCK_ROWS,
            ((segment + 1) * tiles // segments).to(tl.int32) * BLOCK_ROWS,
            width * ALIGNMENT,
            PRECISION,
            UPCAST,
            BLOCK_ROWS,
            BLOCK_COLUMNS,
            BLOCK_WIDTH,
            ROW_WARPS,
            GROUP,
            BACKLOG,
            BATCH,
            BATCH_WIDTH,
        )


def batch_constants(dtype: torch.dtype) -> dict[str, int]:
    """Pairs decided in float64 at a time, and how many of their elements."""
    return {"BATCH": 32, "BATCH_WIDTH": 256 // dtype.itemsize}


def rank_constants(dtype: torch.dtype, major: int, upcast: bool) -> dict[str, object]:
    """Compile-time arguments of `rank_kernel`; `upcast` widens operands before the product."""
    tile = rank_tile(dtype, major)
    return {
        "PRECISION": "tf32x3" if dtype == torch.float32 else "ieee",
        "UPCAST": upcast,
        "BLOCK_ROWS": tile.rows,
        "BLOCK_COLUMNS": tile.columns,
        "BLOCK_WIDTH": tile.width,
        "ROW_WARPS": tile.row_warps,
        "GROUP": GROUP,
        "BACKLOG": configs.BACKLOG,
        **batch_constants(dtype),
    }


def count_ranks(image: Tensor, text: Tensor, owner: Tensor) -> RankCounts:
    """`Backend.rank`. owner: int64 [M], row of each text's image."""
    image, text = _aligned(image), _aligned(text)
    error = product_error(image.dtype, image.shape[1])
    positive = _dots(image, owner, text).float()
    text_best = comparable(positive)
    image_best = best_positives(text_best, owner, image.shape[0])
    image_counts, text_counts = _count(
        image, text, owner, _bounds(image, image_best, error), _bounds(text, text_best, error)
    )
    return RankCounts(positive, *image_counts.long(), *text_counts.long())


def _aligned(embeddings: Tensor) -> Tensor:
    """Rows as the kernels read them; a copy, padded with zeros, unless they lie so already."""
    width = embeddings.shape[1]
    row, element = embeddings.stride()
    # Elements from row to row, but bytes for where the first one begins.
    apart = (width, row, embeddings.data_ptr())
    if element == 1 and not any(distance % RANK_ALIGNMENT for distance in apart):
        return embeddings
    return F.pad(embeddings, (0, -width % RANK_ALIGNMENT)).contiguous()


def _bounds(embeddings: Tensor, best: Tensor, error: float) -> Tensor:
    length = _dots(embeddings, None, embeddings).sqrt()
    return make_bounds(best, length, embeddings.shape[1], error)


def _dots(left: Tensor, index: Tensor | None, right: Tensor) -> Tensor:
    """<left[index[p]], right[p]> in float64, [P], summed as the ranking kernel sums them."""
    pairs, width = right.shape
    out = torch.empty(pairs, dtype=torch.float64, device=right.device)
    constants = batch_constants(right.dtype)
    dots_kernel[(-(-pairs // constants["BATCH"]),)](
        out,
        left,
        index,
        right,
        pairs,
        width // RANK_ALIGNMENT,
        left.stride(0) // RANK_ALIGNMENT,
        right.stride(0) // RANK_ALIGNMENT,
        **constants,
        num_warps=RANK_WARPS,
        **LAUNCH_OPTIONS,
    )
    return out


def _count(
    image: Tensor, text: Tensor, owner: Tensor, image_bounds: Tensor, text_bounds: Tensor
) -> tuple[Tensor, Tensor]:
    """Run `rank_kernel`; counts int32 [2, N] and [2, M]: better, ties."""
    device = image.device
    major = runtime.device_capability(device)[0] if image.is_cuda else 0
    tile = rank_tile(image.dtype, major)
    (images, width), texts = image.shape, text.shape[0]
    segments, programs = _grid(-(-images // tile.rows), -(-texts // tile.columns))
    pairs = tile.rows * tile.columns
    image_counts = torch.zeros((2, images), dtype=torch.int32, device=device)
    text_counts = torch.zeros((2, texts), dtype=torch.int32, device=device)
    rank_kernel[(programs,)](
        image,
        text,
        owner,
        any_unknown(image_bounds, text_bounds),
        image_bounds,
        text_bounds,
        image_counts,
        text_counts,
        torch.empty((programs, pairs), dtype=torch.int8, device=device),
        torch.empty(
            (programs, configs.BACKLOG + pairs + tile.rows), dtype=torch.int32, device=device
        ),
        images,
        texts,
        width // RANK_ALIGNMENT,
        image.stride(0) // RANK_ALIGNMENT,
        text.stride(0) // RANK_ALIGNMENT,
        segments,
        **rank_constants(image.dtype, major, runtime.interpreting()),
        num_warps=RANK_WARPS,
        num_stages=tile.stages,
        **LAUNCH_OPTIONS,
    )
    return image_counts, text_counts


def _grid(tiles: int, blocks: int) -> tuple[int, int]:
    """Segments that the row tiles are cut into for each column block, and programs."""
    segments = max(-(-configs.RANK_ITEMS // blocks), -(-tiles // configs.SEGMENT_TILES))
    segments = min(segments, tiles, SEGMENTS_LIMIT)
    return segments, min(configs.RANK_PROGRAMS, blocks * segments)
