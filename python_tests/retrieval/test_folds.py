"""Folds against a loop written out by hand, and histograms of ranks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from literature import argsort_ranks, embeddings, flat, index, printed

import goal_kernels as gk
from goal_kernels.retrieval import MatrixScores, MeanScores, sibling_recalls
from goal_kernels.training.rankings import RerankedScores


def test_five_folds_are_the_literature_to_the_last_bit() -> None:
    image, text = embeddings(noise=2.5, images=100)
    images, captions = image.double().numpy(), text.double().numpy()
    results = []
    for fold in range(5):
        shard = images[fold * 20 : (fold + 1) * 20]
        sims = np.matmul(shard, captions[fold * 100 : (fold + 1) * 100].T)
        results.append(printed(*argsort_ranks(sims, np.arange(100) // 5)))
    found = gk.fold_metrics((image, text), index(100), 5, ties="argsort")
    assert [flat(table) for table in found.folds] == results
    assert flat(found.mean) == np.array(results).mean(axis=0).tolist()
    assert flat(found.std) == pytest.approx(np.array(results).std(axis=0, ddof=1).tolist())
    assert (
        found.mean["rsum"]
        > gk.retrieval_metrics(gk.retrieval_ranks(image, text, index(100)))["rsum"]
    )


def test_texts_in_any_order_and_any_source() -> None:
    image, text = embeddings(noise=2.5)
    shuffled = torch.randperm(len(text), generator=torch.Generator().manual_seed(1))
    wanted = gk.fold_metrics((image, text), index(), 4).mean
    products = (image.double() @ text.double().T).float()
    for given in ((image, text[shuffled]), products[:, shuffled]):
        assert gk.fold_metrics(given, index()[shuffled], 4).mean == wanted
    pair = gk.retrieval.EmbeddingScores(image, text)
    assert gk.fold_metrics(MeanScores([pair, pair]), index(), 4).mean == wanted


def test_one_fold_is_everything_at_once() -> None:
    image, text = embeddings(noise=2.5)
    found = gk.fold_metrics((image, text), index(), 1)
    whole = gk.retrieval_metrics(gk.retrieval_ranks(image, text, index()))
    assert found.mean == found.folds[0] == whole
    assert set(flat(found.std)) == {0.0}


@pytest.mark.parametrize("folds", [0, 7, 2.5, True])
def test_folds_divide_the_images(folds) -> None:
    with pytest.raises(ValueError, match="folds: expected a whole number that divides the 60"):
        gk.fold_metrics(embeddings(), index(), folds)


def test_a_fold_without_texts_is_refused() -> None:
    image, text = embeddings()
    with pytest.raises(ValueError, match="fold 2 has none"):
        gk.fold_metrics((image, text[:100]), index()[:100], 3)


def test_histogram_counts_every_query_once() -> None:
    ranks = torch.tensor([0.0, 0, 1, 2, 4, 4.5, 5, 9, 10, 19, 20, 998, 999, float("nan")])
    found = gk.rank_histogram(ranks, 1000)
    assert found.labels() == [
        *("1", "2", "3-5", "6-10", "11-20", "21-50", "51-100", "101-200", "201-500", "501-1,000")
    ]
    assert found.queries.tolist() == [2, 1, 3, 2, 2, 1, 0, 0, 0, 2]
    assert found.share.sum() == pytest.approx(100)
    assert gk.rank_histogram(torch.tensor([0, 6]), 7).labels() == ["1", "2", "3-5", "6-7"]
    with pytest.raises(ValueError, match="ranks: expected 0-based ranks below 999"):
        gk.rank_histogram(ranks, 999)


FAMILIES = [7, 7, 7, 2, 5, 5, 0, 0, 0, 0]
"""Of images: one of them alone."""


def literal_sibling_recall(scores: torch.Tensor, own: torch.Tensor, near: torch.Tensor) -> float:
    """Percent of rows whose first candidate is right, in expectation. own, near: bool [Q, C]."""
    hits = []
    for row, right, family in zip(scores, own, near, strict=True):
        if right.any() and (family & ~right).any():
            best = row[right].max()
            wrong, level = row[family & ~right], int((row[right] == best).sum())
            hits.append(0 if (wrong > best).any() else level / (level + int((wrong == best).sum())))
    return 100 * sum(hits) / len(hits)


@pytest.mark.parametrize("levels", [2, 1000])
def test_siblings_are_ranked_among_themselves(levels: int) -> None:
    """The last image has no caption, the fourth no sibling: they ask nothing."""
    generator = torch.Generator().manual_seed(levels)
    owner = torch.randperm(27, generator=generator) % 9
    first, then = (torch.randint(levels, (10, 27), generator=generator).double() for _ in range(2))
    rankings = {
        "first": first,
        "then": RerankedScores(MatrixScores(first), lambda i, j: then[i, j], 27),
    }
    found = sibling_recalls(rankings, owner, FAMILIES)
    families = torch.tensor(FAMILIES)
    own, near = (x[:, None] == x[owner] for x in (torch.arange(10), families))
    for name, scores in {"first": first, "then": then, "chance": 0 * first}.items():
        assert found[name] == {
            "i2t": pytest.approx(literal_sibling_recall(scores, own, near)),
            "t2i": pytest.approx(literal_sibling_recall(scores.T, own.T, near.T)),
        }
    # Of 10 images in families of 3, 2 and 4, 8 have 3 captions of 9, 6 and 9.
    assert found["chance"]["i2t"] == pytest.approx(100 * (3 / 3 + 2 / 2 + 3 / 3) / 8)
    assert found["chance"]["t2i"] == pytest.approx(100 * (9 / 3 + 6 / 2 + 9 / 4) / 24)


def test_families_that_ask_nothing_and_scattered_ones() -> None:
    scores, owner = {"own": torch.rand(3, 3)}, [0, 1, 2]
    assert sibling_recalls(scores, owner, None) == {}
    assert sibling_recalls(scores, owner, [4, 5, 6]) == {}
    with pytest.raises(ValueError, match="families: expected the images of a family one after"):
        sibling_recalls(scores, owner, [4, 5, 4])


@pytest.mark.filterwarnings("error")
def test_a_broken_model_confuses_all_siblings() -> None:
    scores = torch.full((2, 2), torch.nan)
    assert sibling_recalls({"nan": scores}, [0, 1], [0, 0])["nan"] == {"i2t": 50, "t2i": 50}
