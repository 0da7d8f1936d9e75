"""Top-k search of the native module: every instruction set, screened and not, any threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from native_calls import ISAS
from test_native_screen import SCREENING_ISAS
from top_k_literal import assert_is, top_k_literally
from torch import Tensor

from goal_kernels import native
from goal_kernels.backends.answers import MinedTopK
from goal_kernels.backends.base import TopKQuery
from goal_kernels.backends.cpu import CpuBackend
from goal_kernels.backends.reference import ReferenceBackend

# Just above the smallest job that is screened; not multiples of any tile, with several chunks.
ROWS, COLUMNS, WIDTH = 531, 517, 131


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def query(k: int, **changes: object) -> TopKQuery:
    return TopKQuery(k, None, None, None, False, "highest")._replace(**changes)


def embeddings(seed: int = 0, columns: int = COLUMNS) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.nn.functional.normalize(torch.randn(rows, WIDTH, generator=generator), dim=1)
        for rows in (ROWS, columns)
    )


class Watched(CpuBackend):
    """Keeps what was multiplied in the last search."""

    product = ""

    def top_k(self, queries: Tensor, corpus: Tensor, query: TopKQuery) -> MinedTopK:
        native_search = native.load().top_k

        def watch(*matrices: object, **given: object) -> None:
            self.product = native_search(*matrices, **given)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(native.load(), "top_k", watch)
            return super().top_k(queries, corpus, query)


def agrees(found: MinedTopK, expected: MinedTopK) -> None:
    """The same up to what float rounds: scores close, and indices those of such scores."""
    assert torch.equal(found.counts, expected.counts)
    torch.testing.assert_close(found.scores, expected.scores, atol=3e-7, rtol=0)
    differ = found.indices != expected.indices
    assert differ.sum() <= 4, f"{differ.sum()} indices differ"


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_every_instruction_set_is_exact(isa, dtype) -> None:
    """Whole numbers, most of them ties; lists are shortened several times."""
    generator = torch.Generator().manual_seed(1)
    queries, corpus = (
        torch.randint(-1, 2, (rows, 9), generator=generator).to(dtype) for rows in (45, 700)
    )
    bounds = (torch.arange(45) % 6).to(torch.promote_types(dtype, torch.float32))
    ids = torch.arange(45) % 11, torch.arange(700) % 11
    asked = query(6, query_ids=ids[0], corpus_ids=ids[1], max_score=bounds)
    found = CpuBackend(isa).top_k(queries, corpus, asked)
    assert_is(found, top_k_literally(queries, corpus, 6, ids, bounds))


@pytest.mark.parametrize("isa", SCREENING_ISAS)
@pytest.mark.parametrize("k", [1, 10, 60])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_screened_search_is_as_float_decides(isa, k, dtype) -> None:
    queries, corpus = (x.to(dtype) for x in embeddings())
    backend = Watched(isa)
    found = backend.top_k(queries, corpus, query(k))
    assert backend.product == "screened"
    agrees(found, ReferenceBackend().top_k(queries, corpus, query(k)))


@pytest.mark.parametrize("isa", SCREENING_ISAS)
def test_rounding_that_misleads_as_much_as_it_can(isa) -> None:
    """Half a unit in the last place: the best candidate rounds down everywhere, its rivals up."""
    queries, corpus = embeddings()
    half_unit, little, scale = 2.0**-8, 2.0**-16, 2.0**-3
    queries[5] = scale
    corpus[100:120] = scale * (1 + half_unit + little)
    corpus[400] = scale * (1 + half_unit - little)
    corpus[400, -1] += scale * 3 * little * WIDTH
    backend = Watched(isa)
    found = backend.top_k(queries, corpus, query(3))
    assert backend.product == "screened"
    assert found.indices[5].tolist() == [400, 100, 101]
    # Bounds between the two: what rounds up is below them.
    bounds = torch.full((ROWS,), (found.scores[5, 0] + found.scores[5, 1]).item() / 2)
    found = backend.top_k(queries, corpus, query(3, max_score=bounds))
    assert backend.product == "screened"
    assert found.indices[5].tolist() == [100, 101, 102]


@pytest.mark.parametrize("isa", SCREENING_ISAS)
@pytest.mark.parametrize(("scale", "product"), [(0.01, "exact"), (3.0, "screened")])
def test_bounds_are_decided_in_float(isa, scale, product) -> None:
    """Where most bounds lie among the scores, rounding leaves too many pairs open."""
    queries, corpus = embeddings(2)
    bounds = torch.randn(ROWS, generator=torch.Generator().manual_seed(3)) * scale
    # Some bounds are scores themselves: an equal one stays.
    own = [17, 300]
    bounds[own] = ReferenceBackend().top_k(queries, corpus, query(5)).scores[own, 4]
    asked = query(5, max_score=bounds)
    backend = Watched(isa)
    found = backend.top_k(queries, corpus, asked)
    assert backend.product == product
    assert (found.scores <= bounds[:, None]).all()
    expected = ReferenceBackend().top_k(queries, corpus, asked)
    others = torch.ones(ROWS, dtype=torch.bool)
    others[own] = False  # the last bit of their best score decides
    agrees(MinedTopK(*(x[others] for x in found)), MinedTopK(*(x[others] for x in expected)))


@pytest.mark.parametrize("isa", SCREENING_ISAS)
@pytest.mark.parametrize(
    ("first", "product"), [(COLUMNS - 100, "screened"), (0, "exact")], ids=["some", "all"]
)
def test_many_equal_candidates(isa, first, product) -> None:
    """More ties than a list can keep open; where all are, the screened search gives up."""
    queries, corpus = embeddings(4)
    queries[:9] = corpus[:1]
    corpus[first:] = corpus[:1].clone()
    corpus[0] = 0
    backend = Watched(isa)
    found = backend.top_k(queries, corpus, query(7))
    assert backend.product == product
    first = max(first, 1)
    assert found.indices[:9].unique(dim=0).tolist() == [list(range(first, first + 7))]
    expected = ReferenceBackend().top_k(queries, corpus, query(7))
    torch.testing.assert_close(found.scores, expected.scores, atol=3e-7, rtol=0)


@pytest.mark.parametrize("isa", SCREENING_ISAS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_what_has_no_bound_is_not_screened(isa, value) -> None:
    queries, corpus = embeddings(5)
    corpus[100, 3] = value
    queries[:, 3] = queries[:, 3].abs() + 0.1
    backend = Watched(isa)
    found = backend.top_k(queries, corpus, query(3))
    assert backend.product == "exact"
    assert (found.indices[:, 0] == 100).all()
    others = torch.arange(COLUMNS) != 100
    expected = ReferenceBackend().top_k(queries, corpus[others], query(2))
    torch.testing.assert_close(found.scores[:, 1:], expected.scores, atol=3e-7, rtol=0)


@pytest.mark.parametrize("isa", [isa for isa in ISAS if "emulated" not in isa])
@pytest.mark.parametrize("normalize", [False, True])
def test_threads_change_no_bit(isa, normalize) -> None:
    queries, corpus = embeddings(6, columns=2300)
    bounds = torch.full((ROWS,), 0.2)
    ids = torch.arange(ROWS) % 50, torch.arange(2300) % 50
    asked = query(10, query_ids=ids[0], corpus_ids=ids[1], max_score=bounds, normalize=normalize)
    answers = []
    for count in (1, 2, 5):
        with threads(count):
            answers.append(CpuBackend(isa).top_k(queries, corpus, asked))
    for answer in answers[1:]:
        assert all(torch.equal(a, b) for a, b in zip(answer, answers[0], strict=True))


def test_rows_are_searched_in_parts_whose_lists_fit() -> None:
    """As many candidates as there are: the lists of all rows together would take 150 MB."""
    generator = torch.Generator().manual_seed(7)
    queries, corpus = (
        torch.randint(-3, 4, (rows, 5), generator=generator).float() for rows in (9000, 517)
    )
    ids = torch.arange(9000) % 100, torch.arange(517) % 100
    bounds = torch.arange(9000).float() % 40
    asked = query(517, query_ids=ids[0], corpus_ids=ids[1], max_score=bounds)
    found = CpuBackend().top_k(queries, corpus, asked)
    expected = ReferenceBackend().top_k(queries, corpus, asked)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
