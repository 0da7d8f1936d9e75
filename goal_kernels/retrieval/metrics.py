"""Recall at K, median and mean rank, rsum: the metrics of the image-text retrieval literature."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from goal_kernels import checks
from goal_kernels.checks import Ranks, check_ranks
from goal_kernels.retrieval.ranks import RetrievalRanks, Standing, check_groups, settle

DIRECTIONS = ("i2t", "t2i")  # an image asks for texts, a text for images: keys of a record
RECALL_AT = (1, 5, 10)
RECALLS = tuple(f"R@{k}" for k in RECALL_AT)  # the ones that rsum adds up
STEPS = (1, 2, 5)  # of every power of ten: bins end at 1, 2, 5, 10, 20, 50, ...


def _check_k(k: int) -> None:
    if isinstance(k, bool) or not isinstance(k, int):
        raise TypeError(f"k: expected an integer >= 1, got {type(k).__name__} {k!r}.")
    if k < 1:
        raise ValueError(f"k: expected an integer >= 1, got {k}.")


def recall_at_k(ranks: Ranks, k: int) -> float:
    """Percentage of queries whose best positive is among the first k, in [0, 100].

    The field's hit rate: one of the positives is enough.

    Args:
        ranks: [Q] 0-based, e.g. `RetrievalRanks.i2t`; NaN marks an item that is not a query. A
            tensor, an array or a list.
        k: >= 1.
    Raises: ValueError when there is no query, or k < 1; TypeError.
    """
    _check_k(k)
    ranks = checks.check_ranks(ranks)
    valid = ranks[~ranks.isnan()] if ranks.is_floating_point() else ranks
    if valid.numel() == 0:
        raise ValueError("ranks: expected at least one query, got none.")
    # In this order the percentage is the literature's to the last bit.
    return 100.0 * int((valid < k).sum()) / valid.numel()


def expected_recall(standing: Standing, k: int) -> float:
    """Expected recall at k, in percent, when every tie is broken by a fair shuffle.

    Of t wrong and m right candidates at the best score, q = k - better places are left. None of the
    m is among the first q with probability prod over a = 1..m of (t - q + a) / (t + a).
    """
    query = standing.positives > 0
    better, ties, positives = (x[query].double() for x in standing)
    places = (k - better).clamp(min=0)
    missed = torch.ones_like(better)
    for a in range(1, int(positives.max()) + 1):
        factor = ((ties - places + a) / (ties + a)).clamp(min=0)
        missed = torch.where(positives >= a, missed * factor, missed)
    return 100.0 * (1.0 - missed).mean().item()


def _direction_metrics(ranks: Tensor, standing: Standing, ties: str) -> dict[str, float]:
    """R@1, R@5, R@10 in percent; median and mean rank, 1-based. ranks: [Q]."""
    valid = ranks[~ranks.isnan()]
    recalls = {
        f"R@{k}": expected_recall(standing, k) if ties == "expected" else recall_at_k(ranks, k)
        for k in RECALL_AT
    }
    # quantile() would need all ranks as floats sorted anyway; the field floors the median.
    median = math.floor(valid.quantile(0.5).item()) + 1
    return {**recalls, "median_rank": float(median), "mean_rank": valid.mean().item() + 1.0}


def retrieval_metrics(ranks: RetrievalRanks) -> dict[str, Any]:
    """The field's table from `retrieval_ranks`.

    Returns: {"i2t": {"R@1", "R@5", "R@10", "median_rank", "mean_rank"}, "t2i": {...}, "rsum",
        "ar", "ari"}. Recalls in percent, ranks 1-based; rsum is the sum of the six recalls (at most
        600), ar and ari the means of the three of i2t and of t2i. Under the tie rule "expected" a
        recall is its expectation over random orders of each tie, so a collapsed model scores
        exactly chance.
    Raises: TypeError when it is no `RetrievalRanks`.
    """
    if not isinstance(ranks, RetrievalRanks):
        raise TypeError(
            f"ranks: expected what retrieval_ranks returned, got {type(ranks).__name__}; "
            "recall_at_k takes the ranks of one direction."
        )
    i2t = _direction_metrics(ranks.i2t, ranks.i2t_standing, ranks.ties)
    t2i = _direction_metrics(ranks.t2i, ranks.t2i_standing, ranks.ties)
    recalls = [side[name] for side in (i2t, t2i) for name in RECALLS]
    ar, ari = (
        sum(part) / len(part) for part in (recalls[: len(RECALL_AT)], recalls[len(RECALL_AT) :])
    )
    return {"i2t": i2t, "t2i": t2i, "rsum": sum(recalls), "ar": ar, "ari": ari}


def chance_metrics(
    text_to_image: checks.Index, images: int, groups: checks.Index | None = None
) -> dict[str, Any]:
    """`retrieval_metrics` of a random ranking, in expectation: every candidate ties.

    Args:
        text_to_image: [M] integers in [0, images); images: number of images, >= 1.
        groups: [images] integers, as in `retrieval_ranks`.
    """
    index = checks.check_index_vector("text_to_image", text_to_image, len(text_to_image), None)
    things = torch.arange(images, device=index.device)
    if groups is not None:
        things = check_groups(groups, images).to(index.device).unique(return_inverse=True)[1]
    of_texts = things[index]
    own = torch.bincount(of_texts, minlength=images)[things]
    i2t = Standing(torch.zeros_like(own), len(index) - own, own)
    right = torch.bincount(things)[of_texts]
    t2i = Standing(torch.zeros_like(right), images - right, right)
    ranks = (settle(i2t, "expected"), settle(t2i, "expected"))
    return retrieval_metrics(RetrievalRanks(*ranks, "expected", i2t, t2i, 0))


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
