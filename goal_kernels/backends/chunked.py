"""The `chunked` backend: plain torch on any device, one block of rows of the matrix at a time.

Each block is a matrix product of the vendor's library into one buffer, which is scanned before the
next block takes its place. Memory is O(B) and BLOCK rows of the matrix. It serves every device,
dtype and precision that torch has, and is what `auto` takes where no native kernel can: on Apple,
Intel and AMD devices, NVIDIA before sm_80, for float64 on GPUs, on a CPU without the extension.

What makes a scan cheap is that torch takes maxima (`amax`) ten times as fast as their places
(`argmax`). So maxima of segments are taken first, and places are looked for in one segment of each
anchor only. Nothing waits for the device, and every sum has one order.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from goal_kernels.backends.answers import Mined, MinedTopK
from goal_kernels.backends.base import Pairing, RelativeQuery, TopKQuery
from goal_kernels.backends.candidates import NEGATIVE_INFINITY, SEGMENT, exclude
from goal_kernels.backends.reference import ReferenceBackend, matmul_precision
from goal_kernels.backends.torch_top_k import rescore, search_blocks
from goal_kernels.constants import NO_INDEX
from goal_kernels.pairs import cut

BLOCK = 512
"""Rows of a block: enough for the product to run at full speed (256 cost 3 % more on a CPU)."""

GROUP = 16
"""Rows of a group; a column's largest element is looked for in one."""


class ChunkedBackend(ReferenceBackend):
    """The reference with the matrix made and scanned block by block."""

    name = "chunked"

    def _mine(
        self, image: Tensor, text: Tensor, pairing: Pairing, relative: RelativeQuery
    ) -> Mined:
        return mine_blocks(image, text, pairing, relative)

    def top_k(self, queries: Tensor, corpus: Tensor, query: TopKQuery) -> MinedTopK:
        rough = queries.dtype == torch.float32 and query.precision != "highest"
        with matmul_precision(query.precision if rough else "highest"):
            found = search_blocks(queries, corpus, query)
        return rescore(queries, corpus, found, query.normalize) if rough else found


class _Best(NamedTuple):
    """Largest element so far of some anchors, NaN above all, and where it is; -inf and -1: none."""

    value: Tensor
    place: Tensor


class _Sums(NamedTuple):
    """Over the elements S >= threshold of some anchors whose largest element is n.

    total: kind "linear": of S - threshold; "exponential": of exp(beta (S - n)), one largest element
        left out. number: how many, and ties: of those equal to n, as floats of the accumulate
        dtype, which count exactly beyond any batch.
    """

    total: Tensor
    number: Tensor
    ties: Tensor


