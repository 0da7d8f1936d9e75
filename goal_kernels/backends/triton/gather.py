# mypy: allow-untyped-defs, allow-untyped-decorators
"""Both gradients in one Triton kernel: every gradient row gathers its weighted source rows."""

from __future__ import annotations

import triton
import triton.language as tl

from goal_kernels.backends.triton.hubs import add_pieces, inner_pieces
from goal_kernels.backends.triton.terms import OWN_TERMS, add_list, add_terms, first_terms
from goal_kernels.constants import SHORTEST_LENGTH

CONSTANT_SCALE = tl.constexpr(1.0 / SHORTEST_LENGTH)


@triton.jit
def gradient_row(
    out,
    grad_loss,
    own,
    source,
    state,
    hubs,
    row,
    width,
    part,
    NORMALIZE: tl.constexpr,
    HUB: tl.constexpr,
    COUNT: tl.constexpr,
    FIRST: tl.constexpr,
    SIDE: tl.constexpr,
):
    """Write one slice of gradient row `row` of a side; own: the `source` tuple of that side."""
    vectors, hardest, length = state
    element, inside = part
    span = tl.load(hardest + (4 + SIDE) * length + row)
    first = span >> 32
    last = span & 0xFFFFFFFF
    begin = last
    end = last
    if HUB > 0:
        begin, end = inner_pieces(first, last, HUB)
    head = tl.minimum(first + (FIRST - OWN_TERMS), begin)
    terms = first_terms(state, row, first, head, FIRST, NORMALIZE, SIDE)
    sums = tl.zeros(element.shape, tl.float32), 0.0
    sums = add_terms(sums, terms, source, part)
    sums = add_list(sums, head, begin, state, source, part, COUNT, NORMALIZE, SIDE)
    if HUB > 0:
        piece = SIDE * tl.cdiv(length, HUB) + begin // HUB
        behind = piece + (end - begin) // HUB
        sums = add_pieces(sums, hubs, piece, behind, width, part, COUNT, NORMALIZE)
        sums = add_list(sums, end, last, state, source, part, COUNT, NORMALIZE, SIDE)
    total, projection = sums
    if NORMALIZE:
        scale = tl.load(vectors + (6 + SIDE) * length + row)
        unit = tl.load(own[0] + row * own[1] + element, mask=inside, other=0.0).to(tl.float32)
        # The scale of a very short row is a constant, whose derivative projects nothing.
        along = tl.where(scale < CONSTANT_SCALE, projection * scale, 0.0)
        total = scale * (total - along * unit)
    total *= tl.load(grad_loss)
    tl.store(out + row * width + element, total.to(out.dtype.element_ty), mask=inside)


@triton.jit
def gather_kernel(
    grad_image,
    grad_text,
    grad_loss,
    image,
    text,
    vectors,
    hardest,
    hub_sums,
    hub_projections,
    skipped,
    batch,
    width,
    image_stride,
    text_stride,
    NORMALIZE: tl.constexpr,
    HUB: tl.constexpr,
    COUNT: tl.constexpr,
    FIRST: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
):
    """One slice of one gradient row per program: `batch` of images, then of texts.

    grad_image, grad_text [batch, width]: contiguous; rows before `skipped` are not written.
    grad_loss: float32 0-d. image, text [batch, width]: unit stride along width. vectors float32
    [6 or 8, batch], hardest int64 [6, batch]: as in `Forward`; for normalised rows (NORMALIZE) the
    gradient is that of the raw rows. hub_sums, hub_projections: what `hub_kernel` left for pieces
    of HUB entries, None when HUB is 0.
    """
    row = tl.program_id(0).to(tl.int64) + skipped
    element = tl.program_id(1) * BLOCK_WIDTH + tl.arange(0, BLOCK_WIDTH)
    part = element, element < width
    state = vectors, hardest, tl.cast(batch, tl.int64)
    hubs = hub_sums, hub_projections
    images = image, image_stride, batch
    texts = text, text_stride, batch
    if row < batch:
        gradient_row(
            *(grad_image, grad_loss, images, texts, state, hubs, row, width, part),
            *(NORMALIZE, HUB, COUNT, FIRST, 0),
        )
    else:
        gradient_row(
            *(grad_text, grad_loss, texts, images, state, hubs, row - batch, width, part),
            *(NORMALIZE, HUB, COUNT, FIRST, 1),
        )
