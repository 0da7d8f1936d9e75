"""`i2t` and `t2i` give the tuples of the literature's evaluation, bit by bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from goal_kernels import similarity_ranks
from goal_kernels.compat import evaluate
from goal_kernels.compat.evaluate import i2t, t2i


def sorted_evaluation(rows: np.ndarray, own: list[set[int]]) -> tuple:
    """Sort every row, look for the first of its own candidates: figures, ranks and top1."""
    orders = [np.argsort(row)[::-1].tolist() for row in rows]
    first = [min(order.index(c) for c in mine) for order, mine in zip(orders, own, strict=True)]
    ranks = np.array(first, dtype=np.float64)
    recalls = [100.0 * int((ranks < k).sum()) / len(ranks) for k in (1, 5, 10)]
    figures = (*recalls, float(np.floor(np.median(ranks)) + 1), float(ranks.mean() + 1))
    return figures, ranks, np.array([order[0] for order in orders], dtype=np.float64)


def scores(case: str, images: int, captions: int) -> np.ndarray:
    draw = np.random.default_rng(5)
    found = draw.normal(size=(images, images * captions))
    found += 1.5 * np.repeat(np.eye(images), captions, axis=1)
    if case == "ties":
        return found.round()
    if case == "nan":
        found[draw.random(found.shape) < 0.02] = np.nan
    return found.astype(np.float32) if case == "float32" else found


@pytest.mark.filterwarnings("ignore:retrieval_ranks")
@pytest.mark.parametrize("mode", ["coco", "f30k"])
@pytest.mark.parametrize("case", ["plain", "float32", "ties", "nan"])
def test_tuples_are_those_of_sorting(case: str, mode: str) -> None:
    captions = 5 if mode == "coco" else 1
    sims = scores(case, 40, captions)
    texts = [set(range(captions * i, captions * (i + 1))) for i in range(40)]
    images = [{c // captions} for c in range(40 * captions)]
    for function, rows, own in ((i2t, sims, texts), (t2i, sims.T, images)):
        figures, ranks, top1 = sorted_evaluation(rows, own)
        assert function(40, sims, mode=mode) == figures
        got, (got_ranks, got_top1) = function(40, torch.from_numpy(sims), True, mode)
        assert got == figures
        np.testing.assert_array_equal(got_ranks, ranks)
        np.testing.assert_array_equal(got_top1, top1)
        assert got_ranks.dtype == got_top1.dtype == np.float64
        assert "%.1f, %.1f, %.1f, %.1f, %.1f" % got  # noqa: UP031, as their logs print it


def test_sorting_is_left_to_ties(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def watched(*arguments: object, ties: str) -> object:
        asked.append(ties)
        return similarity_ranks(*arguments, ties=ties)

    monkeypatch.setattr(evaluate, "similarity_ranks", watched)
    i2t(30, scores("plain", 30, 5))
    assert asked == ["optimistic"]
    i2t(30, scores("ties", 30, 5))
    assert asked == ["optimistic", "optimistic", "argsort"]


def test_expected_ties_give_chance_to_a_collapsed_model() -> None:
    sims = np.zeros((20, 100))
    assert t2i(20, sims, ties="expected")[0] == pytest.approx(5.0)


def test_shape_is_checked() -> None:
    with pytest.raises(ValueError, match=r"sims: expected shape \[4, 20\]"):
        i2t(4, np.zeros((4, 4)))
