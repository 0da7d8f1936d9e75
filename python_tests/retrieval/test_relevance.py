"""mAP@R, R-precision and excused errors against loops over all orders of the ties."""

from __future__ import annotations

from itertools import pairwise, permutations
from pathlib import Path

import numpy as np
import pytest
import torch

import goal_kernels as gk
from goal_kernels.data import TruthRelation
from goal_kernels.data.goalworld.dataset import generate_goalworld
from goal_kernels.data.precomputed import load_split
from goal_kernels.retrieval import scores


def relation(pairs, texts: int, images: int) -> TruthRelation:
    rows = [np.array(sorted(i for t, i in pairs if t == text)) for text in range(texts)]
    return TruthRelation.from_rows(rows, images)


def one_query(order, relevant, own):
    """Literal figures of one ranking: AP@R, R-precision, hits at 1, 5, 10, error, excused."""
    R, hits, total = len(relevant), 0, 0.0
    for k, item in enumerate(order[:R], start=1):
        if item in relevant:
            hits += 1
            total += hits / k
    recalls = [float(any(item in relevant for item in order[:k])) for k in (1, 5, 10)]
    error = order[0] not in own
    return np.array([total / R, hits / R, *recalls, error, error and order[0] in relevant], float)


def literal(similarity, true_pairs, owner):
    """Mean over every order of tied candidates, one direction after the other."""
    texts, images = len(owner), len(similarity)
    sides = {
        "i2t": [
            (similarity[i], {t for t, j in true_pairs if j == i}, set(np.flatnonzero(owner == i)))
            for i in range(images)
        ],
        "t2i": [
            (similarity[:, t], {i for s, i in true_pairs if s == t}, {owner[t]})
            for t in range(texts)
        ],
    }
    table = {}
    for direction, queries in sides.items():
        found = []
        for row, relevant, own in queries:
            if relevant:
                orders = [
                    order
                    for order in permutations(range(len(row)))
                    if all(row[a] >= row[b] for a, b in pairwise(order))
                ]
                found.append(np.mean([one_query(o, relevant, own) for o in orders], axis=0))
        mean = np.mean(found, axis=0)
        table[direction] = [*(100 * mean[:5]), 100 * mean[6] / mean[5]]
    return table


NAMES = ("mAP@R", "R-precision", "R@1", "R@5", "R@10", "false_negatives")


@pytest.mark.parametrize("seed", range(6))
def test_expected_values_over_all_orders_of_ties(seed: int, monkeypatch) -> None:
    """Six candidates of few distinct scores: ties everywhere, also across the cut at R."""
    monkeypatch.setattr(scores, "BLOCK_SCORES", 13)
    rng = np.random.default_rng(seed)
    similarity = rng.integers(0, 3, size=(6, 6)).astype(np.float32)
    owner = rng.integers(0, 6, size=6)
    pairs = {(t, i) for t in range(6) for i in range(6) if rng.random() < 0.35}
    found = gk.relevance_metrics(similarity, relation(pairs, 6, 6), torch.from_numpy(owner))
    wanted = literal(similarity, pairs, owner)
    for direction in ("i2t", "t2i"):
        assert [found[direction][name] for name in NAMES] == pytest.approx(wanted[direction])


def test_on_goalworld(tmp_path: Path, monkeypatch) -> None:
    """Continuous scores: the plain sort, in float64, on the truth of the smallest preset."""
    monkeypatch.setattr(scores, "BLOCK_SCORES", 3000)
    generate_goalworld(tmp_path, preset="tiny", dev=12, test=32, train=12)
    split = load_split(tmp_path, "test")
    truth, owner = split.truth, split.image_of_caption
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(32, 16, generator=generator)
    text = image[torch.from_numpy(owner)] + torch.randn(160, 16, generator=generator)
    products = image.double().numpy() @ text.double().numpy().T
    true = np.zeros((160, 32), dtype=bool)
    for caption in range(160):
        true[caption, truth.images_of(caption)] = True
    found = gk.relevance_metrics((image, text), truth, torch.from_numpy(owner))
    for direction, sims, relevant, own in (
        ("i2t", products, true.T, owner[None, :] == np.arange(32)[:, None]),
        ("t2i", products.T, true, owner[:, None] == np.arange(32)[None, :]),
    ):
        rows = [
            one_query(
                np.argsort(-sims[q]), set(np.flatnonzero(relevant[q])), np.flatnonzero(own[q])
            )
            for q in range(len(sims))
        ]
        mean = np.mean(rows, axis=0)
        wanted = [*(100 * mean[:5]), 100 * mean[6] / mean[5]]
        assert [found[direction][name] for name in NAMES] == pytest.approx(wanted, abs=1e-9)
        assert found[direction]["mean_relevant"] == pytest.approx(relevant.sum(1).mean())
    assert found["t2i"]["mean_relevant"] > 1.05, "else this is the paired evaluation"


def test_perfect_and_collapsed_models() -> None:
    pairs = {(t, i) for t in range(8) for i in (t // 2, (t // 2 + 1) % 4)}
    truth = relation(pairs, 8, 4)
    oracle = np.zeros((4, 8), dtype=np.float32)
    for text, image in pairs:
        oracle[image, text] = 1
    owner = torch.arange(8) // 2
    for direction in gk.relevance_metrics(oracle, truth, owner).values():
        assert direction["mAP@R"] == direction["R-precision"] == direction["R@1"] == 100
        assert direction["false_negatives"] == pytest.approx(100), "half its firsts are the other"
    many = relation({(t, i) for t in range(80) for i in (t // 2, (t // 2 + 1) % 40)}, 80, 40)
    collapsed = gk.relevance_metrics(np.ones((40, 80), dtype=np.float32), many)
    assert collapsed["t2i"]["R-precision"] == pytest.approx(100 * 2 / 40), (
        "a tie longer than sorted"
    )
    assert collapsed["i2t"]["mAP@R"] == pytest.approx(
        100 / 4 * (4 / 80) * sum((1 + (k - 1) * 3 / 79) / k for k in range(1, 5))
    )
    assert "false_negatives" not in collapsed["t2i"]
    paired = relation({(t, t // 2) for t in range(8)}, 8, 4)
    exact = (owner[None, :] == torch.arange(4)[:, None]).float()
    assert gk.relevance_metrics(exact, paired, owner)["t2i"]["false_negatives"] is None


def test_nan_is_the_worst_score() -> None:
    similarity = np.array([[0.3, np.nan], [np.nan, np.nan]], dtype=np.float32)
    truth = relation({(0, 0), (1, 1)}, 2, 2)
    found = gk.relevance_metrics(similarity, truth)
    assert found["t2i"]["R@1"] == pytest.approx(75), "first right, second one of two that tie"


@pytest.mark.parametrize(
    ("truth", "words"),
    [
        (relation({(0, 0)}, 3, 2), r"\(texts, images\) = \(4, 2\), got \(3, 2\)"),
        (relation(set(), 4, 2), "expected relevant pairs"),
        (TruthRelation.from_rows([np.array([1, 1])] * 4, 2), "each once"),
    ],
)
def test_relations_that_do_not_fit_are_refused(truth, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        gk.relevance_metrics(np.zeros((2, 4), dtype=np.float32), truth)
