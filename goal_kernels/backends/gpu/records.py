"""What the stages of a step hand to one another."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from goal_kernels.backends.gpu.configs import FIXED, NO_SUMS, SUM_FIELDS

LOG2_E = 1.0 / math.log(2.0)
FLOAT32_MAX = torch.finfo(torch.float32).max


class MiningQuery(NamedTuple):
    """What to mine. kind, precision: as in `SearchQuery`.

    epsilon: the relative sums start at the smallest positive minus this. slope: beta log2(e).
    """

    kind: str
    epsilon: float
    slope: float
    precision: str

    @classmethod
    def build(cls, kind: str, epsilon: float, beta: float, precision: str) -> MiningQuery:
        """A finite slope keeps slope * 0 = 0 for every beta a float64 can hold."""
        return cls(kind, epsilon, min(float(beta) * LOG2_E, FLOAT32_MAX), precision)


class Wants(NamedTuple):
    """What a mining kernel needs beyond rows of unit inner stride.

    aligned: rows that start at multiples of `ALIGNMENT`. split: float32 rows as bfloat16 pairs.
    mixed: blocks of pairs that are not all negatives. sums: kind of the FIXED sums to start.
    """

    aligned: bool = False
    split: bool = False
    mixed: bool = False
    sums: str = "none"


class Operands(NamedTuple):
    """What mining multiplies: image [N, width], text [M, width], or [., 2 width] if split.

    width: elements of a row, or of each half of it; those beyond the embeddings' are zero.
    """

    image: Tensor
    text: Tensor
    width: int

    @property
    def split(self) -> bool:
        """Whether rows are pairs of bfloat16 numbers, [high | low]."""
        return self.image.shape[1] > self.width


class Side(NamedTuple):
    """What is mined of the rows, or of the columns; see `kernels/results.py`.

    parts: how many running maxima there are of every anchor.
    """

    keys: Tensor
    sums: Tensor | None = None
    counts: Tensor | None = None
    tops: Tensor | None = None
    parts: int = 0

    @classmethod
    def empty(cls, like: Tensor, kind: str) -> Side:
        """Uninitialised, of the rows of `like`, with FIXED sums of a kind."""

        def words(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return like.new_empty(shape, dtype=dtype)

        length, fields = like.shape[0], SUM_FIELDS[kind]
        if not fields:
            return cls(words(length))
        tops = words(length) if kind == "linear" else None
        return cls(words(length), words(fields, length), words(length, dtype=torch.int32), tops)


class Prepared(NamedTuple):
    """What `prepare` leaves.

    image, text: the raw rows. scales: float32 [N + M], what normalises them, or None.
    batch_stats: float32 [3, parts], see `kernels/common.py`.
    rows, columns: keys, all NOTHING, and, where wanted, FIXED sums of nothing.
    ticket: int32 [1], zero.
    mixed: int32 [blocks of rows, words], see `kernels/masks.py`. None if not wanted, or where there
    are no ids and no targets.
    """

    image: Tensor
    text: Tensor
    operands: Operands
    scales: Tensor | None
    batch_stats: Tensor
    rows: Side
    columns: Side
    ticket: Tensor
    mixed: Tensor | None

    @property
    def mask_words(self) -> int:
        """Words of a row of `mixed`, 0 where there is none."""
        return 0 if self.mixed is None else self.mixed.shape[1]

    def rescores(self, query: MiningQuery) -> bool:
        """Whether similarities are mined from rounded rows, so that mined ones are recomputed."""
        if self.image.dtype == torch.float32:
            return query.precision != "highest"
        return self.scales is not None


class MiningResult(NamedTuple):
    """What a mining kernel left. form: NO_SUMS, RUNNING_MAXIMA or FIXED."""

    rows: Side
    columns: Side
    form: int

    @classmethod
    def fixed(cls, prepared: Prepared) -> MiningResult:
        """What `prepare` has started, FIXED sums or none."""
        form = NO_SUMS if prepared.rows.sums is None else FIXED
        return cls(prepared.rows, prepared.columns, form)
