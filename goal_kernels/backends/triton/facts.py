# mypy: allow-untyped-defs, allow-untyped-decorators
"""What the first kernel learns about a batch as a whole, and how the others read it.

*Facts* are float32 [3, parts]: the smallest existing positive similarity (inf if none), the length
of the longest image row and of the longest text row, each over the rows of one preparing program.
Reading reduces the parts again in every program that wants to know: a few hundred numbers, no
further launch, and NaN stays NaN.
"""

from __future__ import annotations

import triton
import triton.language as tl

from goal_kernels.backends.triton.states import LINEAR

GREATEST_SCORE = tl.constexpr(1e38)
"""Similarities below this are ordinary: none is infinite, nor is the difference of two."""

GREATEST_EXPONENT = tl.constexpr(80.0 / 0.6931471805599453)
"""Largest exponent of two in a fixed-reference sum: e^80 = 5.5e34 leaves room for 6000 of them."""

FARTHEST_REFERENCE = tl.constexpr(64.0)
"""Largest distance of the reference of a linear sum, per similarity: it costs 6 of 24 bits."""


@triton.jit
def _with_nan(values, extreme):
    """`extreme`, a reduction of values [PARTS], or NaN if there is one among them."""
    broken = tl.max((values != values).to(tl.int32), 0)
    return tl.where(broken > 0, float("nan"), extreme)


@triton.jit
def read_threshold(facts, parts, epsilon, PARTS: tl.constexpr):
    """Smallest positive - epsilon, 0-d float32. PARTS: a power of two, >= parts."""
    part = tl.arange(0, PARTS)
    values = tl.load(facts + part, mask=part < parts, other=float("inf"))
    return _with_nan(values, tl.min(values, 0)) - epsilon


@triton.jit
def read_bound(facts, parts, PARTS: tl.constexpr):
    """No similarity is larger in magnitude, up to rounding: product of the greatest lengths, 0-d.

    inf or NaN when an embedding is not finite or its length overflows.
    """
    part = tl.arange(0, PARTS)
    image = tl.load(facts + parts + part, mask=part < parts, other=0.0)
    text = tl.load(facts + 2 * parts + part, mask=part < parts, other=0.0)
    return _with_nan(image, tl.max(image, 0)) * _with_nan(text, tl.max(text, 0))


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
