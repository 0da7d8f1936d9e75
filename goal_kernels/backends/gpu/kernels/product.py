# mypy: allow-untyped-defs, allow-untyped-decorators
"""Tiles of similarities on tensor cores."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from goal_kernels.backends.gpu.configs import StripTile
from goal_kernels.backends.gpu.records import Operands


@triton.jit
def _load_block(
    source,
    row,
    start,
    rows,
    width,
    stride,
    DESCRIPTORS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
):
    """Block [BLOCK_ROWS, BLOCK_WIDTH] at (row, start) of a matrix [rows, width].

    What lies beyond `width` is 0. Rows beyond the last are 0 or, without descriptors, copies of the
    last one: a clamped address needs no predicate in the loop, and edge tiles are masked anyway.
    """
    if DESCRIPTORS:
        return source.load([row, start])
    else:
        place = tl.minimum(tl.arange(0, BLOCK_ROWS), rows - 1 - row)
        element = tl.arange(0, BLOCK_WIDTH)
        # Rows begin at multiples of 16 bytes, which the compiler cannot see in every stride.
        offset = tl.multiple_of(place * stride, 128 // source.dtype.element_ty.primitive_bitwidth)
        base = source + tl.cast(row, tl.int64) * stride + start
        inside = (element < width - start)[None, :]
        return tl.load(base + (offset[:, None] + element[None, :]), mask=inside, other=0.0)


@triton.jit
def product_tile(
    image,
    text,
    row,
    column,
    shape,
    DESCRIPTORS: tl.constexpr,
    SPLIT: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
):
    """Similarities float32 [BLOCK_ROWS, BLOCK_COLUMNS] from position (row, column) on.

    image, text: DESCRIPTORS of blocks [BLOCK_ROWS, BLOCK_WIDTH] and [BLOCK_COLUMNS, BLOCK_WIDTH],
    or pointers to rows of unit inner stride. shape: (rows, columns, width, image_stride,
    text_stride), the strides for pointers alone.

    SPLIT: rows are [high | low], each `width` wide, and the product is high.high + high.low +
    low.high. Where width is no multiple of BLOCK_WIDTH, the last slice of high.high runs into the
    low parts on both sides and adds a piece of low.low, which belongs to the exact product; the
    other two run into zeros on one side.
    """
    rows, columns, width, image_stride, text_stride = shape
    score = tl.zeros([BLOCK_ROWS, BLOCK_COLUMNS], tl.float32)
    slices = tl.cdiv(width, BLOCK_WIDTH)
    steps = 3 * slices if SPLIT else slices
    back = slices * BLOCK_WIDTH
    total = 2 * width if SPLIT else width
    for step in range(steps):
        image_start = step * BLOCK_WIDTH
        text_start = image_start
        if SPLIT:
            # Back to the start after every pass, one side to the start of its low parts.
            second, third = step >= slices, step >= 2 * slices
            image_start -= tl.where(second, back, 0) + tl.where(third, back - width, 0)
            text_start -= tl.where(second, back - width, 0) + tl.where(third, back + width, 0)
        x = _load_block(
            image,
            row,
            image_start,
            rows,
            total,
            image_stride,
            DESCRIPTORS,
            BLOCK_ROWS,
            BLOCK_WIDTH,
        )
        y = _load_block(
            text,
            column,
            text_start,
            columns,
            total,
            text_stride,
            DESCRIPTORS,
            BLOCK_COLUMNS,
            BLOCK_WIDTH,
        )
        if UPCAST:
            x = x.to(tl.float32)
            y = y.to(tl.float32)
        score = tl.dot(x, tl.trans(y), score, input_precision=PRECISION)
    return score


def product_constants(tile: StripTile, dtype: torch.dtype, upcast: bool) -> dict[str, object]:
    """Compile-time arguments of `product_tile` but SPLIT. upcast: widen operands before it."""
    return {
        "DESCRIPTORS": tile.descriptors,
        "PRECISION": "tf32" if dtype == torch.float32 else "ieee",
        "UPCAST": upcast,
        "BLOCK_ROWS": tile.rows,
        "BLOCK_COLUMNS": tile.columns,
        "BLOCK_WIDTH": tile.width,
    }


def operands_of(operands: Operands, tile: StripTile) -> tuple[Any, Any]:
    """What the kernels load blocks of the image side and of the text side from."""
    image, text, _ = operands
    if not tile.descriptors:
        return image, text
    return (
        TensorDescriptor.from_tensor(image, [tile.rows, tile.width]),
        TensorDescriptor.from_tensor(text, [tile.columns, tile.width]),
    )
