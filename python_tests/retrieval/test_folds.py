"""Folds against a loop written out by hand, and histograms of ranks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from literature import argsort_ranks, embeddings, flat, index, printed

import goal_kernels as gk
from goal_kernels.retrieval import MeanScores


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
