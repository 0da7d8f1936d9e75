"""A kernel whose loops are known, for the test of what reads machine code."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def walk_kernel(
    image,
    text,
    keys,
    tiles,
    width,
    INSIDE: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
):
    """Column maxima of `tiles` tiles: lanes are reduced in the loop over tiles or after it."""
    column = tl.program_id(0) * BLOCK
    best = tl.full([BLOCK], float("-inf"), tl.float32)
    running = tl.full([BLOCK, BLOCK], float("-inf"), tl.float32)
    for tile in range(tiles):
        score = tl.zeros([BLOCK, BLOCK], tl.float32)
        for start in range(0, width, BLOCK_WIDTH):
            x = image.load([tile * BLOCK, start])
            y = text.load([column, start])
            score = tl.dot(x, y.T, score)
        if INSIDE:
            best = tl.maximum(best, tl.max(score, 0))
        else:
            running = tl.maximum(running, score)
    if not INSIDE:
        best = tl.max(running, 0)
    tl.atomic_max(keys + column + tl.arange(0, BLOCK), (best * 1024).to(tl.int32))
