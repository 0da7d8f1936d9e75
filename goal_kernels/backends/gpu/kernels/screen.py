# mypy: allow-untyped-defs, allow-untyped-decorators
"""Mining float32 in full precision at the speed of bfloat16; only where no sums are wanted.

    round_kernel    bfloat16 copies of the rows, and how much their rounding takes away
    strip_kernel    products of the copies: about the largest similarity of every anchor
    screen_kernel   the same products again: lists every pair that may be the hardest of an anchor
    decide_kernel   float32 products of the listed pairs: keys of the hardest

With x~ the copy of x and p = |x - x~|, which is measured,

    |x~ y~ - x y| <= p_x |y| + (|x| + p_x) p_y + gamma (|x| + p_x) (|y| + p_y)

gamma being the error of summing (`score_bounds.py`). With the greatest |y| and p_y of the other
side that is the window of an anchor x, and its hardest negative is among those whose x~ y~ lies
within two windows of the largest: one to three pairs an anchor where embeddings are spread. Where
more than `CANDIDATES` an anchor are listed (embeddings that are all alike, or not finite), nothing
is decided and `tile_kernel`, which is launched anyway, mines everything.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from goal_kernels.backends.base import Pairing
from goal_kernels.backends.gpu import runtime
from goal_kernels.backends.gpu.configs import (
    CANDIDATES,
    LAUNCH_OPTIONS,
    PADDING,
    PARTS,
    WARPS,
    row_block,
    strip_plan,
)
from goal_kernels.backends.gpu.kernels.common import (
    COUNTS,
    EMPTY,
    GREATEST_SCORE,
    NOTHING,
    NOWHERE,
    decode,
    encode,
    load_slice,
    narrow,
    pack,
    pair_score,
    read_bound,
    read_longest,
    row_pointers,
    unpack,
)
from goal_kernels.backends.gpu.kernels.masks import exclude, needs_mask
from goal_kernels.backends.gpu.kernels.product import operands_of, product_constants, product_tile
from goal_kernels.backends.gpu.kernels.resum import usual_tile
from goal_kernels.backends.gpu.kernels.strip import mine_strips, strip_item
from goal_kernels.backends.gpu.kernels.tile import mine_tiles
from goal_kernels.backends.gpu.plan import usual_programs
from goal_kernels.backends.gpu.records import (
    MiningQuery,
    MiningResult,
    Operands,
    Prepared,
    Side,
    Wants,
)
from goal_kernels.backends.gpu.score_bounds import product_error

SHORTEST = tl.constexpr(1e-12)
"""Shorter rows count as this long, so that the error of sums covers what subnormal numbers lose."""

ROUND_UP = tl.constexpr(1.001)
"""Over the bound, for the roundings of lengths and of the formula itself."""


@triton.jit
def _round_block(side, first, width, padded, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """Round ROWS rows from `first` on, empty their keys; the greatest length and loss, 0-d.

    side: (rows, copy, keys, measures, number of rows, stride); see `round_kernel`.
    """
    source, copy, keys, measures, length, stride = side
    row = first + tl.arange(0, ROWS)
    inside = row < length
    pointers = row_pointers(source, row, stride)
    out = row_pointers(copy, row, padded)
    squares = tl.zeros([ROWS, WIDTH], tl.float32)
    lost = tl.zeros([ROWS, WIDTH], tl.float32)
    for start in range(0, padded, WIDTH):
        x = load_slice(pointers, inside, start, width, WIDTH)
        rounded = narrow(x, copy.dtype.element_ty)
        element = start + tl.arange(0, WIDTH)
        mask = inside[:, None] & (element < padded)[None, :]
        tl.store(out[:, None] + element[None, :], rounded, mask=mask)
        gap = x - rounded.to(tl.float32)
        squares = tl.fma(x, x, squares)
        lost = tl.fma(gap, gap, lost)
    own_length = tl.maximum(tl.sqrt_rn(tl.sum(squares, 1)), SHORTEST)
    own_loss = tl.sqrt_rn(tl.sum(lost, 1))
    tl.store(measures + row, own_length, mask=inside)
    tl.store(measures + tl.cast(length, tl.int64) + row, own_loss, mask=inside)
    tl.store(keys + row, tl.zeros_like(row).to(tl.int64) + NOTHING, mask=inside)
    return tl.max(own_length, 0), tl.max(own_loss, 0)


@triton.jit
def _round_side(side, extremes, width, padded, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """This program's share of a side; its greatest length, and two rows on its greatest loss."""
    program = tl.program_id(0)
    programs = tl.num_programs(0)
    longest = SHORTEST
    most_lost = 0.0
    for first in range(program * ROWS, side[4], programs * ROWS):
        length, loss = _round_block(side, first, width, padded, ROWS, WIDTH)
        longest = tl.maximum(longest, length)
        most_lost = tl.maximum(most_lost, loss)
    tl.store(extremes + program, longest)
    tl.store(extremes + 2 * programs + program, most_lost)


