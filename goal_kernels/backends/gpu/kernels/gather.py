# mypy: allow-untyped-defs, allow-untyped-decorators
"""Gradients: inverse lists, sums of long lists ahead, and one kernel that gathers every row.

A gradient row is a sum of *terms*: its hardest negative, its positive, and the *inverse list* of
the anchors whose hardest negative it is. Weights and indices are read where a forward left them.
Sums are float32 in an order that the terms alone decide.

A list is a *span* of an *order*: order int64 [E] holds entries grouped by the item they mined, each
group ascending; span int64 [R] holds start << 32 | end of the group of every item. Entries that
mined nothing stand behind the last group. `weigh_kernel` counts the places of small batches,
`fill_lists` sorts larger ones. Nothing here synchronises with the device.

Some items are mined by thousands of anchors. A *piece* is a run of PIECE entries of an order that
starts at a multiple of PIECE. `long_list_kernel` sums the pieces that lie inside one list, of many
programs each a piece; a list adds them up, and its ragged ends.

Tuples that the functions share:
    state   (vectors, hardest, length): pointers to what `Forward` holds, rows `length` int64 apart
    source  (pointer, stride, rows): embeddings that are added up
    part    (element, inside): int32 and bool [BLOCK_WIDTH], the slice of a row
    sums    (total, projection): float32 [BLOCK_WIDTH] and 0-d, see `add_terms`
    pieces  (sums, projections): pointers to what `long_list_kernel` writes
SIDE is 0 for the gradient rows of images, whose sources are texts, and 1 for those of texts.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from goal_kernels.backends.answers import VECTORS
from goal_kernels.backends.gpu import configs, runtime
from goal_kernels.backends.gpu.configs import (
    LAUNCH_OPTIONS,
    LIST_BLOCK,
    LIST_ROWS,
    WARPS,
    GatherShape,
    gather_shape,
)
from goal_kernels.backends.gpu.kernels.common import COUNTS
from goal_kernels.constants import SHORTEST_LENGTH

LAST = tl.constexpr(2**31 - 1)


@triton.jit
def place_keys(index, position, inside, batch):
    """int32 keys that sort entries by (item mined, position); one that mined nothing comes last.

    index int32, -1 for none. Outside a batch: behind everything.
    """
    item = tl.where(index >= 0, index, batch)
    return tl.where(inside, item * batch + position, LAST)


@triton.jit
def store_list(order, span, anchor, inside, counted, batch, BLOCK: tl.constexpr):
    """Write the part of an inverse list that a block of anchors knows.

    counted: sums of what `count_entries` counts, [BLOCK] twice and 0-d. order, span: pointers to
    int64 [batch].
    """
    place, start, stop = counted
    tl.store(order + place, anchor.to(tl.int64), mask=inside)
    # A list ends where the next one starts; the last of the block ends at `stop`.
    position = tl.arange(0, BLOCK)
    following = position[None, :] == position[:, None] + 1
    end = tl.sum(tl.where(following, start[None, :], 0), 1)
    end = tl.where(position == BLOCK - 1, stop, end)
    tl.store(span + anchor, (start.to(tl.int64) << 32) | end.to(tl.int64), mask=inside)


@triton.jit
def count_less(count, left, right):
    """count + (left < right), int32, for left and right in [0, 2^31): two instructions, not three.

    The sign of their difference is the answer.
    """
    return count + ((left - right).to(tl.uint32, bitcast=True) >> 31).to(tl.int32)


@triton.jit
def count_entries(counts, keys, own, anchor, batch, BLOCK: tl.constexpr):
    """Count the entries of a chunk that stand before those of the block, and before its lists.

    counts: int32 [BLOCK, CHUNK] twice, and [CHUNK] before the lists of the next block; keys [CHUNK]
    and own [BLOCK]: of `place_keys`.
    """
    place, start, stop = counts
    place = count_less(place, keys[None, :], own[:, None])
    start = count_less(start, keys[None, :], (anchor * batch)[:, None])
    return place, start, count_less(stop, keys, (tl.min(anchor, 0) + BLOCK) * batch)


@triton.jit
def sum_pair(left, right):
    """Sums along axis 1 of counters int32 [BLOCK, CHUNK], each sum below 2^15: one reduction."""
    both = tl.sum(left + (right << 16), 1)
    return both & 0xFFFF, both >> 16


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


@triton.jit
def inner_pieces(first, last, PIECE: tl.constexpr):
    """Where the pieces inside a list begin and end; (last, last) if there is none."""
    begin = tl.cdiv(first, PIECE) * PIECE
    end = last // PIECE * PIECE
    found = begin < end
    return tl.where(found, begin, last), tl.where(found, end, last)


@triton.jit
def add_pieces(
    sums, pieces, first, last, width, part, COUNT: tl.constexpr, NORMALIZE: tl.constexpr
):
    """Add pieces first to last that `long_list_kernel` summed, COUNT at a time."""
    total, projection = sums
    piece_sums, piece_projections = pieces
    element, inside = part
    for start in range(first, last, COUNT):
        piece = start + tl.arange(0, COUNT)
        found = piece < last
        mask = found[:, None] & inside[None, :]
        places = piece_sums + piece[:, None] * width + element[None, :]
        total += tl.sum(tl.load(places, mask=mask, other=0.0), 0)
        if NORMALIZE:
            projection += tl.sum(tl.load(piece_projections + piece, mask=found, other=0.0), 0)
    return total, projection


@triton.jit
def sum_piece(
    piece,
    pieces,
    source,
    state,
    width,
    part,
    NORMALIZE: tl.constexpr,
    PIECE: tl.constexpr,
    COUNT: tl.constexpr,
    SIDE: tl.constexpr,
):
    """Sum one piece of an order, if it lies inside one list."""
    _, hardest, length = state
    element, inside = part
    first = piece * PIECE
    last = first + PIECE
    if last <= length:
        order = hardest + (2 + SIDE) * length + first
        mined = hardest + (1 - SIDE) * length
        item = tl.load(mined + tl.load(order))
        if (item >= 0) & (item == tl.load(mined + tl.load(order + PIECE - 1))):
            piece_sums, piece_projections = pieces
            sums = tl.zeros(element.shape, tl.float32), 0.0
            sums = add_list(sums, first, last, state, source, part, COUNT, NORMALIZE, SIDE)
            place = SIDE * tl.cdiv(length, PIECE) + piece
            tl.store(piece_sums + place * width + element, sums[0], mask=inside)
            if NORMALIZE:
                tl.store(piece_projections + place, sums[1])


@triton.jit(do_not_specialize=COUNTS)
def long_list_kernel(
    piece_sums,
    piece_projections,
    image,
    text,
    vectors,
    hardest,
    length,
    width,
    image_stride,
    text_stride,
    NORMALIZE: tl.constexpr,
    PIECE: tl.constexpr,
    COUNT: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
):
    """Sum every piece that lies inside one list, for B = length images and texts.

    piece_sums: float32 [2 pieces, width], piece_projections: float32 [2 pieces] (NORMALIZE),
    pieces = ceil(B / PIECE), of images, then of texts; others as in `gather_kernel`.
    """
    state = vectors, hardest, tl.cast(length, tl.int64)
    pieces = piece_sums, piece_projections
    count = tl.cdiv(length, PIECE)
    piece = tl.program_id(0).to(tl.int64)
    element = tl.program_id(1) * BLOCK_WIDTH + tl.arange(0, BLOCK_WIDTH)
    part = element, element < width
    if piece < count:
        texts = text, text_stride, length
        sum_piece(piece, pieces, texts, state, width, part, NORMALIZE, PIECE, COUNT, 0)
    else:
        images = image, image_stride, length
        sum_piece(piece - count, pieces, images, state, width, part, NORMALIZE, PIECE, COUNT, 1)


CONSTANT_SCALE = tl.constexpr(1.0 / SHORTEST_LENGTH)


@triton.jit
def gradient_row(
    out,
    grad_loss,
    own,
    source,
    state,
    pieces,
    row,
    width,
    part,
    NORMALIZE: tl.constexpr,
    PIECE: tl.constexpr,
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
    if PIECE > 0:
        begin, end = inner_pieces(first, last, PIECE)
    head = tl.minimum(first + (FIRST - OWN_TERMS), begin)
    terms = first_terms(state, row, first, head, FIRST, NORMALIZE, SIDE)
    sums = tl.zeros(element.shape, tl.float32), 0.0
    sums = add_terms(sums, terms, source, part)
    sums = add_list(sums, head, begin, state, source, part, COUNT, NORMALIZE, SIDE)
    if PIECE > 0:
        piece = SIDE * tl.cdiv(length, PIECE) + begin // PIECE
        behind = piece + (end - begin) // PIECE
        sums = add_pieces(sums, pieces, piece, behind, width, part, COUNT, NORMALIZE)
        sums = add_list(sums, end, last, state, source, part, COUNT, NORMALIZE, SIDE)
    total, projection = sums
    if NORMALIZE:
        scale = tl.load(vectors + (6 + SIDE) * length + row)
        unit = tl.load(own[0] + row * own[1] + element, mask=inside, other=0.0).to(tl.float32)
        # A row too short to normalise has no direction and gets no gradient.
        total = tl.where(scale < CONSTANT_SCALE, scale * (total - projection * scale * unit), 0.0)
    total *= tl.load(grad_loss)
    tl.store(out + row * width + element, total.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=COUNTS)
def gather_kernel(
    grad_image,
    grad_text,
    grad_loss,
    image,
    text,
    vectors,
    hardest,
    piece_sums,
    piece_projections,
    skipped,
    batch,
    width,
    image_stride,
    text_stride,
    NORMALIZE: tl.constexpr,
    PIECE: tl.constexpr,
    COUNT: tl.constexpr,
    FIRST: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
):
    """One slice of one gradient row per program: `batch` of images, then of texts.

    grad_image, grad_text [batch, width]: contiguous; rows before `skipped` are not written.
    grad_loss: float32 0-d. image, text [batch, width]: unit stride along width. vectors float32
    [6 or 8, batch], hardest int64 [6, batch]: as in `Forward`; for normalised rows (NORMALIZE) the
    gradient is that of the raw rows. piece_sums, piece_projections: what `long_list_kernel` left,
    None when PIECE is 0.
    """
    row = tl.program_id(0).to(tl.int64) + skipped
    element = tl.program_id(1) * BLOCK_WIDTH + tl.arange(0, BLOCK_WIDTH)
    part = element, element < width
    state = vectors, hardest, tl.cast(batch, tl.int64)
    pieces = piece_sums, piece_projections
    images = image, image_stride, batch
    texts = text, text_stride, batch
    if row < batch:
        gradient_row(
            *(grad_image, grad_loss, images, texts, state, pieces, row, width, part),
            *(NORMALIZE, PIECE, COUNT, FIRST, 0),
        )
    else:
        gradient_row(
            *(grad_text, grad_loss, texts, images, state, pieces, row - batch, width, part),
            *(NORMALIZE, PIECE, COUNT, FIRST, 1),
        )


@triton.jit
def count_below(ordered, bound, length, steps):
    """How many of the ascending int32 ordered [length] are below bound: int32, its shape.

    steps: binary digits of length.
    """
    found = tl.zeros(bound.shape, tl.int32)
    for step in range(steps):
        probe = found + (1 << (steps - 1 - step))
        value = tl.load(ordered + probe - 1, mask=probe <= length, other=0)
        found = tl.where((probe <= length) & (value < bound), probe, found)
    return found


@triton.jit(do_not_specialize=COUNTS)
def list_kernel(hardest, ordered, order, batch, steps, BLOCK: tl.constexpr):
    """Rows 2 to 5 of hardest int64 [6, batch] from its sorted rows 0 and 1.

    ordered int32 [2, batch]: the rows ascending, -1 first; order int64 [2, batch]: positions of the
    entries before. Program (p, side) writes a block of the lists of images (0) or of texts (1).
    """
    side = tl.program_id(1)
    length = tl.cast(batch, tl.int64)
    # The list of an image holds texts, those that mined it.
    ordered += (1 - side) * length
    order += (1 - side) * length
    item = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = item < batch
    absent = count_below(ordered, tl.zeros_like(item), batch, steps)
    place = item + absent
    entry = tl.load(order + tl.where(place < batch, place, place - batch), mask=inside)
    tl.store(hardest + (2 + side) * length + item, entry, mask=inside)
    start = (count_below(ordered, item, batch, steps) - absent).to(tl.int64)
    end = (count_below(ordered, item + 1, batch, steps) - absent).to(tl.int64)
    tl.store(hardest + (4 + side) * length + item, (start << 32) | end, mask=inside)


def fill_lists(hardest: Tensor) -> None:
    """Write rows 2 to 5 of int64 [2 + LIST_ROWS, B] from rows 0 and 1: a sort and `list_kernel`."""
    batch = hardest.shape[1]
    ordered, order = hardest[:2].int().sort(dim=1, stable=True)
    list_kernel[(-(-batch // LIST_BLOCK), 2)](
        hardest,
        ordered,
        order,
        batch,
        batch.bit_length(),
        BLOCK=LIST_BLOCK,
        num_warps=WARPS,
        **LAUNCH_OPTIONS,
    )


def with_lists(hardest: Tensor) -> Tensor:
    """`Forward.hardest` with its lists, [2 + LIST_ROWS, B]; itself where it has them."""
    if hardest.shape[0] == 2 + LIST_ROWS:
        return hardest.contiguous()
    full = hardest.new_empty((2 + LIST_ROWS, hardest.shape[1]))
    full[:2] = hardest
    fill_lists(full)
    return full


Gradients = tuple[Tensor | None, Tensor | None]


def gather(
    grad_loss: Tensor,
    embeddings: tuple[Tensor, Tensor],
    vectors: Tensor,
    hardest: Tensor,
    need: tuple[bool, bool],
) -> Gradients:
    """Gradients of images and texts [B, D] from what a forward left.

    Args: as in `Backend.backward`; rows of unit inner stride; hardest with its lists. One launch,
        and one more before it when B is above SMALL.
    """
    batch, width = embeddings[0].shape
    small = batch <= configs.SMALL
    shape = gather_shape(width, embeddings[0].element_size(), small)
    pieces: tuple[Tensor | None, Tensor | None] = (None, None)
    if not small:
        pieces = _sum_pieces(embeddings, vectors, hardest, shape)
    return _gather(grad_loss, embeddings, (vectors, hardest), pieces, need, shape)


def _sum_pieces(
    embeddings: tuple[Tensor, Tensor], vectors: Tensor, hardest: Tensor, shape: GatherShape
) -> tuple[Tensor, Tensor | None]:
    """Run `long_list_kernel`; sums of pieces, and their projections if rows are normalised."""
    image, text = embeddings
    batch, width = image.shape
    normalized = len(vectors) > VECTORS
    pieces = 2 * -(-batch // configs.PIECE)
    sums = vectors.new_empty((pieces, width))
    projections = vectors.new_empty(pieces) if normalized else None
    long_list_kernel[(pieces, -(-width // shape.width))](
        sums,
        projections,
        image,
        text,
        vectors,
        hardest,
        batch,
        width,
        image.stride(0),
        text.stride(0),
        NORMALIZE=normalized,
        PIECE=configs.PIECE,
        COUNT=shape.count,
        BLOCK_WIDTH=shape.width,
        num_warps=shape.warps,
        **LAUNCH_OPTIONS,
    )
    return sums, projections


def _gather(
    grad_loss: Tensor,
    embeddings: tuple[Tensor, Tensor],
    state: tuple[Tensor, Tensor],
    pieces: tuple[Tensor | None, Tensor | None],
    need: tuple[bool, bool],
    shape: GatherShape,
) -> Gradients:
    """Run `gather_kernel`; state: vectors and hardest."""
    if not any(need):
        return None, None
    image, text = embeddings
    batch, width = image.shape
    # The interpreter truncates to bfloat16 instead of rounding, so there torch does the rounding.
    stored = torch.float32 if runtime.interpreting() else image.dtype
    outputs = [
        torch.empty(side.shape, dtype=stored, device=image.device) if wanted else None
        for side, wanted in zip(embeddings, need, strict=True)
    ]
    programs = sum(need) * batch
    gather_kernel[(programs, -(-width // shape.width))](
        # The kernel never writes to the stand-in of a gradient that is not wanted.
        outputs[0] if need[0] else outputs[1],
        outputs[1] if need[1] else outputs[0],
        grad_loss,
        image,
        text,
        *state,
        *pieces,
        0 if need[0] else batch,
        batch,
        width,
        image.stride(0),
        text.stride(0),
        NORMALIZE=len(state[0]) > VECTORS,
        PIECE=0 if pieces[0] is None else configs.PIECE,
        COUNT=shape.count,
        FIRST=shape.first,
        BLOCK_WIDTH=shape.width,
        num_warps=shape.warps,
        **LAUNCH_OPTIONS,
    )
    grad_image, grad_text = (None if out is None else out.to(image.dtype) for out in outputs)
    return grad_image, grad_text
