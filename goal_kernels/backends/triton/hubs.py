# mypy: allow-untyped-defs, allow-untyped-decorators
"""Long inverse lists in pieces, in Triton: of many programs each sums some entries beforehand.

Mined negatives have hubs: one image may be the hardest of thousands of texts. A *piece* is a run of
HUB entries of an order that starts at a multiple of HUB; a list adds up the pieces inside it and
the ragged ends. Tuples and SIDE are those of `terms`; hubs: pointers to what `hub_kernel` writes.
"""

from __future__ import annotations

import triton
import triton.language as tl

from goal_kernels.backends.triton.terms import add_list


@triton.jit
def inner_pieces(first, last, HUB: tl.constexpr):
    """Where the pieces inside a list begin and end; (last, last) if there is none."""
    begin = tl.cdiv(first, HUB) * HUB
    end = last // HUB * HUB
    found = begin < end
    return tl.where(found, begin, last), tl.where(found, end, last)


@triton.jit
def add_pieces(sums, hubs, first, last, width, part, COUNT: tl.constexpr, NORMALIZE: tl.constexpr):
    """Add pieces first to last that `hub_kernel` summed, COUNT at a time."""
    total, projection = sums
    hub_sums, hub_projections = hubs
    element, inside = part
    for start in range(first, last, COUNT):
        piece = start + tl.arange(0, COUNT)
        found = piece < last
        mask = found[:, None] & inside[None, :]
        places = hub_sums + piece[:, None] * width + element[None, :]
        total += tl.sum(tl.load(places, mask=mask, other=0.0), 0)
        if NORMALIZE:
            projection += tl.sum(tl.load(hub_projections + piece, mask=found, other=0.0), 0)
    return total, projection


@triton.jit
def sum_piece(
    piece,
    hubs,
    source,
    state,
    width,
    part,
    NORMALIZE: tl.constexpr,
    HUB: tl.constexpr,
    COUNT: tl.constexpr,
    SIDE: tl.constexpr,
):
    """Sum one piece of an order, if it lies inside one list."""
    _, hardest, length = state
    element, inside = part
    first = piece * HUB
    last = first + HUB
    if last <= length:
        order = hardest + (2 + SIDE) * length + first
        mined = hardest + (1 - SIDE) * length
        item = tl.load(mined + tl.load(order))
        if (item >= 0) & (item == tl.load(mined + tl.load(order + HUB - 1))):
            hub_sums, hub_projections = hubs
            sums = tl.zeros(element.shape, tl.float32), 0.0
            sums = add_list(sums, first, last, state, source, part, COUNT, NORMALIZE, SIDE)
            place = SIDE * tl.cdiv(length, HUB) + piece
            tl.store(hub_sums + place * width + element, sums[0], mask=inside)
            if NORMALIZE:
                tl.store(hub_projections + place, sums[1])


@triton.jit
def hub_kernel(
    hub_sums,
    hub_projections,
    image,
    text,
    vectors,
    hardest,
    length,
    width,
    image_stride,
    text_stride,
    NORMALIZE: tl.constexpr,
    HUB: tl.constexpr,
    COUNT: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
):
    """Sum every piece that lies inside one list, for B = length images and texts.

    hub_sums: float32 [2 pieces, width], hub_projections: float32 [2 pieces] (NORMALIZE), pieces =
    ceil(B / HUB), of images, then of texts; others as in `gather_kernel`.
    """
    state = vectors, hardest, tl.cast(length, tl.int64)
    hubs = hub_sums, hub_projections
    pieces = tl.cdiv(length, HUB)
    piece = tl.program_id(0).to(tl.int64)
    element = tl.program_id(1) * BLOCK_WIDTH + tl.arange(0, BLOCK_WIDTH)
    part = element, element < width
    if piece < pieces:
        texts = text, text_stride, length
        sum_piece(piece, hubs, texts, state, width, part, NORMALIZE, HUB, COUNT, 0)
    else:
        images = image, image_stride, length
        sum_piece(piece - pieces, hubs, images, state, width, part, NORMALIZE, HUB, COUNT, 1)
