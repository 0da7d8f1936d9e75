"""What a mining kernel is asked, and what it leaves."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

LOG2_E = 1.0 / math.log(2.0)
FLOAT32_MAX = torch.finfo(torch.float32).max


class MiningQuery(NamedTuple):
    """What to mine. kind, precision: as in `SearchQuery`.

    epsilon: the threshold of the sums is the first fact minus this. slope: beta log2(e).
    """

    kind: str
    epsilon: float
    slope: float
    precision: str

    @classmethod
    def build(cls, kind: str, epsilon: float, beta: float, precision: str) -> MiningQuery:
        """A finite slope keeps slope * 0 = 0 for every beta a float64 can hold."""
        return cls(kind, epsilon, min(float(beta) * LOG2_E, FLOAT32_MAX), precision)


class Side(NamedTuple):
    """What a mining kernel left of the rows, or of the columns; see `finish.py`.

    parts: how many partial sums there are of every anchor.
    """

    keys: Tensor
    sums: Tensor | None = None
    counts: Tensor | None = None
    tops: Tensor | None = None
    parts: int = 0


class Harvest(NamedTuple):
    """What a mining kernel left. form: NO_SUMS, STATES or FIXED."""

    rows: Side
    columns: Side
    form: int
