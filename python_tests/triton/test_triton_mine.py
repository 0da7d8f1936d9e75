"""Mining by the Triton kernels against literal loops: exact data first, then rounding and traps."""

from __future__ import annotations

import math

import pytest
import torch
from mining_literal import CASES, Anchor, Case, full_pairing, mined_literally, whole_numbers
from torch import Tensor

from goal_kernels.backends.answers import Mined
from goal_kernels.backends.base import PRECISIONS, RELATIVE_KINDS, Pairing, SearchQuery
from goal_kernels.backends.gpu import configs
from goal_kernels.pairs import pair_similarity

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

NO_PAIRING = (None, None, None)
HALF_LIFE = math.log(2.0)
"""beta at which whole-numbered gaps give powers of two"""


def mine(
    backend, image, text, pairing=NO_PAIRING, relative=("none", 0.0, 0.0), precision="highest"
) -> Mined:
    """What a search finds whose sums start at a given threshold."""
    kind, threshold, beta = relative
    pairing = Pairing(*(None if t is None else t.to(image.device) for t in pairing))
    positive = pair_similarity(image.double(), text.double(), pairing.target).tolist()
    smallest = min((p for p in positive if p != -math.inf), default=math.inf)
    query = SearchQuery(kind, smallest - threshold, beta, False, precision)
    return backend.search(image, text, pairing, query).mined


def sides(mined: Mined) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """value, index, sum, count of the rows and of the columns."""
    rows = (mined.row_value, mined.row_index, mined.row_sum, mined.row_count)
    return rows, (mined.column_value, mined.column_index, mined.column_sum, mined.column_count)


def check(
    mined: Mined, expected: tuple[list[Anchor], list[Anchor]], kind: str, slack: float = 0.0
) -> None:
    """Values, indices and counts must be equal, sums within float32 rounding and `slack`."""
    for (value, index, total, count), anchors in zip(sides(mined), expected, strict=True):
        assert value.dtype == total.dtype == torch.float32
        assert index.dtype == count.dtype == torch.int64
        truth = torch.tensor([a[0] for a in anchors], dtype=torch.float32)
        torch.testing.assert_close(value.cpu(), truth, rtol=0, atol=0, equal_nan=True)
        assert index.tolist() == [a[1] for a in anchors]
        if kind == "none":
            assert total.shape == count.shape == (0,)
            continue
        assert count.tolist() == [a[3] for a in anchors]
        truth = torch.tensor([a[2] for a in anchors])
        torch.testing.assert_close(total.cpu(), truth, rtol=2e-6, atol=slack, equal_nan=True)


@pytest.mark.parametrize("kind", RELATIVE_KINDS)
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("paired", [False, True], ids=["implicit", "target+ids"])
def test_exact_data(backend, device, case: Case, kind: str, paired: bool) -> None:
    image = whole_numbers(case.rows, case.width, torch.float32, 1).to(device)
    text = whole_numbers(case.columns, case.width, torch.float32, 2).to(device)
    pairing = full_pairing(case) if paired else NO_PAIRING
    relative = (kind, -3.0, HALF_LIFE)
    mined = mine(backend, image, text, pairing, relative)
    check(mined, mined_literally(image, text, pairing, relative), kind)


