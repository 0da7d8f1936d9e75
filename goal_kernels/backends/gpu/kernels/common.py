# mypy: allow-untyped-defs, allow-untyped-decorators
"""What all kernels share: ordered keys, statistics of a batch, rows of embeddings.

*Keys.* A similarity as an int32 of the same order (`encode`). A *packed key* has the key in its
upper half and the index counted down in its lower half: the largest packed key is the hardest
negative and, among equals, the one of lowest index. Programs combine packed keys by atomic maximum,
which no order changes, so results do not depend on the grid.

*Batch statistics*, float32 [3, parts]: the smallest existing positive similarity (inf if none), the
length of the longest image row and of the longest text row, each over the rows of one program of
`prepare_kernel`. Every reader reduces the parts again: a few hundred numbers cost less than a
launch. NaN stays NaN.

*Rows* are given by pointers [ROWS] to their first elements, which follow each other in memory, and
are read in slices of WIDTH elements. Everything is computed in float32.
"""

from __future__ import annotations

import triton
import triton.language as tl

LINEAR = tl.constexpr(1)
EMPTY = tl.constexpr(-(2**31))
"""Key of an anchor that has no negative (yet)."""

NAN_KEY = tl.constexpr(2**31 - 1)
NOWHERE = tl.constexpr(2**31 - 1)
MAGNITUDE = tl.constexpr(0x7FFFFFFF)


@triton.jit
def encode(value):
    """float32 -> int32 of the same order: -0.0 equals 0.0, every NaN is the largest key."""
    value = tl.where(value == 0.0, 0.0, value)
    bits = value.to(tl.int32, bitcast=True)
    key = bits ^ ((bits >> 31) & MAGNITUDE)
    return tl.where(value != value, NAN_KEY, key)


@triton.jit
def decode(key):
    """Inverse of `encode`; EMPTY becomes -inf."""
    bits = key ^ ((key >> 31) & MAGNITUDE)
    return tl.where(key == EMPTY, float("-inf"), bits.to(tl.float32, bitcast=True))


COUNTS = (
    *("parts", "row_parts", "column_parts", "segment_tiles", "chunk", "segments"),
    *("steps", "skipped", "batch", "length", "words"),
)
"""Arguments that Triton must not specialise. They vary with the batch: compiling a kernel anew
because one of them is 1, or a multiple of 16, costs seconds and gains nothing."""

NOTHING = tl.constexpr(-(2**63))
"""Packed key of an anchor that has no negative (yet)."""


@triton.jit
def pack(key, index):
    """int32 key of `encode`, EMPTY for none, and int32 index >= 0 -> int64."""
    return (key.to(tl.int64) << 32) | (index ^ NOWHERE).to(tl.int64)


@triton.jit
def unpack(packed):
    """int64 -> (int32 key, int32 index); (EMPTY, -1) where there is no negative."""
    key = (packed >> 32).to(tl.int32)
    index = (packed & NOWHERE).to(tl.int32) ^ NOWHERE
    return key, tl.where(key == EMPTY, -1, index)


GREATEST_SCORE = tl.constexpr(1e38)
"""Similarities below this are ordinary: none is infinite, nor is the difference of two."""

GREATEST_EXPONENT = tl.constexpr(66.0 / 0.6931471805599453)
"""Largest exponent of two in a fixed-reference sum: 2**31 terms of e^66 do not overflow."""

FARTHEST_REFERENCE = tl.constexpr(64.0)
"""Largest distance of the reference of a linear sum, per similarity: it costs 6 of 24 bits."""


@triton.jit
def _with_nan(values, extreme):
    """`extreme`, a reduction of values [PARTS], or NaN if there is one among them."""
    broken = tl.max((values != values).to(tl.int32), 0)
    return tl.where(broken > 0, float("nan"), extreme)


@triton.jit
def read_threshold(batch_stats, parts, epsilon, PARTS: tl.constexpr):
    """Smallest positive - epsilon, 0-d float32. PARTS: a power of two, >= parts."""
    part = tl.arange(0, PARTS)
    values = tl.load(batch_stats + part, mask=part < parts, other=float("inf"))
    return _with_nan(values, tl.min(values, 0)) - epsilon


@triton.jit
def read_longest(lengths, parts, PARTS: tl.constexpr):
    """The largest of lengths float32 [2, parts], of images and of texts; NaN if there is one."""
    part = tl.arange(0, PARTS)
    image = tl.load(lengths + part, mask=part < parts, other=0.0)
    text = tl.load(lengths + parts + part, mask=part < parts, other=0.0)
    return _with_nan(image, tl.max(image, 0)), _with_nan(text, tl.max(text, 0))


@triton.jit
def read_bound(batch_stats, parts, PARTS: tl.constexpr):
    """No similarity is larger in magnitude, up to rounding: product of the greatest lengths, 0-d.

    inf or NaN when an embedding is not finite or its length overflows.
    """
    image, text = read_longest(batch_stats + parts, parts, PARTS)
    bound = image * text
    # Kernels decide by this number, each by itself, and must decide alike: the maximum keeps the
    # compiler from fusing the product with a subtraction that follows.
    return tl.maximum(bound, 0.0, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def wide_range(bound, threshold, slope, KIND: tl.constexpr):
    """Whether similarities may lie too far above the threshold for sums that start there.

    bound: of `read_bound`; slope: beta log2(e). True for whatever is not finite.
    """
    if KIND == LINEAR:
        near = bound - threshold <= bound * FARTHEST_REFERENCE
    else:
        near = slope * (bound - threshold) < GREATEST_EXPONENT
    return ~(near & (bound < GREATEST_SCORE))


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
