"""How many queries stand at which rank, in bins that grow with the rank."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from goal_kernels.checks import Ranks, check_ranks

STEPS = (1, 2, 5)  # of every power of ten: bins end at 1, 2, 5, 10, 20, 50, ...


class RankHistogram(NamedTuple):
    """Numbers of queries by rank. All [bins].

    first, last: int64, the ranks of a bin, counted from 1, both inclusive.
    queries: int64, how many have a rank in it.
    """

    first: np.ndarray
    last: np.ndarray
    queries: np.ndarray

    @property
    def share(self) -> np.ndarray:
        """float64 [bins], in percent of the queries."""
        return 100.0 * self.queries / max(int(self.queries.sum()), 1)

    def labels(self) -> list[str]:
        """The ranks of every bin in words, such as "3-5"."""
        pairs = zip(self.first.tolist(), self.last.tolist(), strict=True)
        return [f"{low:,}" if low == high else f"{low:,}-{high:,}" for low, high in pairs]


def rank_histogram(ranks: Ranks, candidates: int) -> RankHistogram:
    """Count the queries at ranks 1, 2, 3-5, 6-10, 11-20, 21-50, ...

    Args:
        ranks: [Q] 0-based, e.g. `RetrievalRanks.t2i`; NaN marks an item that is not a query. An
            expected rank between two ranks counts for the better one.
        candidates: number of candidates, which bounds the last bin; >= 1.

    Raises: ValueError when a rank is not in [0, candidates); TypeError.
    """
    ranks = check_ranks(ranks)
    known = ranks[~ranks.isnan()] if ranks.is_floating_point() else ranks
    numbers = known.double().floor().cpu().numpy().astype(np.int64) + 1
    if len(numbers) and not 1 <= numbers.min() <= numbers.max() <= candidates:
        raise ValueError(
            f"ranks: expected 0-based ranks below {candidates} candidates, got "
            f"{numbers.min() - 1} to {numbers.max() - 1}."
        )
    ends = [step * 10**power for power in range(19) for step in STEPS]
    last = np.array([end for end in ends if end < candidates] + [candidates], dtype=np.int64)
    count = np.bincount(np.searchsorted(last, numbers), minlength=len(last))
    return RankHistogram(np.concatenate([[1], last[:-1] + 1]), last, count)
