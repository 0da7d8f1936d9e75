# mypy: allow-untyped-defs, allow-untyped-decorators
"""Triton kernels: all that are launched, and those of the gradients themselves.

Kernel parameters are device pointers, integers and compile-time constants, which have no Python
types; their shapes and dtypes are in the docstrings. Importing this module imports Triton; load it
through `runtime.load_kernels`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from goal_kernels.backends.triton import rows
from goal_kernels.backends.triton.finish import finish_kernel
from goal_kernels.backends.triton.prepare import prepare_kernel
from goal_kernels.backends.triton.tile import similarity_tile, tile_kernel

INTERPRETED = bool(rows.INTERPRETED)
"""Whether the kernels run in the interpreter; fixed when Triton is imported."""

__all__ = [
    "INTERPRETED",
    "finish_kernel",
    "gather_kernel",
    "prepare_kernel",
    "similarity_tile",
    "tile_kernel",
]


@triton.jit
def source_row(source, index, weight, source_rows, source_stride, element, inside):
    """weight * source[index] as float32 [BLOCK_WIDTH]; zeros where the index is out of range."""
    place = tl.zeros_like(element) + index
    present = inside & (place >= 0) & (place < source_rows)
    values = tl.load(source + place * source_stride + element, mask=present, other=0.0)
    return tl.where(present, weight * values.to(tl.float32), 0.0)


@triton.jit
def gather_kernel(
    out,
    source,
    grad_loss,
    mined,
    mined_weight,
    positive,
    positive_weight,
    entry_source,
    entry_weight,
    entry_starts,
    source_rows,
    width,
    source_stride,
    BLOCK_ENTRIES: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
):
    """One slice of one gradient row.

    out[r] = grad_loss * (mined_weight[r] source[mined[r]] - positive_weight[r] source[positive[r]]
             + sum over entries e of r of entry_weight[e] source[entry_source[e]])

    out [R, width] contiguous; source [source_rows, width], unit stride along width. mined int64
    [R]; positive int64 [R] or None for positive[r] = r; positive_weight None leaves that term out;
    entry_source int64 and entry_weight [E], the entries of row r from entry_starts[r] to
    entry_starts[r + 1] (int64 [R + 1]); weights and the 0-d grad_loss float32. Entries are added in
    their order, in groups of BLOCK_ENTRIES.
    """
    row = tl.program_id(0).to(tl.int64)
    element = tl.program_id(1) * BLOCK_WIDTH + tl.arange(0, BLOCK_WIDTH)
    inside = element < width
    mined_row = tl.load(mined + row)
    mined_scale = tl.load(mined_weight + row)
    total = source_row(source, mined_row, mined_scale, source_rows, source_stride, element, inside)
    if positive_weight is not None:
        own_row = row
        if positive is not None:
            own_row = tl.load(positive + row)
        own_scale = -tl.load(positive_weight + row)
        total += source_row(source, own_row, own_scale, source_rows, source_stride, element, inside)
    first = tl.load(entry_starts + row)
    last = tl.load(entry_starts + row + 1)
    for start in range(first, last, BLOCK_ENTRIES):
        entry = start + tl.arange(0, BLOCK_ENTRIES)
        listed = entry < last
        rows = tl.load(entry_source + entry, mask=listed, other=0)
        scale = tl.load(entry_weight + entry, mask=listed, other=0.0)
        values = tl.load(
            source + rows[:, None] * source_stride + element[None, :],
            mask=listed[:, None] & inside[None, :],
            other=0.0,
        )
        total += tl.sum(scale[:, None] * values.to(tl.float32), 0)
    total *= tl.load(grad_loss)
    tl.store(out + row * width + element, total.to(out.dtype.element_ty), mask=inside)
