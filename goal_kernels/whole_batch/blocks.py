"""The similarity matrix of a batch, one block of rows at a time, and gradients from its weights.

Plain torch on any device: a block is a product of the vendor's library, which a loss turns into
the weights dL/dS in place, and two more products turn into gradient rows. Rows are texts and
columns are images, as in `rectangular.py`: every text has one image at most.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from goal_kernels.backends.base import accumulate_dtype
from goal_kernels.backends.candidates import NEGATIVE_INFINITY, false_negative_limit
from goal_kernels.constants import CACHED_ELEMENTS
from goal_kernels.normalization import raw_gradient, row_scale, scaled_rows
from goal_kernels.pairs import owned
from goal_kernels.reference import sum_rows
from goal_kernels.weights import wide
from goal_kernels.whole_batch.products import (
    multiplies_fast,
    multiplies_wide,
    native_product,
    pair_products,
    similarities,
    wide_product,
)
from goal_kernels.whole_batch.shares import current_share

BLOCK, GPU_BLOCK = 512, 4096
"""Rows of a block on a CPU and elsewhere: enough for the product to run at full speed."""


class Question(NamedTuple):
    """What is asked of a batch beside the loss itself.

    target: int64 [M], the image of each text, none where out of range; None: text i has image i.
    row_ids, column_ids: int64 [M], [N] or None. exempt: bool [M] or None, texts that the limits
    never leave out. margin, ratio: candidates with S > p + margin or S > ratio p are left out as
    false negatives; infinity: none are. direction: "both", "i2t" or "t2i". normalize: divide rows
    by their length. counting: count what gets a weight.
    """

    target: Tensor | None
    row_ids: Tensor | None
    column_ids: Tensor | None
    exempt: Tensor | None
    margin: float
    ratio: float
    direction: str
    normalize: bool
    counting: bool

    @property
    def limited(self) -> bool:
        """Whether anything may be left out as a false negative."""
        return not (self.margin == self.ratio == math.inf)


class Side(NamedTuple):
    """The anchors of one direction.

    axis: 1 where anchors are rows (texts, t2i), 0 where they are columns (images, i2t).
    pairs: int64 [slots, anchors], numbers of the pairs of each anchor, -1 for none.
    positive: [slots, anchors], similarity of these pairs, infinity for none.
    limit: [anchors], largest similarity of a candidate, or None where nothing is left out.
    """

    axis: int
    pairs: Tensor
    positive: Tensor
    limit: Tensor | None

    def along(self, values: Tensor, part: slice) -> Tensor:
        """values [anchors] as they meet the rows `part` of the matrix: [rows, 1] or [1, N]."""
        return values[part, None] if self.axis == 1 else values[None]

    def place(self, part: slice) -> slice:
        """The anchors that the rows `part` of the matrix belong to."""
        return part if self.axis == 1 else slice(None)


class Batch:
    """Texts [M, D] as rows, images [N, D] as columns, the pairs among them and their candidates."""

    def __init__(self, rows: Tensor, columns: Tensor, question: Question) -> None:
        self.raw_rows, self.raw_columns = rows, columns
        self.share = current_share()
        self.part = self.share.part(len(rows))
        self.question = question
        self.dtype = accumulate_dtype(rows.dtype)
        self.scale_of_rows = row_scale(rows) if question.normalize else None
        self.scale_of_columns = row_scale(columns) if question.normalize else None
        # Factors of similarities: wide ones where the product would round, or rounded rows lose
        # what normalising them made.
        whole = rows.is_cuda or not question.normalize
        kept = rows.dtype if whole and multiplies_wide(rows) else self.dtype
        self.rows = scaled_rows(rows.to(kept), self.scale_of_rows)
        self.columns = scaled_rows(columns.to(kept), self.scale_of_columns)
        # Factors of gradients.
        thin = rows.dtype if multiplies_fast(rows) else kept
        self.thin_rows, self.thin_columns = self.rows.to(thin), self.columns.to(thin)
        count = len(columns)
        index = torch.arange(len(rows), device=rows.device)
        target = index if question.target is None else question.target
        self.exists = owned(target, count)
        self.own = target.clamp(0, count - 1)
        self.target = torch.where(self.exists, target, -1)
        self.positive = pair_products(self.rows, self.columns, question.target)
        by_rows = torch.where(self.exists, index, -1)[None]
        by_columns = by_rows if question.target is None else _slots(self.own, self.exists, count)
        self.sides = [
            self._side(axis, pairs)
            for axis, pairs, name in ((1, by_rows, "t2i"), (0, by_columns, "i2t"))
            if question.direction in ("both", name)
        ]
        self.skipped = [index.new_zeros(len(x)) for x in (rows, columns)]
        self.active = index.new_zeros(())

    def _side(self, axis: int, pairs: Tensor) -> Side:
        missing = pairs < 0
        positive = self.positive[pairs.clamp(min=0)].masked_fill(missing, math.inf)
        highest = positive.masked_fill(missing, NEGATIVE_INFINITY).amax(dim=0)
        question = self.question
        limit = None
        if question.limited:
            limit = false_negative_limit(highest, question.margin, question.ratio)
        return Side(axis, pairs, positive, limit)

    def blocks(
        self, within: slice | None = None, products: bool = True
    ) -> Iterator[tuple[slice, Tensor]]:
        """Rows of the matrix and their similarities [height, N]: a buffer that is used again.

        Args:
            within: which rows; all of this process's share unless given.
            products: without them the block is zero, for what depends on the candidates alone.
        """
        within = within or self.part
        step = BLOCK if self.rows.is_cpu else GPU_BLOCK
        width = len(self.columns)
        height = min(step, within.stop - within.start)
        buffer = self.rows.new_zeros(height, width, dtype=self.dtype)
        for start in range(within.start, within.stop, step):
            part = slice(start, min(start + step, within.stop))
            tile = buffer[: part.stop - start]
            if not products:
                tile.zero_()
            else:
                similarities(self.rows[part], self.columns, tile)
            yield part, tile

    def pieces(self, part: slice, tile: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """A block row by row, as many at a time as fit into a cache."""
        step = max(1, CACHED_ELEMENTS // tile.shape[1]) if tile.is_cpu else len(tile)
        for start in range(0, len(tile), step):
            piece = tile[start : start + step]
            yield slice(part.start + start, part.start + start + len(piece)), piece

    def same(self, part: slice) -> Tensor | None:
        """bool [rows, N], which texts and images have equal ids; None without ids."""
        if self.question.row_ids is None or self.question.column_ids is None:
            return None
        return self.question.row_ids[part, None] == self.question.column_ids

    def negate_positives(self, values: Tensor, part: slice, same: Tensor | None) -> None:
        """Change the sign of values [rows, N] where text and image are a pair or have equal ids."""
        own, exists = self.own[part, None], self.exists[part, None]
        value = values.gather(1, own)
        if same is not None:
            torch.where(same, -values, values, out=values)
        values.scatter_(1, own, torch.where(exists, -value, values.gather(1, own)))

    def fill_own(self, values: Tensor, part: slice, fill: float) -> None:
        """Write `fill` into values [rows, N] where a text meets its own image."""
        own, exists = self.own[part, None], self.exists[part, None]
        values.scatter_(1, own, values.gather(1, own).masked_fill(exists, fill))

    def hide(self, values: Tensor, part: slice, same: Tensor | None) -> None:
        """Write -inf into values [rows, N] where text and image are no negatives."""
        self.fill_own(values, part, NEGATIVE_INFINITY)
        if same is not None:
            values.masked_fill_(same, NEGATIVE_INFINITY)

    def over_limit(
        self, piece: Tensor, part: slice, side: Side, hidden: Tensor | None = None
    ) -> Tensor | None:
        """bool [rows, N], which candidates the limits of a side leave out; None: nothing.

        Args: piece: similarities. hidden: what is no candidate, beside -inf.
        """
        if side.limit is None:
            return None
        over = piece > side.along(side.limit, part)
        if hidden is not None:
            over &= ~hidden
        if side.axis == 0 and self.question.exempt is not None:
            over &= ~self.question.exempt[part, None]
        return over

    def count_skipped(self, over: Tensor, part: slice, side: Side) -> None:
        """Add up the candidates that the limits of a side left out of one piece."""
        self.skipped[1 - side.axis][side.place(part)] += over.sum(dim=side.axis)

    def count_active(self, weight: Tensor) -> None:
        """Add up what gets a weight of one piece, where that is asked for."""
        if self.question.counting:
            self.active += weight.count_nonzero()


class Gradients:
    """Gradient rows of both sides, from the weights dL/dS block by block and of the pairs."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.rows, self.columns = (
            torch.zeros(x.shape, dtype=batch.dtype, device=x.device)
            for x in (batch.rows, batch.columns)
        )
        thin = batch.thin_rows
        self.natively = thin.is_cpu and thin.dtype != batch.dtype and multiplies_wide(thin)

    @cached_property
    def turned(self) -> tuple[Tensor, Tensor]:
        """Rows and columns transposed, for native products, which sum over what is adjacent."""
        return self.batch.thin_rows.T.contiguous(), self.batch.thin_columns.T.contiguous()

    def add(self, part: slice, weight: Tensor) -> None:
        """weight: [rows, N], dL/dS of the rows `part`, without the pairs."""
        batch = self.batch
        if self.natively:
            rows, columns = self.turned
            thin = weight.to(rows.dtype)
            native_product(thin, columns, self.rows[part], add=True)
            native_product(thin, rows[:, part], self.columns, across=True, add=True)
        elif batch.thin_rows.dtype == batch.dtype:
            torch.mm(weight, batch.columns, out=self.rows[part])
            self.columns.addmm_(weight.T, batch.rows[part])
        else:
            thin = weight.to(batch.thin_rows.dtype)
            self.rows[part] = wide_product(thin, batch.thin_columns, batch.dtype)
            self.columns += wide_product(thin.T, batch.thin_rows[part], batch.dtype)

    def add_pairs(self, weight: Tensor) -> None:
        """weight: [M], dL/dp of the pair of each text, whatever where it has no image.

        Of all processes together, or of this one's share.
        """
        batch = self.batch
        rows, columns = batch.rows.to(batch.dtype), batch.columns.to(batch.dtype)
        weight = torch.where(batch.exists, weight, 0.0).to(batch.dtype)
        if batch.question.target is None:
            pairs = min(len(rows), len(columns))
            factor = weight[:pairs, None]
            self.rows[:pairs].addcmul_(columns[:pairs], factor)
            self.columns[:pairs].addcmul_(rows[:pairs], factor)
            return
        self.rows.addcmul_(columns[batch.own], weight[:, None])
        every = torch.arange(len(weight), device=weight.device)
        self.columns += sum_rows(rows, every, batch.own, weight, len(columns))

    def scale(self) -> Tensor:
        """Sum of S dL/dS over the matrix, 0-d: the derivative by a factor of S."""
        return wide((self.rows * self.batch.rows).sum(dim=1)).sum()

    def raw(self) -> tuple[Tensor, Tensor]:
        """Of the embeddings as they were given: texts [M, D] and images [N, D]."""
        batch = self.batch
        return (
            raw_gradient(self.rows, batch.raw_rows, batch.scale_of_rows),
            raw_gradient(self.columns, batch.raw_columns, batch.scale_of_columns),
        )


def _slots(own: Tensor, exists: Tensor, count: int) -> Tensor:
    """int64 [slots, count], numbers of the texts of each image in order, -1 for no more."""
    owner, order = torch.where(exists, own, count).sort(stable=True)
    starts = torch.searchsorted(owner, torch.arange(count + 1, device=own.device))
    slot = torch.arange(len(owner), device=own.device) - starts[owner]
    present = owner < count
    slots = int(torch.where(present, slot, 0).amax()) + 1
    table = own.new_full((slots, count + 1), -1)
    table[torch.where(present, slot, 0), owner] = torch.where(present, order, -1)
    return table[:, :count]
