"""The oracle's expected recalls against enumeration."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from goal_kernels.data import TruthRelation
from goal_kernels.data.goalworld.oracle import oracle_recalls

# Six captions, two of each of three images. The captions of image 1 are as vague as one of 0.
ROWS = [[0, 1, 2], [0, 1], [0, 1], [1, 2], [1, 2], [2]]
OWNERS = np.array([0, 0, 1, 1, 2, 2])


GROUPS = np.array([7, 7, 3])  # images 0 and 1 show one thing


def enumerate_t2i(cutoff: int, groups: np.ndarray) -> float:
    """Mean over captions and over all orders of the images that each is true of."""
    shares = []
    for row, owner in zip(ROWS, OWNERS, strict=True):
        right = {image for image in range(3) if groups[image] == groups[owner]}
        hits = [bool(right & {*order[:cutoff]}) for order in permutations(row)]
        shares.append(np.mean(hits))
    return 100 * float(np.mean(shares))


def enumerate_i2t(cutoff: int, groups: np.ndarray) -> float:
    """Mean over images and over all orders of the true captions that put specific ones first."""
    shares = []
    for image in range(3):
        true = [caption for caption, row in enumerate(ROWS) if image in row]
        vague = [len(ROWS[caption]) for caption in true]
        hits = [
            any(groups[OWNERS[caption]] == groups[image] for caption in order[:cutoff])
            for order in permutations(true)
            if [len(ROWS[caption]) for caption in order] == sorted(vague)
        ]
        shares.append(np.mean(hits))
    return 100 * float(np.mean(shares))


@pytest.mark.parametrize("groups", [None, GROUPS], ids=["no groups", "groups"])
def test_against_all_orders(monkeypatch: pytest.MonkeyPatch, groups: np.ndarray | None) -> None:
    monkeypatch.setattr("goal_kernels.data.goalworld.oracle.CUTOFFS", (1, 2, 3, 5))
    figures = oracle_recalls(TruthRelation.from_rows(map(np.array, ROWS), 3), OWNERS, groups)
    counted = np.arange(3) if groups is None else groups
    for cutoff in (1, 2, 3, 5):
        t2i, i2t = enumerate_t2i(cutoff, counted), enumerate_i2t(cutoff, counted)
        assert figures["t2i"][f"R@{cutoff}"] == pytest.approx(t2i, abs=1e-4)
        assert figures["i2t"][f"R@{cutoff}"] == pytest.approx(i2t, abs=1e-4)
    assert figures["i2t"]["R@1"] < 100
    total = sum(figures["i2t"].values()) + sum(figures["t2i"].values())
    assert figures["rsum"] == pytest.approx(total, abs=1e-3)


def test_unambiguous_captions_give_hundred() -> None:
    truth = TruthRelation.from_rows([np.array([i // 5]) for i in range(20)], 4)
    figures = oracle_recalls(truth, np.arange(20) // 5)
    assert figures["rsum"] == 600


def test_captions_true_of_everything_give_chance() -> None:
    truth = TruthRelation.from_rows([np.arange(20)] * 100, 20)
    figures = oracle_recalls(truth, np.arange(100) // 5)
    assert figures["t2i"] == {"R@1": 5.0, "R@5": 25.0, "R@10": 50.0}
    assert figures["i2t"]["R@1"] == pytest.approx(5.0)


def test_inconsistent_truth_is_refused() -> None:
    truth = TruthRelation.from_rows([np.array([1]), np.array([1])], 2)
    with pytest.raises(ValueError, match="true of its own image"):
        oracle_recalls(truth, np.array([0, 1]))
    with pytest.raises(ValueError, match="image 0 has none"):
        oracle_recalls(truth, np.array([1, 1]))
