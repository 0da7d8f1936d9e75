# mypy: allow-untyped-defs, allow-untyped-decorators
"""Rows of embeddings in Triton: their lengths, products of given pairs, copies for mining.

Rows are given by pointers [ROWS] to their first elements, which follow each other in memory, and
are walked in slices of WIDTH elements. Everything is computed in float32.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def row_pointers(base, index, stride):
    """Pointers to the rows `index`, int32 or int64 [ROWS]."""
    return base + index.to(tl.int64) * stride


INTERPRETED = tl.constexpr(not isinstance(row_pointers, triton.JITFunction))
"""Whether the kernels run in the interpreter; fixed when Triton is imported."""


@triton.jit
def load_slice(pointers, inside, start, width, WIDTH: tl.constexpr):
    """Elements start .. start + WIDTH of every row, float32 [ROWS, WIDTH]; zeros outside."""
    element = start + tl.arange(0, WIDTH)
    mask = inside[:, None] & (element < width)[None, :]
    return tl.load(pointers[:, None] + element[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit
def row_lengths(pointers, inside, width, WIDTH: tl.constexpr):
    """Euclidean length of every row, float32 [ROWS]; zero where not `inside`."""
    squares = tl.zeros([pointers.shape[0], WIDTH], tl.float32)
    for start in range(0, width, WIDTH):
        x = load_slice(pointers, inside, start, width, WIDTH)
        squares = tl.fma(x, x, squares)
    return tl.sqrt_rn(tl.sum(squares, 1))


@triton.jit
def pair_score(left, right, left_scale, right_scale, inside, width, WIDTH: tl.constexpr):
    """<left row, right row> of ROWS pairs, float32 [ROWS]; -inf where not `inside`.

    left, right: pointers to the rows. left_scale, right_scale: float32 [ROWS], what the rows are
    multiplied by, or both None.
    """
    products = tl.zeros([left.shape[0], WIDTH], tl.float32)
    for start in range(0, width, WIDTH):
        x = load_slice(left, inside, start, width, WIDTH)
        y = load_slice(right, inside, start, width, WIDTH)
        if left_scale is not None:
            x *= left_scale[:, None]
            y *= right_scale[:, None]
        products = tl.fma(x, y, products)
    return tl.where(inside, tl.sum(products, 1), float("-inf"))


@triton.jit
def narrow(x, TYPE: tl.constexpr):
    """float32 to a type of 16 bits, to nearest even; the interpreter only cuts bfloat16 off."""
    if INTERPRETED and tl.bfloat16 == TYPE:
        bits = x.to(tl.int32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & -0x10000
        x = tl.where(x == x, bits.to(tl.float32, bitcast=True), x)
    return x.to(TYPE)


@triton.jit
def copy_rows(out, pointers, scale, inside, width, padded, WIDTH: tl.constexpr):
    """Rows times `scale` (float32 [ROWS] or None), rounded, with zeros up to `padded` elements.

    out: pointers to rows of the type to round to. If that is not the type of the rows, they are
    split: a second copy, `padded` elements further, holds what the rounding of the first lost.
    """
    TYPE: tl.constexpr = out.dtype.element_ty
    for start in range(0, padded, WIDTH):
        x = load_slice(pointers, inside, start, width, WIDTH)
        if scale is not None:
            x *= scale[:, None]
        element = start + tl.arange(0, WIDTH)
        mask = inside[:, None] & (element < padded)[None, :]
        place = out[:, None] + element[None, :]
        rounded = narrow(x, TYPE)
        tl.store(place, rounded, mask=mask)
        if pointers.dtype.element_ty != TYPE:
            tl.store(place + padded, narrow(x - rounded.to(tl.float32), TYPE), mask=mask)
