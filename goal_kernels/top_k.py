"""`mine_top_k`: the k hardest negatives of every query in a whole dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from goal_kernels import checks
from goal_kernels.backends.answers import MinedTopK as MinedTopK
from goal_kernels.backends.base import TopKQuery, accumulate_dtype, settled_precision
from goal_kernels.backends.choice import find_backend, resolve
from goal_kernels.checks import Index, Rows

Bounds: TypeAlias = "Tensor | Sequence[float] | NDArray[np.floating[Any]]"
"""One number a query."""


@torch.no_grad()
def mine_top_k(
    queries: Rows,
    corpus: Rows,
    k: int,
    *,
    query_ids: Index | None = None,
    corpus_ids: Index | None = None,
    max_score: Bounds | None = None,
    normalize: bool = False,
    precision: str | None = None,
    backend: str = "auto",
) -> MinedTopK:
    """The k most similar candidates of every query, without gradient and without the score matrix.

    For hard negatives of a whole dataset: `corpus` holds all texts, `queries` the images (or the
    other way round), and the ids leave the positives out. Memory is O(N k) and a constant beside
    the inputs; `goal-kernels mine` does the same with files of any size.

    Args:
        queries, corpus: [N, D] and [M, D], N, M >= 1, dtypes as in `goal_loss`; tensors, or numpy
            arrays.
        k: at least 1. With fewer candidates than k a row ends in scores of -inf and indices of -1.
        query_ids, corpus_ids: [N] and [M] integers; where they are equal there is no candidate. One
            of them alone stands for both where N = M: `arange(N)` leaves out each row itself.
        max_score: [N] upper bounds: what scores above is no candidate, what scores the same is one.
            Similarities of the positives plus a margin keep false negatives out. NaN: no bound.
        normalize, precision, backend: as in `goal_loss`. Scores are of full precision whatever the
            precision of the search, and the `cpu` backend always finds as `highest` does. On a GPU
            `chunked` serves.

    Returns: `MinedTopK` of scores [N, k], float32 (float64 for float64 inputs), descending, NaN
        above every number; indices [N, k] int64, the lowest first among equal scores; and counts
        [N] int64, how many of them there are. As float32 decides: scores that differ by less than
        its rounding come in either order.

    Raises: TypeError, ValueError naming the argument; BackendUnavailableError with the reason.
    """
    left, right = checks.check_embeddings(
        checks.as_tensor(queries), checks.as_tensor(corpus), ("queries", "corpus")
    )
    for name, side in (("queries", left), ("corpus", right)):
        checks.check_ordinary(name, side, data=True)
    rows, columns = len(left), len(right)
    if rows == 0 or columns == 0:
        raise ValueError(f"queries, corpus: expected N, M >= 1, got N = {rows}, M = {columns}.")
    if isinstance(k, bool) or not isinstance(k, int | np.integer):
        raise TypeError(f"k: expected an integer, got {k!r}.")
    if not 1 <= k < 2**31:
        raise ValueError(
            f"k: expected at least 1 and below 2^31, got {k}; 1 finds the hardest negative alone."
        )
    checks.check_precision(precision)
    checks.check_flag("normalize", normalize)
    ids = checks.check_ids(
        query_ids, corpus_ids, rows, columns, left.device, ("query_ids", "corpus_ids")
    )
    precision = settled_precision(precision, left.device.type)
    call = left.device.type, left.dtype, precision
    found = find_backend(resolve(backend, *call, "find the top k", lambda each: each.finds_top_k))
    bound = _check_bounds(max_score, left)
    return found.top_k(left, right, TopKQuery(int(k), *ids, bound, normalize, precision))


def _check_bounds(max_score: Bounds | None, queries: Tensor) -> Tensor | None:
    """Require a number a query; returns them in the accumulate dtype.

    Rounded down where that dtype cannot hold them: what is above is out.
    Raises: TypeError, ValueError.
    """
    if max_score is None:
        return None
    if not isinstance(max_score, Tensor):
        max_score = torch.from_numpy(np.array(max_score, dtype=np.float64)).to(queries.device)
    checks.check_ordinary("max_score", max_score, data=True)
    if not max_score.is_floating_point() or max_score.shape != queries.shape[:1]:
        raise ValueError(
            f"max_score: expected one float a query, [{len(queries)}], got {max_score.dtype} of "
            f"shape {list(max_score.shape)}."
        )
    checks.check_same_device("max_score", max_score, queries.device)
    bound = max_score.to(accumulate_dtype(queries.dtype))
    lower = torch.nextafter(bound, torch.full_like(bound, float("-inf")))
    return torch.where(bound.to(max_score.dtype) > max_score, lower, bound).contiguous()
