"""Ranks against a naive full-matrix sort; ties; NaN; ragged numbers of captions."""

from __future__ import annotations

import random

import pytest
import torch

import goal_kernels as gk
from goal_kernels.backends import reference_rank
from goal_kernels.backends.gpu import TritonBackend
from goal_kernels.retrieval import EmbeddingScores, MatrixScores, MeanScores


def ragged(images: int = 40, seed: int = 0) -> torch.Tensor:
    """Between 1 and 7 texts per image, shuffled. [M]"""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(1, 8, (images,), generator=generator)
    index = torch.repeat_interleave(torch.arange(images), counts)
    return index[torch.randperm(len(index), generator=generator)]


def embeddings(index: torch.Tensor, width: int = 12, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(int(index.max()) + 1, width, generator=generator)
    return image, image[index] + torch.randn(len(index), width, generator=generator)


def naive_ranks(image, text, index) -> tuple[list[int], list[int]]:
    similarity = (image.double() @ text.double().T).tolist()
    i2t = []
    for i, row in enumerate(similarity):
        order = sorted(range(len(row)), key=lambda j: -row[j])
        i2t.append(min(order.index(j) for j in range(len(row)) if index[j] == i))
    t2i = []
    for j in range(len(text)):
        column = [row[j] for row in similarity]
        t2i.append(sorted(range(len(column)), key=lambda i: -column[i]).index(int(index[j])))
    return i2t, t2i


@pytest.mark.parametrize("seed", range(3))
def test_against_a_full_sort(seed, monkeypatch) -> None:
    """Ragged captions, blocks that divide nothing."""
    monkeypatch.setattr(reference_rank, "IMAGE_BLOCK", 7)
    monkeypatch.setattr(reference_rank, "TEXT_BLOCK", 11)
    index = ragged(seed=seed)
    image, text = embeddings(index, seed=seed)
    found = gk.retrieval_ranks(image, text, index)
    i2t, t2i = naive_ranks(image, text, index)
    assert found.i2t.tolist() == i2t
    assert found.t2i.tolist() == t2i
    assert found.tie_fraction == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes(dtype) -> None:
    index = ragged()
    image, text = (x.to(dtype) for x in embeddings(index))
    i2t, t2i = naive_ranks(image, text, index)
    found = gk.retrieval_ranks(image, text, index, ties="optimistic")
    assert found.i2t.tolist() == i2t
    assert found.t2i.tolist() == t2i


def shuffled_statistics(image, text, index, k: int, trials: int = 3000):
    """Mean rank and hit rate at k when a fair shuffle breaks ties. Returns i2t and t2i pairs."""
    similarity = (image.double() @ text.double().T).tolist()
    rng = random.Random(0)
    sides = []
    queries = (
        [(row, [j for j in range(len(text)) if index[j] == i]) for i, row in enumerate(similarity)],
        [([row[j] for row in similarity], [int(index[j])]) for j in range(len(text))],
    )
    for side in queries:
        total = hits = 0
        for scores, positives in side:
            for _ in range(trials // len(side)):
                order = list(range(len(scores)))
                rng.shuffle(order)
                order.sort(key=lambda c: -scores[c])
                rank = min(order.index(p) for p in positives)
                total, hits = total + rank, hits + (rank < k)
        runs = len(side) * (trials // len(side))
        sides.append((total / runs, 100 * hits / runs))
    return sides


@pytest.mark.parametrize("k", [1, 5])
def test_expected_ranks_and_recalls_of_ties(k) -> None:
    """Embeddings with few values tie everywhere; the expectation must match a simulation."""
    generator = torch.Generator().manual_seed(0)
    index = ragged(6)
    image = torch.randint(0, 2, (6, 3), generator=generator).float()
    text = torch.randint(0, 2, (len(index), 3), generator=generator).float()
    found = gk.retrieval_ranks(image, text, index)
    table = gk.retrieval_metrics(found)
    simulated = shuffled_statistics(image, text, index, k)
    assert found.tie_fraction > 0.3
    for side, ranks, (mean, recall) in zip(
        ("i2t", "t2i"), (found.i2t, found.t2i), simulated, strict=True
    ):
        assert ranks.mean().item() == pytest.approx(mean, abs=0.25)
        assert table[side][f"R@{k}"] == pytest.approx(recall, abs=3)


def test_tie_rules_are_ordered() -> None:
    index = torch.arange(20) // 2
    image, text = torch.ones(10, 4), torch.ones(20, 4)
    low, mid, high = (
        gk.retrieval_ranks(image, text, index, ties=rule)
        for rule in ("optimistic", "expected", "pessimistic")
    )
    assert (low.t2i == 0).all()
    assert (mid.t2i == 4.5).all()
    assert (high.t2i == 9).all()
    assert (low.i2t == 0).all()
    assert (mid.i2t == 18 / 3).all()
    assert (high.i2t == 18).all()


def test_exact_duplicates_tie_whatever_block_they_are_in() -> None:
    """Copies of one image far apart: rounding must not decide between them."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1500, 33, generator=generator)
    image[1499] = image[0]
    found = gk.retrieval_ranks(image, image.clone(), torch.arange(1500))
    assert found.t2i_standing.ties[[0, 1499]].tolist() == [1, 1]
    assert found.t2i[[0, 1499]].tolist() == [0.5, 0.5]


def test_nan_ranks_last_and_is_reported() -> None:
    index = torch.arange(50) // 5
    image, text = embeddings(index)
    text[7] = float("nan")
    clean = gk.retrieval_ranks(image, text.nan_to_num(), index)
    with pytest.warns(RuntimeWarning, match="1 of 60 queries have a NaN"):
        found = gk.retrieval_ranks(image, text, index)
    assert found.nan_scores == 1
    assert found.t2i[7] == 4.5  # every image scores NaN with it: a tie of all ten
    image[3] = float("nan")
    with pytest.warns(RuntimeWarning, match="queries have a NaN"):
        found = gk.retrieval_ranks(image, text, index)
    assert (found.t2i[15:20] == 9).all(), "a NaN image is behind every other image"
    others = [i for i in range(10) if i not in (1, 3)]
    assert (found.i2t[others] <= clean.i2t[others]).all()


@pytest.mark.parametrize("value", [1.0, float("nan")])
def test_a_collapsed_or_broken_model_scores_exactly_chance(value) -> None:
    index = ragged(30)
    image, text = torch.full((30, 8), value), torch.ones(len(index), 8)
    if value != value:
        with pytest.warns(RuntimeWarning, match="NaN"):
            found = gk.retrieval_ranks(image, text, index)
    else:
        found = gk.retrieval_ranks(image, text, index)
    table, chance = gk.retrieval_metrics(found), gk.chance_metrics(index, 30)
    assert table == chance
    assert table["t2i"]["R@1"] == pytest.approx(100 / 30)
    assert table["rsum"] < 200


def test_an_image_without_texts_is_no_query_but_a_distractor() -> None:
    index = torch.tensor([0, 0, 2])
    image = torch.eye(3, 4)
    text = torch.eye(3, 4)[[0, 1, 2]]
    found = gk.retrieval_ranks(image, text, index)
    assert found.i2t[1].isnan()
    assert found.t2i.tolist() == [0.0, 1.5, 0.0]
    assert gk.recall_at_k(found.i2t, 1) == 100


def test_a_trained_model_scores_between_chance_and_everything() -> None:
    index = torch.arange(500) // 5
    table = gk.retrieval_metrics(gk.retrieval_ranks(*embeddings(index), index))
    assert table["i2t"]["R@1"] > 20
    assert table["i2t"]["R@1"] <= table["i2t"]["R@5"] <= table["i2t"]["R@10"] <= 100
    recalls = [table[s][f"R@{k}"] for s in ("i2t", "t2i") for k in (1, 5, 10)]
    assert table["rsum"] == pytest.approx(sum(recalls))


BAD = (
    (lambda i, t, x: gk.retrieval_ranks(i, t, x[:-1]), ValueError, "text_to_image: .*one integer"),
    (lambda i, t, x: gk.retrieval_ranks(i, t, x + 1), ValueError, r"rows in \[0, 9\], got"),
    (lambda i, t, x: gk.retrieval_ranks(i, t, x - 1), ValueError, "rows in"),
    (lambda i, t, x: gk.retrieval_ranks(i, t, x.float()), TypeError, "expected integers"),
    (lambda i, t, x: gk.retrieval_ranks(i, t, x, ties="random"), ValueError, "ties: expected one"),
    (lambda i, t, x: gk.retrieval_ranks(i, t[:, :3], x), ValueError, "text_embeddings: .* width"),
    (lambda i, t, x: gk.retrieval_ranks(i[:0], t, x), ValueError, "expected N, M >= 1"),
    (lambda i, t, x: gk.retrieval_ranks(i, t, x, backend="x"), ValueError, "backend: expected"),
    (lambda i, t, x: gk.recall_at_k(torch.arange(3), 0), ValueError, "k: expected an integer"),
    (lambda i, t, x: gk.recall_at_k(torch.arange(3), 1.0), TypeError, "k: expected an integer"),
    (lambda i, t, x: gk.recall_at_k(torch.zeros(0), 1), ValueError, "at least one query"),
)


@pytest.mark.parametrize(("call", "error", "words"), BAD, ids=range(len(BAD)))
def test_bad_inputs(call, error, words) -> None:
    index = torch.arange(20) // 2
    image, text = embeddings(index)
    with pytest.raises(error, match=words):
        call(image, text, index)


def test_a_backend_that_does_not_rank_says_so(monkeypatch) -> None:
    monkeypatch.setattr(TritonBackend, "ranks", False)
    index = torch.arange(20) // 2
    with pytest.raises(gk.BackendUnavailableError, match="does not rank"):
        gk.retrieval_ranks(*embeddings(index), index, backend="triton")


@pytest.mark.parametrize("backend", ["cpu", "chunked", "reference"])
@pytest.mark.parametrize("texts", [35, 4099])
def test_copies_tie_where_scores_cancel(backend, texts) -> None:
    """Products sum to 0 exactly and to some 1e-17 in most orders, which must be one order."""
    generator = torch.Generator().manual_seed(2)
    half = torch.randn(1, 20, generator=generator)
    back = torch.randn(texts, 20, generator=generator)
    order = torch.randperm(40, generator=generator)
    image = torch.cat([half, half], dim=1)[:, order].repeat(35, 1)
    text = torch.cat([back, -back], dim=1)[:, order]
    owner = torch.arange(texts) % 35
    found = gk.retrieval_ranks(image, text, owner, ties="pessimistic", backend=backend)
    assert found.t2i.tolist() == [34.0] * texts


def test_ensembles_read_positives_and_candidates_from_one_product() -> None:
    """Equal images in a mean of products and given scores: a positive ties with its copies."""
    generator = torch.Generator().manual_seed(4)
    half, back = torch.randn(1, 20, generator=generator), torch.randn(16, 20, generator=generator)
    order = torch.randperm(40, generator=generator)
    image = torch.cat([half, half], dim=1)[:, order].repeat(16, 1)
    text = torch.cat([back, -back], dim=1)[:, order]
    given = MatrixScores(torch.zeros(16, 16))
    scores = MeanScores([EmbeddingScores(image, text), given])
    found = gk.similarity_ranks(scores, torch.arange(16), ties="pessimistic")
    assert found.t2i.tolist() == [15.0] * 16