@pytest.mark.parametrize("kind", RELATIVE_KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_half_precision_inputs(backend, device, dtype: torch.dtype, kind: str) -> None:
    case = Case(67, 130, 65, "above a tile in every dimension")
    image = whole_numbers(case.rows, case.width, dtype, 3).to(device)
    text = whole_numbers(case.columns, case.width, dtype, 4).to(device)
    pairing = full_pairing(case)
    relative = (kind, 0.0, HALF_LIFE)
    mined = mine(backend, image, text, pairing, relative)
    check(mined, mined_literally(image, text, pairing, relative), kind)


@pytest.mark.parametrize("which", ["target", "ids"])
def test_target_or_ids_alone(backend, device, which: str) -> None:
    case = Case(40, 70, 5, "one part of the pairing at a time")
    image = whole_numbers(case.rows, case.width, torch.float32, 5).to(device)
    text = whole_numbers(case.columns, case.width, torch.float32, 6).to(device)
    target, image_ids, text_ids = full_pairing(case)
    pairing = (target, None, None) if which == "target" else (None, image_ids, text_ids)
    mined = mine(backend, image, text, pairing)
    check(mined, mined_literally(image, text, pairing, ("none", 0.0, 0.0)), "none")


def test_a_target_beyond_int32_is_no_positive(backend, device) -> None:
    """Cut to 32 bits these would name columns 0 and 1."""
    image, text = torch.ones(3, 2, device=device), torch.ones(3, 2, device=device)
    target = torch.tensor([2**32, 1, -(2**32) + 1])
    mined = mine(backend, image, text, (target, None, None))
    assert mined.row_index.tolist() == [0, 0, 0]
    assert mined.column_index.tolist() == [0, 0, 0]


@pytest.mark.parametrize("slots", [1, 2, 3])
@pytest.mark.parametrize("kind", ["linear", "exponential"])
def test_programs_that_walk_many_tiles(backend, device, monkeypatch, kind: str, slots: int) -> None:
    """Fewer programs than tiles: column states are read back, and groups are of unequal size."""
    monkeypatch.setattr(configs, "SLOTS", slots)
    monkeypatch.setattr(configs, "SMALL_SLOTS", slots)
    image = whole_numbers(260, 3, torch.float32, 7).to(device)
    text = whole_numbers(200, 3, torch.float32, 8).to(device)
    relative = (kind, -4.0, HALF_LIFE)
    mined = mine(backend, image, text, relative=relative)
    check(mined, mined_literally(image, text, NO_PAIRING, relative), kind)


@pytest.mark.parametrize("rows", [1100, 2050])
def test_many_strips(backend, device, rows: int) -> None:
    """18 strips, one of each program and more than are read at once; 33 strips for 16 groups."""
    image = whole_numbers(rows, 2, torch.float32, 9).to(device)
    text = whole_numbers(5, 2, torch.float32, 10).to(device)
    relative = ("linear", -4.0, 0.0)
    mined = mine(backend, image, text, relative=relative)
    check(mined, mined_literally(image, text, NO_PAIRING, relative), "linear")


@pytest.mark.parametrize("kind", ["linear", "exponential"])
@pytest.mark.parametrize("threshold", [-math.inf, 1.0, 4.0, 1e9, math.nan])
def test_thresholds(backend, device, kind: str, threshold: float) -> None:
    """Everything, some, the maximum of few rows alone, and nothing at or above the threshold."""
    image = whole_numbers(30, 2, torch.float32, 11).to(device)
    text = whole_numbers(140, 2, torch.float32, 12).to(device)
    relative = (kind, threshold, 0.5)
    mined = mine(backend, image, text, relative=relative)
    check(mined, mined_literally(image, text, NO_PAIRING, relative), kind)


@pytest.mark.parametrize("kind", RELATIVE_KINDS)
def test_no_negatives_at_all(backend, device, kind: str) -> None:
    image, text = torch.ones(5, 3, device=device), torch.ones(4, 3, device=device)
    same = (None, torch.zeros(5, dtype=torch.int64), torch.zeros(4, dtype=torch.int64))
    mined = mine(backend, image, text, same, (kind, -1.0, 1.0))
    check(mined, ([(-math.inf, -1, 0.0, 0)] * 5, [(-math.inf, -1, 0.0, 0)] * 4), kind)


def test_zeros_of_both_signs_tie(backend, device) -> None:
    image = torch.tensor([[1.0], [-1.0], [1.0]], device=device)
    text = torch.tensor([[0.0], [-0.0], [0.0], [-0.0]], device=device)
    mined = mine(backend, image, text, relative=("linear", -1.0, 0.0))
    assert mined.row_index.tolist() == [1, 0, 0]
    assert mined.column_index.tolist() == [1, 0, 0, 0]
    assert mined.row_count.tolist() == [0, 0, 0]
    assert mined.row_sum.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("kind", RELATIVE_KINDS)
def test_the_first_nan_wins(backend, device, kind: str) -> None:
    image = whole_numbers(70, 3, torch.float32, 13)
    text = whole_numbers(140, 3, torch.float32, 14)
    text[[20, 90, 139]] = math.nan
    image[66, 1] = math.nan
    image, text = image.to(device), text.to(device)
    target = torch.arange(70)
    target[[20, 66]] = -1  # a NaN positive would make the threshold NaN
    pairing = (target, None, None)
    relative = (kind, -3.0, HALF_LIFE)
    mined = mine(backend, image, text, pairing, relative)
    check(mined, mined_literally(image, text, pairing, relative), kind)
    assert mined.row_index[:5].tolist() == [20] * 5


def test_infinite_similarities(backend, device) -> None:
    """-inf is a candidate like any other, distinct from having none; +inf wins."""
    image = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]], device=device)
    text = torch.tensor([[math.inf, 1.0], [math.inf, 1.0]], device=device)
    image[:, 1] = 1.0
    mined = mine(backend, image, text)
    assert mined.row_value.tolist() == [math.inf, -math.inf, math.inf]
    assert mined.row_index.tolist() == [1, 0, 0]
    assert mined.column_index.tolist() == [2, 0]


