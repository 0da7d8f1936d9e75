"""What backends answer: mined pairs, gradient terms, and both packed into few tensors.

Shapes, rows and columns as in `backends.base`.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor


class Mined(NamedTuple):
    """What mining found. Rows are image anchors (i2t), columns are text anchors (t2i).

    row_value [N], column_value [M], accumulate dtype: similarity of the hardest negative,
        -inf if there is none. Accurate to the accumulate dtype whatever the mining precision:
        a backend that mines at lower precision recomputes these (`rescore`).
    row_index [N], column_index [M], int64: its column / row, lowest index on ties, -1 if none.
        NaN counts as larger than every number (the first one wins), as in torch.max.
    row_sum, column_sum, accumulate dtype, and row_count, column_count, int64, same lengths (empty
        tensors [0] when kind is "none"): over the allowed negatives k of anchor i that are not its
        hardest negative j* (that one index) and have S_ik >= threshold, with n = S_ij*:
        kind "linear": sum of n - S_ik over those with S_ik < n, and their number;
        kind "exponential": sum of exp(-beta * (n - S_ik)), and their number.
    """

    row_value: Tensor
    row_index: Tensor
    column_value: Tensor
    column_index: Tensor
    row_sum: Tensor
    row_count: Tensor
    column_sum: Tensor
    column_count: Tensor


class MinedTopK(NamedTuple):
    """The best candidates of N queries.

    scores [N, k], accumulate dtype: similarities, the largest first; NaN is above every number.
    indices [N, k], int64: rows of the corpus, the lowest first among equal scores.
    counts [N], int64: how many there are; behind them scores are -inf and indices -1.
    """

    scores: Tensor
    indices: Tensor
    counts: Tensor


class GradientTerms(NamedTuple):
    """Everything that turns mined pairs into gradients (docs/derivation.md, eq. 9 and 10).

    hardest_text int64 [N], hardest_image int64 [M]: mined indices; -1 drops the term.
    target: as in `Pairing`.
    positive_weight [N], row_weight [N], column_weight [M], accumulate dtype: c, b_i2t and b_t2i.
    With k negatives an anchor hardest_text, row_weight [k, N], hardest_image, column_weight [k, M].
    """

    hardest_text: Tensor
    hardest_image: Tensor
    target: Tensor | None
    positive_weight: Tensor
    row_weight: Tensor
    column_weight: Tensor


class Scales(NamedTuple):
    """What multiplies each row of image [N] and text [M], accumulate dtype; None: nothing.

    Normalised rows are given as raw rows with scales 1 / max(length, SHORTEST_LENGTH).
    """

    image: Tensor | None = None
    text: Tensor | None = None


UNSCALED = Scales()


def row_scales(scales_of_rows: Tensor, sizes: tuple[int, int]) -> Scales:
    """Both scales from one vector [N + M] of `sizes` N and M; two Nones from an empty one."""
    return Scales(*scales_of_rows.split(sizes)) if len(scales_of_rows) else UNSCALED


Hardest: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""Similarities of the positives [N], then row_value, row_index, column_value, column_index as in
`Mined`."""


