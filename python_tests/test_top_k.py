"""`mine_top_k` over backends, against a literal loop."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from top_k_literal import assert_is, top_k_literally
from torch import Tensor

import goal_kernels as gk
from goal_kernels.backends import torch_top_k
from goal_kernels.backends.choice import BACKENDS

SERVING = [b.name for b in BACKENDS if b.finds_top_k and b.availability().ok]
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
ROWS, COLUMNS, WIDTH = 37, 150, 24
SIZES = (1, 3, 10, 100, COLUMNS + 7)
OPTIONS = ("plain", "ids", "bounds", "both")


def whole_numbers(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Small integers, whose sums are exact in every dtype; every column comes twice."""
    generator = torch.Generator().manual_seed(seed)
    queries, corpus = (
        torch.randint(-2, 3, (rows, WIDTH), generator=generator).float() for rows in (ROWS, COLUMNS)
    )
    corpus[COLUMNS // 2 :] = corpus[: COLUMNS - COLUMNS // 2]
    return queries, corpus


def option(name: str) -> tuple[tuple[Tensor, Tensor] | None, Tensor | None]:
    """ids and max_score; bounds that some scores meet exactly, one that is NaN, one below all."""
    ids = torch.arange(ROWS) % 7 + 2**40, torch.arange(COLUMNS) % 7 + 2**40
    bounds = torch.arange(ROWS).float() % 23
    bounds[3], bounds[4] = math.nan, -1e4
    return ids if name in ("ids", "both") else None, bounds if name in ("bounds", "both") else None


CASES = [
    (dtype, OPTIONS[i % 4], k) for i, (dtype, k) in enumerate(itertools.product(DTYPES, SIZES))
] + [(torch.float32, name, 10) for name in OPTIONS]


@pytest.mark.parametrize("backend", SERVING)
@pytest.mark.parametrize(("dtype", "name", "k"), CASES, ids=lambda part: str(part))
def test_a_literal_loop_finds_the_same(backend, dtype, name, k) -> None:
    queries, corpus = whole_numbers()
    ids, bounds = option(name)
    query_ids, corpus_ids = ids or (None, None)
    found = gk.mine_top_k(
        queries.to(dtype),
        corpus.to(dtype),
        k,
        query_ids=query_ids,
        corpus_ids=corpus_ids,
        max_score=bounds,
        backend=backend,
    )
    assert_is(found, top_k_literally(queries, corpus, k, ids, bounds))
    assert found.scores.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert found.scores.shape == found.indices.shape == (ROWS, k)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("k", [2, 40])
def test_blocks_and_segments_join(monkeypatch, name, k) -> None:
    monkeypatch.setattr(torch_top_k, "BLOCK_ROWS", 16)
    monkeypatch.setattr(torch_top_k, "BLOCK_COLUMNS", 64)
    monkeypatch.setattr(torch_top_k, "SEGMENT", 4)
    monkeypatch.setattr(torch_top_k, "FEW", 2)
    queries, corpus = whole_numbers(1)
    ids, bounds = option(name)
    query_ids, corpus_ids = ids or (None, None)
    found = gk.mine_top_k(
        *(queries, corpus, k),
        query_ids=query_ids,
        corpus_ids=corpus_ids,
        max_score=bounds,
        backend="chunked",
    )
    assert_is(found, top_k_literally(queries, corpus, k, ids, bounds))


@pytest.mark.parametrize("backend", SERVING)
@pytest.mark.parametrize("k", [1, 5, 100])
def test_nan_is_above_all_and_minus_infinity_is_a_candidate(backend, k) -> None:
    queries = torch.tensor([[1.0, 0.0], [0.0, 1.0], [math.nan, 1.0]])
    corpus = torch.ones(90, 2)
    corpus[[7, 60]] = torch.tensor([math.nan, math.nan])
    corpus[[8, 9], 0] = torch.tensor([-math.inf, math.inf])
    corpus[10] = torch.tensor([-math.inf, 2.0])
    found = gk.mine_top_k(queries, corpus, k, backend=backend)
    assert_is(found, top_k_literally(queries, corpus, k))


@pytest.mark.parametrize("backend", SERVING)
def test_a_collapsed_model_gives_the_lowest_indices(backend) -> None:
    queries = torch.full((600, 160), 0.125)
    found = gk.mine_top_k(queries, queries, 3, query_ids=torch.arange(600), backend=backend)
    assert found.indices[0].tolist() == [1, 2, 3]
    assert found.indices[2].tolist() == [0, 1, 3]
    assert found.indices[5:].unique(dim=0).tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("backend", SERVING)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_normalize_takes_cosines(backend, dtype) -> None:
    generator = torch.Generator().manual_seed(2)
    queries, corpus = (torch.randn(50, 40, generator=generator).to(dtype) for _ in range(2))
    unit = [torch.nn.functional.normalize(x.double(), dim=1) for x in (queries, corpus)]
    found = gk.mine_top_k(queries, corpus, 4, normalize=True, backend=backend)
    expected = (unit[0] @ unit[1].T).gather(1, found.indices)
    torch.testing.assert_close(found.scores.double(), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(
        found.scores.double(), (unit[0] @ unit[1].T).topk(4).values, atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("precision", ["high", "medium"])
@pytest.mark.parametrize("normalize", [False, True])
def test_scores_are_of_full_precision(precision, normalize) -> None:
    generator = torch.Generator().manual_seed(3)
    queries, corpus = (torch.randn(40, 64, generator=generator) for _ in range(2))
    found = gk.mine_top_k(
        queries, corpus, 50, normalize=normalize, precision=precision, backend="chunked"
    )
    rows = [x.double() for x in (queries, corpus)]
    if normalize:
        rows = [torch.nn.functional.normalize(x, dim=1) for x in rows]
    expected = (rows[0] @ rows[1].T).gather(1, found.indices[:, :40])
    torch.testing.assert_close(found.scores[:, :40].double(), expected, atol=2e-5, rtol=0)
    assert (found.scores[:, 1:] <= found.scores[:, :-1]).all()
    assert (found.indices[:, 40:] == -1).all()


@pytest.mark.parametrize("backend", SERVING)
def test_a_bound_that_float32_cannot_hold_is_rounded_down(backend) -> None:
    one = torch.ones(1, 1)
    above = math.nextafter(1.0, 2.0)
    below = math.nextafter(1.0, 0.0)
    for bound, count in ((above, 1), (1.0, 1), (below, 0)):
        assert gk.mine_top_k(one, one, 1, max_score=[bound], backend=backend).counts == count


def test_arrays_and_lists_are_taken() -> None:
    queries, corpus = whole_numbers()
    expected = gk.mine_top_k(queries, corpus, 3, max_score=torch.full((ROWS,), 4.0))
    found = gk.mine_top_k(queries.numpy(), corpus.numpy(), np.int64(3), max_score=[4.0] * ROWS)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert not found.scores.requires_grad


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"k": 0}, ValueError, "k: expected at least 1"),
        ({"k": 10**20}, ValueError, r"k: expected at least 1 and below 2\^31"),
        ({"k": True}, TypeError, "k: expected an integer"),
        ({"k": 2.0}, TypeError, "k: expected an integer"),
        ({"corpus": torch.ones(3, 5)}, ValueError, "corpus: expected the width of queries"),
        ({"corpus": torch.ones(3, 4).long()}, TypeError, "corpus: expected one of float16"),
        ({"queries": torch.ones(0, 4)}, ValueError, "N, M >= 1"),
        ({"query_ids": [0, 1]}, ValueError, "corpus_ids: expected ids for both"),
        ({"max_score": [1.0]}, ValueError, r"max_score: expected one float a query, \[2\]"),
        ({"max_score": torch.ones(2).long()}, ValueError, "max_score: expected one float"),
        ({"precision": "low"}, ValueError, "precision"),
        ({"normalize": 1}, TypeError, "normalize"),
        ({"backend": "triton"}, gk.BackendUnavailableError, "does not find the top k"),
    ],
    ids=lambda part: next(iter(part)) if isinstance(part, dict) else None,
)
def test_what_cannot_be_is_refused(change, error, words) -> None:
    given = {"queries": torch.ones(2, 4), "corpus": torch.ones(3, 4), "k": 1, **change}
    with pytest.raises(error, match=words):
        gk.mine_top_k(given.pop("queries"), given.pop("corpus"), given.pop("k"), **given)