@pytest.mark.parametrize("beta", [0.0, 1e4, 1e300])
def test_no_overflow_for_any_slope(backend, device, beta: float) -> None:
    """Similarities 1000 apart: exponents stay at or below 0 and exact ties count 1 each."""
    image = torch.tensor([[1000.0], [1.0], [-1000.0], [1.0]], device=device)
    text = torch.tensor([[1.0], [1.0], [-1.0], [1.0], [0.5]], device=device)
    mined = mine(backend, image, text, relative=("exponential", -1e9, beta))
    rows, columns = mined_literally(image, text, NO_PAIRING, ("exponential", -1e9, beta))
    assert mined.row_sum.tolist() == [a[2] for a in rows]
    assert mined.column_sum.tolist() == [a[2] for a in columns]
    assert mined.row_count.tolist() == [3, 3, 3, 3]


@pytest.mark.parametrize("kind", RELATIVE_KINDS)
def test_rounded_data(backend, device, kind: str) -> None:
    """Random unit rows: the mined index is the float64 one, or its gap is below rounding."""
    generator = torch.Generator().manual_seed(15)
    image = torch.nn.functional.normalize(torch.randn(90, 70, generator=generator), dim=1)
    text = torch.nn.functional.normalize(torch.randn(75, 70, generator=generator), dim=1)
    relative = (kind, -0.05, 10.0)
    expected = mined_literally(image, text, NO_PAIRING, relative)
    scores = image.double() @ text.double().T
    mined = mine(backend, image.to(device), text.to(device), relative=relative)
    for (value, index, total, count), anchors, dense in zip(
        sides(mined), expected, (scores, scores.T), strict=True
    ):
        truth = torch.tensor([a[0] for a in anchors], dtype=torch.float64)
        chosen = dense.gather(1, index.cpu()[:, None])[:, 0]
        assert (truth - chosen).max() <= 1e-6
        torch.testing.assert_close(value.cpu().double(), truth, rtol=0, atol=1e-6)
        if kind != "none":
            sums = torch.tensor([a[2] for a in anchors], dtype=torch.float64)
            torch.testing.assert_close(total.cpu().double(), sums, rtol=1e-4, atol=0)
            assert count.tolist() == [a[3] for a in anchors]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_values_are_exact_at_any_precision(backend, device, precision: str) -> None:
    generator = torch.Generator().manual_seed(16)
    image, text = torch.randn(2, 50, 33, generator=generator).to(device)
    ids = torch.tensor([0] * 49 + [1])
    pairing = (None, ids, torch.zeros(50, dtype=torch.int64))
    mined = mine(backend, image, text, pairing, precision=precision)
    assert mined.row_index[:49].tolist() == [-1] * 49
    exact = pair_similarity(image.double(), text.double(), mined.row_index)
    torch.testing.assert_close(mined.row_value.double(), exact, rtol=1e-6, atol=1e-5)
    exact = pair_similarity(text.double(), image.double(), mined.column_index)
    torch.testing.assert_close(mined.column_value.double(), exact, rtol=1e-6, atol=1e-5)


def test_any_strides(backend, device) -> None:
    """Column slices, row steps and transposes give what a contiguous copy gives, bit for bit."""
    generator = torch.Generator().manual_seed(17)
    base = torch.randn(140, 90, generator=generator).to(device)
    image, text = base[::2, 3:40], base.T[10:80, 5:42]
    assert image.stride() == (180, 1)
    assert text.stride() == (1, 90)
    relative = ("exponential", -1.0, 3.0)
    views = mine(backend, image, text, relative=relative)
    copies = mine(backend, image.contiguous(), text.contiguous(), relative=relative)
    assert all(torch.equal(a, b) for a, b in zip(views, copies, strict=True))
    repeated = mine(backend, image[:1].expand(4, 37), text)
    assert repeated.row_index[2:].tolist() == [int(repeated.row_index[2])] * 2


@pytest.mark.parametrize("kind", RELATIVE_KINDS)
def test_reruns_are_bit_equal_and_complete(backend, device, nan_filled_memory, kind: str) -> None:
    """Workspaces start as garbage: whatever is read was written before."""
    generator = torch.Generator().manual_seed(18)
    image, text = torch.randn(2, 150, 20, generator=generator).to(device)
    first = mine(backend, image, text, relative=(kind, 0.0, 2.0))
    again = mine(backend, image, text, relative=(kind, 0.0, 2.0))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(t.isnan().any() for t in first)
