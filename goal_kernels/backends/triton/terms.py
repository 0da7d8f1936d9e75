# mypy: allow-untyped-defs, allow-untyped-decorators
"""Terms of gradient rows in Triton, and their sum.

A gradient row is a sum of *terms*: its hardest negative, its positive, and a list of those whose
hardest negative it is. Weights and indices are read where a forward left them. Sums are float32 in
an order that the terms alone decide.

Tuples that the functions share:
    state   (vectors, hardest, length): pointers to what `Forward` holds, rows `length` int64 apart
    source  (pointer, stride, rows): embeddings that are added up
    part    (element, inside): int32 and bool [BLOCK_WIDTH], the slice of a row
    sums    (total, projection): float32 [BLOCK_WIDTH] and 0-d, see `add_terms`
SIDE is 0 for the gradient rows of images, whose sources are texts, and 1 for those of texts.
"""

from __future__ import annotations

import triton
import triton.language as tl

OWN_TERMS = tl.constexpr(2)


@triton.jit
def add_terms(sums, terms, source, part):
    """Add the source rows of the terms, and what they contribute to <gradient row, own row>.

    terms: index int64, weight and projection float32, [COUNT] each; a term whose index is not that
    of a row is absent, whatever its weight.
    """
    total, projection = sums
    index, weight, projected = terms
    pointer, stride, rows = source
    element, inside = part
    present = (index >= 0) & (index < rows)
    values = tl.load(
        pointer + index[:, None] * stride + element[None, :],
        mask=present[:, None] & inside[None, :],
        other=0.0,
    )
    weight = tl.where(present, weight, 0.0)
    total += tl.sum(weight[:, None] * values.to(tl.float32), 0)
    return total, projection + tl.sum(tl.where(present, projected, 0.0), 0)


@triton.jit
def finish_terms(
    vectors, length, index, weight, value_place, NORMALIZE: tl.constexpr, SIDE: tl.constexpr
):
    """Terms of sources at `index`, -1 for absent ones, given their weights.

    Of normalised rows the similarities that a projection needs are the mined ones, and the sources
    are raw rows with scales.
    """
    present = index >= 0
    projected = tl.zeros_like(weight)
    if NORMALIZE:
        projected = weight * tl.load(vectors + value_place, mask=present, other=0.0)
        weight *= tl.load(vectors + (7 - SIDE) * length + index, mask=present, other=0.0)
    return index, weight, projected


@triton.jit
def list_terms(
    state, first, last, COUNT: tl.constexpr, NORMALIZE: tl.constexpr, SIDE: tl.constexpr
):
    """The terms at list positions first to last, at most COUNT."""
    vectors, hardest, length = state
    position = first + tl.arange(0, COUNT)
    listed = position < last
    entry = tl.load(hardest + (2 + SIDE) * length + position, mask=listed, other=-1)
    weight = tl.load(vectors + (5 - SIDE) * length + entry, mask=listed, other=0.0)
    value_place = (2 - SIDE) * length + entry
    return finish_terms(vectors, length, entry, weight, value_place, NORMALIZE, SIDE)


@triton.jit
def first_terms(
    state, row, first, last, COUNT: tl.constexpr, NORMALIZE: tl.constexpr, SIDE: tl.constexpr
):
    """The hardest negative and the positive of a row, and at most COUNT - 2 terms of its list.

    Together, because a load waits for the index before it: most lists are no longer than this.
    """
    vectors, hardest, length = state
    slot = tl.arange(0, COUNT)
    mined = slot == 0
    position = first + slot - OWN_TERMS
    listed = (slot >= OWN_TERMS) & (position < last)
    place = tl.where(mined, SIDE * length + row, (2 + SIDE) * length + position)
    index = tl.load(hardest + place, mask=mined | listed, other=-1)
    index = tl.where(slot == 1, row, index)
    place = tl.where(mined, (4 + SIDE) * length + row, (5 - SIDE) * length + index)
    place = tl.where(slot == 1, 3 * length + row, place)
    weight = tl.load(vectors + place, mask=listed | (slot < OWN_TERMS), other=0.0)
    weight = tl.where(slot == 1, -weight, weight)
    place = tl.where(mined, (1 + SIDE) * length + row, (2 - SIDE) * length + index)
    place = tl.where(slot == 1, row, place)
    return finish_terms(vectors, length, index, weight, place, NORMALIZE, SIDE)


@triton.jit
def add_list(
    sums,
    first,
    last,
    state,
    source,
    part,
    COUNT: tl.constexpr,
    NORMALIZE: tl.constexpr,
    SIDE: tl.constexpr,
):
    """Add the terms at list positions first to last, COUNT at a time."""
    for start in range(first, last, COUNT):
        terms = list_terms(state, start, last, COUNT, NORMALIZE, SIDE)
        sums = add_terms(sums, terms, source, part)
    return sums
