"""Positives and mined pairs together, and both forms of sums that mining kernels leave."""

from __future__ import annotations

import math

import pytest
import torch
from mining_literal import (
    CASES,
    Anchor,
    Case,
    full_pairing,
    mined_anchor,
    mined_literally,
    whole_numbers,
)
from sum_units import final, linear_scale, to_fields
from torch import Tensor

from goal_kernels.backends.answers import Found
from goal_kernels.backends.base import PRECISIONS, RELATIVE_KINDS, Pairing, SearchQuery
from goal_kernels.backends.gpu import runtime
from goal_kernels.backends.gpu.configs import FIXED
from goal_kernels.backends.gpu.kernels import results
from goal_kernels.backends.gpu.kernels.prepare import prepare
from goal_kernels.backends.gpu.records import MiningQuery, MiningResult, Side, Wants
from goal_kernels.backends.reference import ReferenceBackend

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

HALF_LIFE = math.log(2.0)
"""beta at which whole-numbered gaps give powers of two"""

NOTHING = -(2**63)
NO_PAIRING = (None, None, None)
EPSILON = 1.0

Query = tuple[str, float, float]
"""kind, threshold, beta"""


def search(backend, image, text, pairing=NO_PAIRING, kind="none", **options) -> Found:
    pairing = Pairing(*(None if t is None else t.to(image.device) for t in pairing))
    settings = {"epsilon": EPSILON, "beta": HALF_LIFE, "normalize": False, "precision": "highest"}
    return backend.search(image, text, pairing, SearchQuery(kind, **{**settings, **options}))


def smallest_positive(image: Tensor, text: Tensor, target: Tensor | None) -> float:
    own = range(len(image)) if target is None else target.tolist()
    scores = (image.double() @ text.double().T).cpu()
    return min(
        [scores[i, t].item() for i, t in enumerate(own) if 0 <= t < len(text)], default=math.inf
    )


def check(found: Found, expected: tuple[list[Anchor], list[Anchor]], kind: str) -> None:
    """Values, indices and counts must be equal, sums within float32 rounding."""
    anchors = [*expected[0], *expected[1]]
    rows = len(expected[0])
    value = torch.tensor([a[0] for a in anchors], dtype=torch.float32)
    torch.testing.assert_close(found.values[rows:].cpu(), value, rtol=0, atol=0, equal_nan=True)
    assert found.indices.tolist() == [a[1] for a in anchors]
    assert found.indices.dtype == found.counts.dtype == torch.int64
    if kind == "none":
        assert found.sums.shape == found.counts.shape == (0,)
        return
    assert found.counts.tolist() == [a[3] for a in anchors]
    total = torch.tensor([a[2] for a in anchors])
    torch.testing.assert_close(found.sums.cpu(), total, rtol=2e-6, atol=0, equal_nan=True)


@pytest.mark.parametrize("kind", RELATIVE_KINDS)
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("paired", [False, True], ids=["implicit", "target+ids"])
def test_exact_data(backend, device, nan_filled_memory, case: Case, kind, paired: bool) -> None:
    image = whole_numbers(case.rows, case.width, torch.float32, 51).to(device)
    text = whole_numbers(case.columns, case.width, torch.float32, 52).to(device)
    pairing = full_pairing(case) if paired else NO_PAIRING
    found = search(backend, image, text, pairing, kind)
    threshold = smallest_positive(image, text, pairing[0]) - EPSILON
    check(found, mined_literally(image, text, pairing, (kind, threshold, HALF_LIFE)), kind)
    own = list(range(case.rows)) if pairing[0] is None else pairing[0].tolist()
    scores = image.cpu() @ text.cpu().T
    positive = [
        scores[i, t].item() if 0 <= t < case.columns else -math.inf for i, t in enumerate(own)
    ]
    assert found.positive.tolist() == positive
    assert found.scales_of_rows.shape == (0,)


