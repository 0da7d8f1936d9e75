# mypy: allow-untyped-defs, allow-untyped-decorators
"""Relative sums that no order of additions changes.

While mining, a program adds the float32 totals of its tiles to those of other programs. Integers
can be added by atomics in any order, so totals are made integers, exactly or nearly so, and one sum
per anchor is enough, whatever the number of tiles. What is summed starts at the threshold, so its
range is known (`common.wide_range`).

Exponential: a total is at least 1/2 and below 2^112. A float32 has 24 digits; SUM_BITS successive
exponents share a field, where they are shifted by less than SUM_BITS digits. Field f counts units
of 2^(SUM_BITS f - 24), and 2^21 totals fit into it: more than there are tiles in a row. Rounding
of similarities that a huge slope magnifies is cut off at the last exponent.

Linear: similarities above the threshold are counted in units of 2^-31 of a power of two that no
single one exceeds, nor does its rounding. 2^31 of them fit.

*Tops*, of the linear kind, int64 [length]: key of the hardest negative << 32 | how many negatives
have it, so that exact ties can be left out. The larger key wins and numbers of equal keys add up,
in any order.
"""

from __future__ import annotations

import triton
import triton.language as tl

from goal_kernels.backends.gpu import configs
from goal_kernels.backends.gpu.kernels.common import LINEAR

SUM_BITS = tl.constexpr(configs.SUM_BITS)
SUM_FIELDS = tl.constexpr(configs.SUM_FIELDS["exponential"])

LEAST_EXPONENT = tl.constexpr(126)
"""Of a float32, as it is stored: of 1/2."""

MOST_EXPONENTS = tl.constexpr(configs.SUM_BITS * configs.SUM_FIELDS["exponential"])

LEAST_REACH = tl.constexpr(2.0**-94)
ROUNDING = tl.constexpr(2.0**-4)
"""Of the greatest similarity: more than products in any precision are off."""

HIGHEST = tl.constexpr(2**63 - 1)


@triton.jit
def linear_scale(bound, threshold):
    """Units of a linear sum in 1: a power of two, 0-d float32."""
    reach = tl.maximum(tl.maximum(bound - threshold, 0.0) + bound * ROUNDING, LEAST_REACH)
    exponent = (reach.to(tl.int32, bitcast=True) >> 23) - 126
    return ((127 + 31 - exponent) << 23).to(tl.float32, bitcast=True)


@triton.jit
def add_totals(sums, anchor, inside, length, total, scale, KIND: tl.constexpr):
    """Add totals float32 of anchors int32 to sums int64 [fields, length]; scale: of the linear."""
    if KIND == LINEAR:
        units = (total * scale).to(tl.int64)
        tl.atomic_add(sums + anchor, units, mask=inside & (units > 0), sem="relaxed")
    else:
        bits = total.to(tl.int32, bitcast=True)
        position = tl.minimum((bits >> 23) - LEAST_EXPONENT, MOST_EXPONENTS - 1)
        field = position // SUM_BITS
        digits = ((bits & 0x7FFFFF) | 0x800000).to(tl.int64)
        units = digits << (position - field * SUM_BITS).to(tl.int64)
        place = field.to(tl.int64) * length + anchor
        tl.atomic_add(sums + place, units, mask=inside & (position >= 0), sem="relaxed")


@triton.jit
def read_totals(sums, anchor, inside, length, scale, KIND: tl.constexpr):
    """Sums of anchors as float32."""
    first = tl.load(sums + anchor, mask=inside, other=0).to(tl.float32)
    if KIND == LINEAR:
        return tl.div_rn(first, scale)
    else:
        unit = 2.0**-24
        total = first * unit
        for field in tl.static_range(1, SUM_FIELDS):
            place = tl.cast(length, tl.int64) * field + anchor
            unit *= 2.0**SUM_BITS
            total += tl.load(sums + place, mask=inside, other=0).to(tl.float32) * unit
        return total


@triton.jit
def raise_tops(tops, anchor, inside, key, ties):
    """Merge what a tile knows of anchors, int32 keys and numbers of negatives, into `tops`."""
    here = (key.to(tl.int64) << 32) | ties.to(tl.int64)
    # A compare-and-swap has no mask: who has nothing to say swaps a value for itself, or none.
    place = tops + tl.where(inside, anchor, 0)
    known = tl.load(place, mask=inside, other=HIGHEST, cache_modifier=".cg")
    left = inside & (ties > 0) & (key >= (known >> 32).to(tl.int32))
    while tl.max(left.to(tl.int32), 0) > 0:
        merged = tl.where(key == (known >> 32).to(tl.int32), known + ties, here)
        before = tl.atomic_cas(place, known, tl.where(left, merged, known), sem="relaxed")
        left &= (before != known) & (key >= (before >> 32).to(tl.int32))
        known = before