def mine_blocks(image: Tensor, text: Tensor, pairing: Pairing, relative: RelativeQuery) -> Mined:
    """`Mined` of the products of image [N, D] and text [M, D], in their dtype."""
    rows, columns = image.shape[0], text.shape[0]
    height = min(BLOCK, -(-rows // GROUP) * GROUP)
    width = -(-columns // SEGMENT) * SEGMENT
    summing = relative.kind != "none"
    diagonal = pairing.target is None and pairing.image_ids is None
    score, *scratch = image.new_empty((3 if summing else 1, height, width)).unbind()
    score[:, columns:] = NEGATIVE_INFINITY
    best = _Best(
        image.new_full((width,), NEGATIVE_INFINITY),
        torch.full((width,), NO_INDEX, dtype=torch.int64, device=image.device),
    )
    sums = _Sums(*image.new_zeros(3, width).unbind())
    row_best, row_sums = [], []
    for part in cut(rows, BLOCK):
        start, size = part.start, part.stop - part.start
        tall = -(-size // GROUP) * GROUP
        tile = score[:tall]
        tile[size:] = NEGATIVE_INFINITY
        allowed = tile[:size, :columns]
        torch.mm(image[part], text.T, out=allowed)
        if not diagonal:
            # An element of -inf is a negative all the same: only what is excluded may be lower.
            allowed.clamp_(min=torch.finfo(score.dtype).min)
        exclude(allowed, part, pairing)
        own = _best_of_rows(tile)
        both, improved = _better_of_columns(tile, start, best)
        if summing:
            scan = _Scan(tile, scratch[0][:tall], scratch[1][:tall], relative)
            row_sums.append(scan.rows(own))
            here = torch.where(improved, both.place - start, NO_INDEX)
            found = scan.columns(_Best(both.value, here))
            sums = _joined(sums, found, best, both, improved, relative)
        row_best.append(_Best(*(x[:size] for x in own)))
        best = both
    row = _Best(*(torch.cat(x) for x in zip(*row_best, strict=True)))
    column = _Best(*(x[:columns] for x in best))
    settled = *_settled(row, columns, diagonal), *_settled(column, rows, diagonal)
    if not summing:
        nothing = score.new_empty(0), row.place.new_empty(0)
        return Mined(*settled, *nothing, *nothing)
    row_total = _Sums(*(torch.cat(x)[:rows] for x in zip(*row_sums, strict=True)))
    column_total = _Sums(*(x[:columns] for x in sums))
    return Mined(
        *settled,
        *_finished(row, row_total, relative),
        *_finished(column, column_total, relative),
    )


def _best_of_rows(tile: Tensor) -> _Best:
    """Of every row, the lowest column on ties. tile: [rows, segments * SEGMENT], contiguous."""
    segments = tile.view(len(tile), -1, SEGMENT)
    value, segment = segments.amax(dim=2).max(dim=1, keepdim=True)
    inside = segments.gather(1, segment[:, :, None].expand(-1, 1, SEGMENT))[:, 0]
    index = segment[:, 0] * SEGMENT + inside.max(dim=1).indices
    return _Best(value[:, 0], index.masked_fill(value[:, 0] == NEGATIVE_INFINITY, NO_INDEX))


def _better_of_columns(tile: Tensor, start: int, best: _Best) -> tuple[_Best, Tensor]:
    """`best` of every column with this block, whose first row is `start`; and which improved.

    The lowest row on ties.
    """
    groups = tile.view(-1, GROUP, tile.shape[1])
    maxima = groups.amax(dim=1)
    value = maxima.amax(dim=0)
    improved = (value > best.value) | (value.isnan() & ~best.value.isnan())
    # Later blocks improve few columns; but to ask which would be to wait for a GPU.
    column = torch.arange(len(value), device=tile.device)
    if tile.is_cpu:
        column = column[improved]
    group = maxima[:, column].max(dim=0).indices
    inside = groups[group, :, column].max(dim=1).indices
    place = torch.where(improved[column], start + group * GROUP + inside, best.place[column])
    better = torch.where(improved, value, best.value)
    return _Best(better, best.place.index_copy(0, column, place)), improved


class _Scan:
    """The relative sums of one block, one direction after the other."""

    def __init__(self, tile: Tensor, over: Tensor, term: Tensor, relative: RelativeQuery) -> None:
        self.tile, self.over, self.term, self.relative = tile, over, term, relative
        torch.ge(tile, relative.threshold, out=over)
        self.counts = over.sum(dim=1), over.sum(dim=0)
        if relative.kind == "linear":
            torch.sub(tile, relative.threshold, out=term).clamp_(min=0)
            self.totals = term.sum(dim=1), term.sum(dim=0)

    def rows(self, best: _Best) -> _Sums:
        """best: of the rows of this block."""
        return self._sums(1, best.value[:, None], best.place[:, None])

    def columns(self, best: _Best) -> _Sums:
        """best: of the columns; its place counts from the block's first row, -1: not in it."""
        return self._sums(0, best.value[None], best.place[None])

    def _sums(self, dim: int, value: Tensor, index: Tensor) -> _Sums:
        term, count = self.term, self.counts[1 - dim]
        if self.relative.kind == "linear":
            torch.eq(self.tile, value, out=self.over)
            return _Sums(self.totals[1 - dim], count, self.over.sum(dim=dim))
        torch.sub(self.tile, value.masked_fill(value == NEGATIVE_INFINITY, 0.0), out=term)
        _powers(term, self.relative.beta).mul_(self.over)
        place = index.clamp(min=0)
        left = term.gather(dim, place).masked_fill(index >= 0, 0.0)
        term.scatter_(dim, place, left)
        return _Sums(term.sum(dim=dim), count, torch.zeros_like(count))


def _powers(exponent: Tensor, beta: float) -> Tensor:
    """exp(beta x) of every x <= 0, in place: powers of two are cheaper.

    Not below the smallest normal number, which is where processors become slow.
    """
    smallest = math.log2(torch.finfo(exponent.dtype).tiny)
    return exponent.mul_(beta * math.log2(math.e)).clamp_(min=smallest).exp2_()


def _joined(
    before: _Sums, block: _Sums, old: _Best, new: _Best, improved: Tensor, relative: RelativeQuery
) -> _Sums:
    """Column sums up to this block. old, new: largest elements before it and with it."""
    if relative.kind == "linear":
        ties = torch.where(improved, 0.0, before.ties) + block.ties
        return _Sums(before.total + block.total, before.number + block.number, ties)
    # The old largest element joins the sum that it was left out of.
    joins = ((old.place >= 0) & (old.value >= relative.threshold)).to(before.total.dtype)
    shrink = _powers(torch.where(improved, old.value - new.value, 0.0), relative.beta)
    total = torch.where(improved, (before.total + joins) * shrink, before.total)
    return _Sums(total + block.total, before.number + block.number, before.ties)


def _settled(best: _Best, others: int, diagonal: bool) -> _Best:
    """Value and index where an element of -inf is a negative too.

    Args: others: number of candidates. diagonal: only anchor i and candidate i exclude each other.
    """
    value, place = best
    if diagonal:
        first = (torch.arange(len(value), device=value.device) == 0).to(torch.int64)
        return _Best(value, place.where((value != NEGATIVE_INFINITY) | (first >= others), first))
    lowest = value == torch.finfo(value.dtype).min  # it was clamped
    return _Best(value.masked_fill(lowest, NEGATIVE_INFINITY), place)


def _finished(best: _Best, sums: _Sums, relative: RelativeQuery) -> tuple[Tensor, Tensor]:
    """`row_sum` and `row_count` of `Mined`, or those of the columns."""
    n, zero = best.value, torch.zeros_like(best.value)
    if relative.kind == "linear":
        # The ties count in neither if they lie below the threshold.
        count = torch.where(n.isnan(), zero, sums.number - sums.ties).clamp(min=0)
        total = sums.number * (n - relative.threshold) - sums.total
        total = torch.where(n == math.inf, n, total)  # inf - inf
    else:
        count = sums.number - ((best.place >= 0) & (n >= relative.threshold)).to(n.dtype)
        total = sums.total
    return torch.where(count > 0, total, zero), count.to(torch.int64)
