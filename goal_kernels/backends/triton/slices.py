# mypy: allow-untyped-defs, allow-untyped-decorators
"""Cutting a tile into slices whose rows lie one in every lane.

Fragments of mma and wgmma spread a column of the accumulator over 8 lanes of every warp. With
LANES = 8 * warps the reshape

    [BLOCK_ROWS, BLOCK_COLUMNS] -> [repeats, warps, half, 8, BLOCK_COLUMNS]

follows them: repeats and halves lie in one thread, so a *slice*, the LANES rows of one repeat and
half, is cut out without moving data, and comparing slices with each other moves none either. A
wrong guess would be slow and still right. LANES = 1 stands for hardware with other fragments: the
tile is its only slice.

Slices are numbered so that the rows of one lane rise with the slice.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def slices_of(tile, LANES: tl.constexpr):
    """A tile as a tuple of 2 or 4 tensors [LANES, BLOCK_COLUMNS], or of itself."""
    if LANES == 1:
        return (tile,)
    else:
        REPEATS: tl.constexpr = tile.shape[0] // (2 * LANES)
        COLUMNS: tl.constexpr = tile.shape[1]
        tl.static_assert(REPEATS == 1 or REPEATS == 2, "a tile has 2 or 4 slices")
        parts = tl.reshape(tile, [REPEATS, LANES // 8, 2, 8, COLUMNS])
        upper, lower = tl.split(tl.permute(parts, (1, 3, 4, 0, 2)))
        if REPEATS == 1:
            return tl.reshape(upper, [LANES, COLUMNS]), tl.reshape(lower, [LANES, COLUMNS])
        else:
            first, third = tl.split(upper)
            second, fourth = tl.split(lower)
            return (
                tl.reshape(first, [LANES, COLUMNS]),
                tl.reshape(second, [LANES, COLUMNS]),
                tl.reshape(third, [LANES, COLUMNS]),
                tl.reshape(fourth, [LANES, COLUMNS]),
            )


@triton.jit
def rows_of(slices, LANES: tl.constexpr, BLOCK_ROWS: tl.constexpr):
    """Tensors [LANES], one number per row of each slice -> [BLOCK_ROWS] in order of the rows."""
    if LANES == 1:
        return slices[0]
    else:
        REPEATS: tl.constexpr = BLOCK_ROWS // (2 * LANES)
        if REPEATS == 1:
            joined = tl.join(slices[0], slices[1])
        else:
            joined = tl.join(tl.join(slices[0], slices[2]), tl.join(slices[1], slices[3]))
        parts = tl.reshape(joined, [LANES // 8, 8, REPEATS, 2])
        return tl.reshape(tl.permute(parts, (2, 0, 3, 1)), [BLOCK_ROWS])


@triton.jit
def row_of(number, LANES: tl.constexpr, BLOCK_ROWS: tl.constexpr):
    """Row, from the first of tile 0, of every lane in slice `number` [LANES, any] of all tiles."""
    SLICES: tl.constexpr = BLOCK_ROWS // LANES
    lane = tl.arange(0, LANES)[:, None]
    part = number % SLICES
    start = (number // SLICES) * BLOCK_ROWS + (part // 2) * (2 * LANES) + (part % 2) * 8
    return start + (lane // 8) * 16 + lane % 8
