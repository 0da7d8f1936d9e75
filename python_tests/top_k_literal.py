"""Top-k search as a literal loop over Python floats. Shares no code with the package."""

from __future__ import annotations

import math

from torch import Tensor


def top_k_literally(
    queries: Tensor,
    corpus: Tensor,
    k: int,
    ids: tuple[Tensor, Tensor] | None = None,
    max_score: Tensor | None = None,
) -> list[list[tuple[float, int]]]:
    """(score, index) of every query, the best first, at most k of them."""
    found = []
    for i, line in enumerate((queries.double() @ corpus.double().T).tolist()):
        allowed = [
            (score, j)
            for j, score in enumerate(line)
            if (ids is None or ids[0][i] != ids[1][j])
            and not (max_score is not None and score > max_score[i].item())
        ]
        allowed.sort(key=lambda pair: (not math.isnan(pair[0]), -pair[0], pair[1]))
        found.append(allowed[:k])
    return found


def assert_is(
    found: tuple[Tensor, Tensor, Tensor], expected: list[list[tuple[float, int]]]
) -> None:
    """The very same scores and indices, filled up to k."""
    scores, indices, count = (x.tolist() for x in found)
    k = found[0].shape[1]
    assert count == [len(row) for row in expected]
    for i, row in enumerate(expected):
        filled = row + [(-math.inf, -1)] * (k - len(row))
        assert indices[i] == [j for _, j in filled], f"row {i}"
        for score, (wanted, _) in zip(scores[i], filled, strict=True):
            assert score == wanted or (math.isnan(score) and math.isnan(wanted)), f"row {i}"