@pytest.mark.parametrize("kind", RELATIVE_KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_normalised_rows(backend, device, dtype: torch.dtype, kind: str) -> None:
    """Values are those of unrounded unit rows, at indices mined from rounded ones."""
    generator = torch.Generator().manual_seed(53)
    image = (torch.randn(70, 33, generator=generator) * 4).to(dtype)
    text = (torch.randn(67, 33, generator=generator) / 4).to(dtype)
    ids = (None, torch.arange(70) % 35, torch.arange(67) % 40)
    found = search(backend, image.to(device), text.to(device), ids, kind, normalize=True)
    x, y = (torch.nn.functional.normalize(rows.double(), dim=1) for rows in (image, text))
    scores = x @ y.T
    relative = (kind, smallest_positive(x, y, None) - EPSILON, HALF_LIFE)
    expected = mined_literally(x, y, ids, relative)
    mined = found.mined
    loss = 0.0 if dtype == torch.float32 else 2 * torch.finfo(dtype).eps
    for value, index, anchors, dense in (
        (mined.row_value, mined.row_index, expected[0], scores),
        (mined.column_value, mined.column_index, expected[1], scores.T),
    ):
        chosen = dense.gather(1, index.cpu()[:, None])[:, 0]
        assert (value.cpu() - chosen).abs().max() <= 2e-6
        truth = torch.tensor([a[0] for a in anchors], dtype=torch.float64)
        assert (truth - chosen).max() <= 2e-6 + 2 * loss
    assert (found.positive[:67].cpu() - scores.diagonal()).abs().max() <= 2e-6
    assert found.positive[67:].tolist() == [-math.inf] * 3
    if kind != "none":
        sums = torch.tensor([a[2] for a in (*expected[0], *expected[1])])
        slack = 67 * 4 * loss
        torch.testing.assert_close(found.sums.cpu(), sums.float(), rtol=1e-4, atol=slack)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_values_are_exact_at_any_precision(backend, device, precision, normalize) -> None:
    generator = torch.Generator().manual_seed(54)
    image, text = torch.randn(2, 50, 530, generator=generator).to(device)
    ids = (None, torch.tensor([0] * 49 + [1]), torch.zeros(50, dtype=torch.int64))
    found = search(backend, image, text, ids, precision=precision, normalize=normalize)
    assert found.mined.row_index[:49].tolist() == [-1] * 49
    assert found.mined.row_value[:49].tolist() == [-math.inf] * 49
    x, y = image.double().cpu(), text.double().cpu()
    if normalize:
        x, y = (torch.nn.functional.normalize(rows, dim=1) for rows in (x, y))
    scores = x @ y.T
    slack = 1e-6 * x.norm(dim=1).max() * y.norm(dim=1).max()
    index = found.mined.column_index.cpu()
    assert index.tolist() == [49] * 49 + [-1]
    error = (found.mined.column_value.cpu() - scores[49])[:49].abs().max()
    assert error <= slack


@pytest.mark.parametrize("kind", RELATIVE_KINDS)
@pytest.mark.parametrize("normalize", [False, True])
def test_the_dense_reference_agrees(backend, device, kind: str, normalize: bool) -> None:
    """The same in plain torch, on data whose similarities round."""
    generator = torch.Generator().manual_seed(55)
    image, text = torch.randn(2, 100, 20, generator=generator).to(device) / 4
    found = search(backend, image, text, NO_PAIRING, kind, normalize=normalize)
    query = SearchQuery(kind, EPSILON, HALF_LIFE, normalize, "highest")
    composed = ReferenceBackend().search(image, text, Pairing(), query)
    assert torch.equal(found.indices, composed.indices)
    assert torch.equal(found.counts, composed.counts)
    for one, other in zip(found, composed, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", RELATIVE_KINDS)
def test_the_first_nan_wins(backend, device, kind: str) -> None:
    """A NaN positive makes the threshold NaN, which no similarity reaches."""
    image = whole_numbers(70, 3, torch.float32, 56)
    text = whole_numbers(140, 3, torch.float32, 57)
    text[[20, 90]] = math.nan
    image, text = image.to(device), text.to(device)
    found = search(backend, image, text, NO_PAIRING, kind)
    expected = mined_literally(image, text, NO_PAIRING, (kind, math.nan, HALF_LIFE))
    check(found, expected, kind)
    assert found.positive[20].isnan()


def test_any_strides(backend, device) -> None:
    """Column slices, row steps and transposes give what a contiguous copy gives, bit for bit."""
    base = torch.randn(140, 90, generator=torch.Generator().manual_seed(58)).to(device)
    image, text = base[::2, 3:40], base.T[10:80, 5:42]
    for precision in PRECISIONS:
        options = {"precision": precision, "normalize": precision != "highest"}
        views = search(backend, image, text, kind="linear", **options)
        copies = search(backend, image.contiguous(), text.contiguous(), kind="linear", **options)
        assert all(torch.equal(a, b) for a, b in zip(views, copies, strict=True))


def ordered(values: Tensor) -> Tensor:
    """int64 of the order of float32 values, as the upper half of a packed key."""
    bits = (values + 0.0).view(torch.int32).long()
    return torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


def fixed_side(scores: Tensor, allowed: Tensor, query: Query, bound: float) -> Side:
    """What a kernel with sums that start at the threshold leaves of anchors; scores [length, K].

    bound: no score is larger, as kernels know. Every negative is added by itself.
    """
    kind, threshold, beta = query
    masked = scores.masked_fill(~allowed, -math.inf)
    value, index = masked.max(dim=1)
    keys = torch.where(allowed.any(dim=1), ordered(value) << 32 | (2**31 - 1 - index), NOTHING)
    kept = allowed & (scores >= threshold)
    above = scores - threshold
    terms = torch.where(kept, above if kind == "linear" else torch.exp(beta * above), 0.0)
    scale = linear_scale(bound, threshold)
    sums = torch.tensor([to_fields(line, kind, scale) for line in terms.tolist()]).T.contiguous()
    ties = ((masked == value[:, None]) & allowed).sum(dim=1)
    tops = torch.where(ties > 0, ordered(value) << 32 | ties, NOTHING)
    return Side(keys, sums, kept.sum(dim=1).int(), tops if kind == "linear" else None)


def finish_fixed(device, sides: list[Side], batch_stats: list[float], query: Query) -> Found:
    """Run `finish_kernel` on what `fixed_side` made."""
    kind, _, beta = query
    image, text = (torch.ones(len(side.keys), 2, device=device) for side in sides)
    anchors = len(image) + len(text)
    found = Found(
        torch.empty(len(image) + anchors, device=device),
        torch.empty(anchors, dtype=torch.int64, device=device),
        torch.empty(anchors, device=device),
        torch.empty(anchors, dtype=torch.int64, device=device),
        torch.empty(0, device=device),
    )
    prepared = prepare(image, text, Pairing(), Wants(), found.values)
    prepared = prepared._replace(batch_stats=torch.tensor(batch_stats, device=device)[:, None])
    moved = [Side(*(x.to(device) if isinstance(x, Tensor) else x for x in s)) for s in sides]
    with runtime.on_device(image):
        mining_query = MiningQuery.build(kind, EPSILON, beta, "highest")
        results.finish(prepared, MiningResult(moved[0], moved[1], FIXED), mining_query, found)
    return found


def scored(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Whole scores that tie often, which of them count, and an anchor of each side without any."""
    generator = torch.Generator().manual_seed(rows)
    scores = torch.randint(-4, 5, (rows, columns), generator=generator).float()
    allowed = torch.rand(rows, columns, generator=generator) < 0.8
    allowed[5] = False
    allowed[:, 7] = False
    return scores, allowed


def anchors_literally(scores: Tensor, allowed: Tensor, query: Query) -> list[Anchor]:
    lines = zip(scores.tolist(), allowed.tolist(), strict=True)
    return [
        mined_anchor({k: s for k, s in enumerate(line) if may[k]}, *query) for line, may in lines
    ]


@pytest.mark.parametrize("kind", ["linear", "exponential"])
@pytest.mark.parametrize("threshold", [-3.0, 1.0, 4.0, 100.0])
def test_sums_that_start_at_the_threshold(backend, device, kind, threshold) -> None:
    """Thresholds above some and above all maxima."""
    query = (kind, threshold, HALF_LIFE)
    scores, allowed = scored(70, 131)
    sides = [fixed_side(*x, query, 4.0) for x in ((scores, allowed), (scores.T, allowed.T))]
    found = finish_fixed(device, sides, [threshold + EPSILON, 2.0, 2.0], query)
    expected = [anchors_literally(*x, query) for x in ((scores, allowed), (scores.T, allowed.T))]
    check(found, (expected[0], expected[1]), kind)


@pytest.mark.parametrize("kind", ["linear", "exponential"])
def test_rounding_makes_no_sum_negative(backend, device, kind: str) -> None:
    """The hardest negatives stand out so far that the others vanish beside them, or nearly tie."""
    query = (kind, -1.03, 10.0)
    generator = torch.Generator().manual_seed(61)
    top = torch.rand(200, 1, generator=generator)
    scores = top.expand(200, 200) - 2.0**-24 if kind == "linear" else torch.full((200, 200), -1.0)
    scores = torch.where(torch.eye(200, dtype=torch.bool), top, scores)
    allowed = torch.ones(200, 200, dtype=torch.bool)
    sides = [fixed_side(*side, query, 1.0) for side in ((scores, allowed), (scores.T, allowed))]
    found = finish_fixed(device, sides, [-1.03 + EPSILON, 1.0, 1.0], query)
    assert found.counts[:200].amin() > 0
    assert found.sums.amin() >= 0


@pytest.mark.parametrize(("kind", "length"), [("linear", math.inf), ("exponential", 20.0)])
def test_sums_over_a_wide_range_are_final(backend, device, kind: str, length: float) -> None:
    """Sums and counts are taken as they are, and the other fields are garbage."""
    query = (kind, -3.0, HALF_LIFE)
    scores, allowed = scored(10, 9)
    made = [torch.rand(n, generator=torch.Generator().manual_seed(n)) for n in (10, 9)]
    sides = [fixed_side(*x, query, 4.0) for x in ((scores, allowed), (scores.T, allowed.T))]
    sides = [s._replace(sums=final(m, kind)) for s, m in zip(sides, made, strict=True)]
    found = finish_fixed(device, sides, [-2.0, length, 20.0], query)
    assert torch.equal(found.sums.cpu(), torch.cat(made))
    assert found.counts.tolist() == [n for side in sides for n in side.counts.tolist()]