@triton.jit(do_not_specialize=COUNTS)
def round_kernel(
    image,
    text,
    image_copy,
    text_copy,
    row_keys,
    column_keys,
    row_measures,
    column_measures,
    extremes,
    waiting,
    rows,
    columns,
    width,
    padded,
    image_stride,
    text_stride,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Copies of the rows, `padded` elements apart, with zeros beyond `width`; empty keys.

    row_measures float32 [2, rows], column_measures [2, columns]: |x| and |x - x~| of every row.
    extremes: float32 [4, programs], the greatest |x| of images and of texts, then of |x - x~|, over
    the rows of a program. waiting: int64 0-d, set to 0.
    """
    images = (image, image_copy, row_keys, row_measures, rows, image_stride)
    texts = (text, text_copy, column_keys, column_measures, columns, text_stride)
    _round_side(images, extremes, width, padded, ROWS, WIDTH)
    _round_side(texts, extremes + tl.num_programs(0), width, padded, ROWS, WIDTH)
    if tl.program_id(0) == 0:
        tl.store(waiting, 0)


@triton.jit
def _floors(keys, measures, anchor, length, longest, most_lost, error):
    """What a rounded product must reach to be a candidate of its anchor; inf: nothing can.

    longest, most_lost: the greatest |y| and |y - y~| of the other side.
    """
    inside = anchor < length
    key, _ = unpack(tl.load(keys + anchor, mask=inside, other=NOTHING))
    own = tl.load(measures + anchor, mask=inside, other=0.0)
    lost = tl.load(measures + tl.cast(length, tl.int64) + anchor, mask=inside, other=0.0)
    of_sums = error * (own + lost) * (longest + most_lost)
    window = ROUND_UP * (lost * longest + (own + lost) * most_lost + of_sums)
    return tl.where(key == EMPTY, float("inf"), decode(key) - 2.0 * window)


@triton.jit
def _list_candidates(score, floor, row, column, waiting, most, listed):
    """Append the pairs of a tile that reach their floors to the list, one of every row at a time.

    score, floor: [BLOCK_ROWS, BLOCK_COLUMNS]. Returns: 1 if the list is full, else 0; then others
    may be missing.
    """
    score = tl.where(score >= floor, score, float("-inf"))
    left = tl.max(score, 1)
    going = tl.max(left, 0) > float("-inf")
    full = tl.zeros([], tl.int32)
    while going:
        found = left > float("-inf")
        chosen = tl.min(tl.where(score == left[:, None], column[None, :], NOWHERE), 1)
        one = tl.zeros_like(row).to(tl.int64) + 1
        place = tl.atomic_add(waiting + tl.zeros_like(row), one, mask=found, sem="relaxed")
        pair = (row.to(tl.int64) << 32) | chosen.to(tl.int64)
        tl.store(listed + place, pair, mask=found & (place < most))
        score = tl.where(column[None, :] == chosen[:, None], float("-inf"), score)
        left = tl.max(score, 1)
        # By places, not by `waiting`: it changes meanwhile, and warps would read different numbers.
        full = (tl.max(tl.where(found, place, 0), 0) >= most).to(tl.int32)
        going = (tl.max(left, 0) > float("-inf")) & (full == 0)
    return full


@triton.jit(do_not_specialize=COUNTS)
def screen_kernel(
    image,
    text,
    target,
    image_ids,
    text_ids,
    mixed,
    batch_stats,
    extremes,
    row_keys,
    column_keys,
    row_measures,
    column_measures,
    waiting,
    listed,
    rows,
    columns,
    width,
    image_stride,
    text_stride,
    parts,
    segment_tiles,
    chunk,
    words,
    most,
    error,
    DESCRIPTORS: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
):
    """Candidates of all anchors: `listed` int64 [most], row << 32 | column, `waiting` of them.

    Arguments as of `strip_kernel`; row_keys, column_keys: what it left of the rounded rows.
    waiting: int64 0-d, 0 before; above `most` afterwards if there are more, or if similarities
    are not all finite. extremes [4, parts], measures: of `round_kernel`. error: gamma.
    """
    if read_bound(batch_stats, parts, PARTS) < GREATEST_SCORE:
        longest = read_longest(extremes, parts, PARTS)
        most_lost = read_longest(extremes + 2 * parts, parts, PARTS)
        full = tl.zeros([], tl.int32)
        tiles = tl.cdiv(rows, BLOCK_ROWS)
        blocks = tl.cdiv(columns, BLOCK_COLUMNS)
        segments = tl.cdiv(tiles, segment_tiles)
        shape = (rows, columns, width, image_stride, text_stride)
        for item in range(tl.program_id(0), segments * blocks, tl.num_programs(0)):
            segment, block = strip_item(item, segments, blocks, chunk)
            first = segment * segment_tiles
            column_start = block * BLOCK_COLUMNS
            column = column_start + tl.arange(0, BLOCK_COLUMNS)
            column_floor = _floors(
                column_keys, column_measures, column, columns, longest[0], most_lost[0], error
            )
            # Of a list that is full nothing is read: what is left need not be looked at.
            last = tl.where(full > 0, first, tl.minimum(first + segment_tiles, tiles))
            for tile in range(first, last):
                row_start = tile * BLOCK_ROWS
                row = row_start + tl.arange(0, BLOCK_ROWS)
                masked = needs_mask(
                    row_start, column_start, rows, columns, mixed, words, BLOCK_ROWS, BLOCK_COLUMNS
                )
                score = product_tile(
                    image, text, row_start, column_start, shape, DESCRIPTORS, False, PRECISION,
                    UPCAST, BLOCK_ROWS, BLOCK_COLUMNS, BLOCK_WIDTH,
                )  # fmt: skip
                if masked:
                    score = exclude(score, row, column, rows, columns, target, image_ids, text_ids)
                row_floor = _floors(
                    row_keys, row_measures, row, rows, longest[1], most_lost[1], error
                )
                floor = tl.minimum(row_floor[:, None], column_floor[None, :])
                full |= _list_candidates(score, floor, row, column, waiting, most, listed)
    else:
        tl.store(waiting, tl.cast(most, tl.int64) + 1)


@triton.jit(do_not_specialize=COUNTS)
def decide_kernel(
    image,
    text,
    waiting,
    listed,
    row_keys,
    column_keys,
    width,
    image_stride,
    text_stride,
    most,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Let the float32 products of all listed pairs enter the keys, unless there are above `most`.

    image, text: float32 rows of unit inner stride. row_keys, column_keys: packed, NOTHING before.
    """
    pairs = tl.load(waiting)
    pairs = tl.where(pairs > most, 0, pairs)
    first = tl.program_id(0).to(tl.int64) * ROWS
    for start in range(first, pairs, tl.num_programs(0) * ROWS):
        entry = start + tl.arange(0, ROWS)
        inside = entry < pairs
        pair = tl.load(listed + entry, mask=inside, other=0)
        row = (pair >> 32).to(tl.int32)
        column = pair.to(tl.int32)
        left = row_pointers(image, row, image_stride)
        right = row_pointers(text, column, text_stride)
        key = encode(pair_score(left, right, None, None, inside, width, WIDTH))
        tl.atomic_max(row_keys + row, pack(key, column), mask=inside, sem="relaxed")
        tl.atomic_max(column_keys + column, pack(key, row), mask=inside, sem="relaxed")


def screen_wants(image: Tensor, query: MiningQuery) -> Wants:
    """What `mine_screened` needs of a prepared batch."""
    return Wants(mixed=True)


def mine_screened(
    prepared: Prepared, pairing: Pairing, query: MiningQuery
) -> tuple[Prepared, MiningResult]:
    """Run the kernels above and `tile_kernel`: float32 rows, no sums.

    The workspace is a bfloat16 copy of the rows and 8 (CANDIDATES + 2) bytes per row and column.
    """
    image, text, width = prepared.operands
    rows, columns = image.shape[0], text.shape[0]
    padded = -(-width // PADDING) * PADDING
    copies = [x.new_empty((x.shape[0], padded), dtype=torch.bfloat16) for x in (image, text)]
    sides = Side.empty(image, "none"), Side.empty(text, "none")
    measures = image.new_empty((2, rows)), text.new_empty((2, columns))
    extremes = image.new_empty((4, prepared.batch_stats.shape[1]))
    waiting = image.new_empty((), dtype=torch.int64)
    block = row_block(width)
    round_kernel[(extremes.shape[1],)](
        *(image, text),
        *copies,
        *(sides[0].keys, sides[1].keys),
        *measures,
        *(extremes, waiting),
        *(rows, columns, width, padded, image.stride(0), text.stride(0)),
        **block,
        num_warps=WARPS,
        **LAUNCH_OPTIONS,
    )
    operands = Operands(copies[0], copies[1], padded)
    rounded = prepared._replace(operands=operands, rows=sides[0], columns=sides[1])
    mine_strips(rounded, pairing, query)
    most = CANDIDATES * (rows + columns)
    listed = image.new_empty((most,), dtype=torch.int64)
    _screen(rounded, pairing, extremes, measures, waiting, listed)
    decide_kernel[(usual_programs(image.device) * 4,)](
        *(image, text, waiting, listed),
        *(prepared.rows.keys, prepared.columns.keys),
        *(width, image.stride(0), text.stride(0), most),
        **block,
        num_warps=WARPS,
        **LAUNCH_OPTIONS,
    )
    return mine_tiles(prepared, pairing, query, waiting, most)


def _screen(
    rounded: Prepared,
    pairing: Pairing,
    extremes: Tensor,
    measures: tuple[Tensor, Tensor],
    waiting: Tensor,
    listed: Tensor,
) -> None:
    """Run `screen_kernel`."""
    image, text, width = rounded.operands
    tile = usual_tile(rounded, pairing, "none")
    plan = strip_plan(tile, image.shape[0], text.shape[0], image.shape[1] * image.element_size())
    screen_kernel[(min(usual_programs(image.device), plan.segments * plan.blocks),)](
        *operands_of(rounded.operands, tile),
        *pairing,
        rounded.mixed,
        *(rounded.batch_stats, extremes),
        *(rounded.rows.keys, rounded.columns.keys),
        *measures,
        *(waiting, listed),
        *(image.shape[0], text.shape[0], width, image.stride(0), text.stride(0)),
        rounded.batch_stats.shape[1],
        *(plan.segment_tiles, plan.chunk, rounded.mask_words, len(listed)),
        product_error(image.dtype, width),
        PARTS=PARTS,
        **product_constants(tile, image.dtype, runtime.interpreting()),
        num_warps=tile.warps,
        num_stages=tile.stages,
        **LAUNCH_OPTIONS,
    )