class Found(NamedTuple):
    """What `Backend.search` answers, in few tensors: allocating one costs a microsecond.

    values: accumulate dtype [N + N + M]: similarity of row i and its positive, -inf if it has none;
        `row_value` and `column_value` of `Mined`. indices: int64 [N + M], `row_index` and
        `column_index`. sums, counts: [N + M], those of rows and columns; [0] when none were wanted.
    scales_of_rows: [N + M], what normalises the rows of image and text; [0] without `normalize`.
    """

    values: Tensor
    indices: Tensor
    sums: Tensor
    counts: Tensor
    scales_of_rows: Tensor

    @classmethod
    def empty(
        cls,
        like: Tensor,
        sizes: tuple[int, int],
        dtype: torch.dtype,
        relative: str,
        normalize: bool,
    ) -> Found:
        """Uninitialised, of N and M. dtype: to accumulate in. Others: as in `SearchQuery`."""
        rows, both = sizes[0], sum(sizes)
        sums = 0 if relative == "none" else both
        return cls(
            like.new_empty(rows + both, dtype=dtype),
            like.new_empty(both, dtype=torch.int64),
            like.new_empty(sums, dtype=dtype),
            like.new_empty(sums, dtype=torch.int64),
            like.new_empty(both if normalize else 0, dtype=dtype),
        )

    @classmethod
    def pack(cls, positive: Tensor, mined: Mined, scales: Scales = UNSCALED) -> Found:
        """From the results of the parts."""
        none = positive.new_empty(0)
        return cls(
            torch.cat([positive, mined.row_value, mined.column_value]),
            torch.cat([mined.row_index, mined.column_index]),
            torch.cat([mined.row_sum, mined.column_sum]),
            torch.cat([mined.row_count, mined.column_count]),
            none if scales.image is None else torch.cat([x for x in scales if x is not None]),
        )

    @property
    def sizes(self) -> tuple[int, int]:
        """N and M."""
        rows = self.values.shape[0] - self.indices.shape[0]
        return rows, self.indices.shape[0] - rows

    @property
    def positive(self) -> Tensor:
        """Similarity of each row and its positive, [N]."""
        return self.values[: self.sizes[0]]

    @property
    def hardest(self) -> Hardest:
        """`positive`, and the values and indices of `mined`, those of rows first."""
        rows, columns = self.sizes  # `split` would take twice as long as these two calls
        positive, row_value, column_value = self.values.split_with_sizes((rows, rows, columns))
        row_index, column_index = self.indices.split_with_sizes((rows, columns))
        return positive, row_value, row_index, column_value, column_index

    @property
    def mined(self) -> Mined:
        """The rest as `Mined`."""
        _, row_value, row_index, column_value, column_index = self.hardest
        parts = self.sizes if self.sums.shape[0] else (0, 0)
        sums, counts = self.sums.split_with_sizes(parts), self.counts.split_with_sizes(parts)
        return Mined(
            *(row_value, row_index, column_value, column_index),
            *(sums[0], counts[0], sums[1], counts[1]),
        )

    @property
    def scales(self) -> Scales:
        """Of image [N] and text [M], or two Nones."""
        return row_scales(self.scales_of_rows, self.sizes)


class Weighted(NamedTuple):
    """The weight stage's result for a square batch.

    value: 0-d, accumulate dtype, summed over the anchors of the chosen directions.
    positive_weight, row_weight, column_weight: [B], see `GradientTerms`.
    """

    value: Tensor
    positive_weight: Tensor
    row_weight: Tensor
    column_weight: Tensor


VECTORS = 6
"""Rows of `Forward.vectors` without the two scales."""


class Forward(NamedTuple):
    """Everything that a forward leaves, in few tensors: allocating each costs as much as weighing.

    value: 0-d, accumulate dtype.
    vectors: accumulate dtype, [VECTORS, B]: positive, row_value, column_value, positive_weight,
        row_weight, column_weight; for normalised rows [VECTORS + 2, B] with the scales of image and
        text.
    hardest: int64 [2, B]: row_index and column_index. A backend may add rows (`Backend.list_rows`):
        [6, B] has the inverse lists, which anchors mined an item: order_image, order_text,
        span_image, span_text. order_image[start:end] with span_image[i] = start << 32 | end are the
        columns k with hardest_image[k] = i, ascending; those that mined nothing come last.
    """

    value: Tensor
    vectors: Tensor
    hardest: Tensor

    @classmethod
    def empty(
        cls, image: Tensor, dtype: torch.dtype, normalize: bool, list_rows: int = 0
    ) -> Forward:
        """Uninitialised, for images [B, D]. dtype: to accumulate in."""
        batch, rows = image.shape[0], VECTORS + 2 if normalize else VECTORS
        return cls(
            image.new_empty((), dtype=dtype),
            image.new_empty((rows, batch), dtype=dtype),
            image.new_empty((2 + list_rows, batch), dtype=torch.int64),
        )

    @classmethod
    def pack(cls, found: Found, weighted: Weighted) -> Forward:
        """From the results of the stages."""
        mined = found.mined
        vectors = [found.positive, mined.row_value, mined.column_value, *weighted[1:]]
        vectors += [scale for scale in found.scales if scale is not None]
        hardest = torch.stack([mined.row_index, mined.column_index])
        return cls(weighted.value, torch.stack(vectors), hardest)


def unpack_terms(vectors: Tensor, hardest: Tensor) -> tuple[GradientTerms, Scales]:
    """What a backward reads from `Forward`."""
    rows = vectors.unbind()
    hardest_text, hardest_image = hardest[:2].unbind()
    terms = GradientTerms(hardest_text, hardest_image, None, *rows[3:VECTORS])
    return terms, Scales(*rows[VECTORS:])
