"""Search and mining of the CUDA backend on rectangular batches, against the dense reference."""

from __future__ import annotations

import pytest
import torch
from cuda_truth import DTYPES, ENGINES, engine, exact_rows

from goal_kernels.backends.answers import Found
from goal_kernels.backends.base import Pairing, RelativeQuery, SearchQuery
from goal_kernels.backends.gpu import use_programs
from goal_kernels.backends.reference import ReferenceBackend
from goal_kernels.reference import mine_similarity

INF, NAN = float("inf"), float("nan")
KINDS = ("none", "linear", "exponential")
SHAPES = [(1, 1, 1), (1, 3, 1), (2, 1, 7), (130, 33, 33), (64, 129, 16), (257, 300, 8)]
PAIRED = [(False, False), (True, False), (False, True), (True, True)]
"""Whether there are targets, and ids."""


def pairing(rows: int, columns: int, targets: bool, ids: bool) -> Pairing:
    """Targets with holes and repetitions; ids of which many are equal, of either sign."""
    generator = torch.Generator().manual_seed(rows + columns)

    def draw(low: int, high: int, count: int) -> torch.Tensor:
        return torch.randint(low, high, (count,), generator=generator)

    target = draw(-2, columns + 3, rows) if targets else None
    both = (draw(-4, 9, rows), draw(-4, 9, columns)) if ids else (None, None)
    return Pairing(target, *both)


def moved(pairs: Pairing, device: str) -> Pairing:
    return Pairing(*(None if x is None else x.to(device) for x in pairs))


def check_found(found: Found, expected: Found, sum_bound: float) -> None:
    """Exact data: values, indices and counts are equal, sums to rounding."""
    assert found.indices.tolist() == expected.indices.tolist()
    torch.testing.assert_close(
        found.values.double(), expected.values.double(), rtol=0, atol=0, equal_nan=True
    )
    assert found.counts.tolist() == expected.counts.tolist()
    torch.testing.assert_close(
        found.sums.double(), expected.sums.double(), rtol=sum_bound, atol=sum_bound, equal_nan=True
    )


def search(device, image, text, pairs, query) -> Found:
    found = engine(device).search(image.to(device), text.to(device), moved(pairs, device), query)
    return Found(*(x.cpu() for x in found))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("device", ENGINES)
def test_rectangles_with_targets_and_ids(device, shape, kind) -> None:
    """Every kind, shape and pairing meets every other one, no three of them all the others."""
    rows, columns, width = shape
    image = exact_rows(rows, width, torch.bfloat16, 1)
    text = exact_rows(columns, width, torch.bfloat16, 2)
    first = SHAPES.index(shape) + KINDS.index(kind)
    # A threshold that similarities tie with; slopes that start at it, and that cannot.
    for beta in (2.0, 300.0) if kind == "exponential" else (2.0,):
        query = SearchQuery(kind, 0.25, beta, False, "high")
        for number in (first, first + 2):
            pairs = pairing(rows, columns, *PAIRED[number % len(PAIRED)])
            expected = ReferenceBackend().search(image.double(), text.double(), pairs, query)
            check_found(search(device, image, text, pairs, query), expected, 2e-5)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("device", ENGINES)
def test_any_memory_layout(device, dtype) -> None:
    """Transposed, strided, offset and expanded views give what their copies give, bit for bit."""
    image, text = exact_rows(40, 16, dtype, 1), exact_rows(40, 16, dtype, 2)
    query = SearchQuery("linear", 0.25, 2.0, False, "high")
    expected = search(device, image, text, Pairing(), query)
    padded = torch.full((40, 25), NAN, dtype=dtype)
    padded[:, 3:19] = image
    spaced = torch.full((40, 32), NAN, dtype=dtype)
    spaced[:, ::2] = image
    backend = engine(device)
    for view in (padded.to(device)[:, 3:19], spaced.to(device)[:, ::2]):
        found = backend.search(view, text.to(device).T.contiguous().T, Pairing(), query)
        for left, right in zip(found, expected, strict=True):
            assert torch.equal(left.cpu(), right)
    constant = image[:1].to(device).expand(40, 16)
    found = backend.search(constant, text.to(device), Pairing(), query)
    copied = backend.search(constant.contiguous(), text.to(device), Pairing(), query)
    for left, right in zip(found, copied, strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize("threshold", [-INF, -50.0, -0.5, 0.0, 0.25, 50.0, INF, NAN])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("device", ENGINES)
def test_thresholds_of_any_value(device, kind, threshold) -> None:
    image, text = exact_rows(70, 8, torch.float16, 1), exact_rows(60, 8, torch.float16, 2)
    smallest = (image[:60].double() * text.double()).sum(1).min().item()
    for beta in (0.0, 4.0, 1e30):
        query = SearchQuery(kind, smallest - threshold, beta, False, "high")
        found = search(device, image, text, Pairing(), query).mined
        question = RelativeQuery(kind, torch.tensor(threshold).double(), beta)
        expected = mine_similarity(image.double() @ text.double().T, Pairing(), question)
        for name, left, right in zip(found._fields, found, expected, strict=True):
            torch.testing.assert_close(
                left.double(), right.double(), rtol=2e-5, atol=2e-5, msg=f"{name} {beta}"
            )


@pytest.mark.parametrize("broken", [NAN, INF, -INF, "opposed"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("device", ENGINES)
def test_values_that_are_not_finite(device, kind, broken) -> None:
    """The first NaN wins, -inf is a candidate like any other, opposed infinities are NaN."""
    image, text = exact_rows(140, 8, torch.bfloat16, 1), exact_rows(131, 8, torch.bfloat16, 2)
    text[:, 2] = 1.0
    image[5, 2] = INF if broken == "opposed" else broken
    if broken == "opposed":
        text[77, 2] = -INF
    query = SearchQuery(kind, 0.25, 2.0, False, "high")
    for pairs in (Pairing(), pairing(140, 131, True, True)):
        expected = ReferenceBackend().search(image.double(), text.double(), pairs, query)
        found = search(device, image, text, pairs, query)
        check_found(found, expected, 2e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("device", ENGINES)
def test_results_do_not_depend_on_the_number_of_programs(device, kind) -> None:
    generator = torch.Generator().manual_seed(0)
    image, text = (torch.randn(n, 24, generator=generator).half() for n in (700, 900))
    query = SearchQuery(kind, 0.1, 0.5, False, "high")
    results = []
    for programs in (132, 1, 3, 7):
        with use_programs(programs):
            results.append(search(device, image, text, Pairing(), query))
    for other in results[1:]:
        for left, right in zip(results[0], other, strict=True):
            assert torch.equal(left, right)


@pytest.mark.parametrize("device", ENGINES)
def test_scales_and_rows_too_short_to_normalise(device) -> None:
    image, text = exact_rows(20, 8, torch.float32, 1), exact_rows(20, 8, torch.float32, 2)
    image[3], text[4] = 0.0, 1e-14
    found = search(device, image, text, Pairing(), SearchQuery("none", 0.1, 1.0, True, "high"))
    expected = 1 / torch.cat([image, text]).norm(dim=1).clamp(min=1e-12)
    torch.testing.assert_close(found.scales_of_rows, expected, rtol=1e-6, atol=0)
    assert found.values.isfinite().all()
    assert (found.positive[3], found.mined.row_value[3]) == (0.0, 0.0)
