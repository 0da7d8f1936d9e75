"""Native mining against literal float64 loops, for every instruction set of this machine."""

from __future__ import annotations

from functools import cache

import native_calls
import native_loops as loops
import pytest
import torch
from native_loops import Question, Side
from torch import Tensor

from goal_kernels.backends.answers import Mined
from goal_kernels.backends.arguments import DTYPES
from goal_kernels.backends.base import Pairing, RelativeQuery, accumulate_dtype
from goal_kernels.backends.cpu import CpuBackend

KINDS = ("none", "linear", "exponential")
INF, NAN = float("inf"), float("nan")
FLUSHING_ISAS = ("avx512_bf16", "amx", "amx_emulated")
"""Their bfloat16 instructions take subnormal numbers for zero."""

# Micro-tiles are 4x8, 6x16 and 14x32 (half as wide in float64); sums are blocked by 256; packing
# takes 16 values of the width at a time.
SHAPES = (
    (1, 1, 1),
    (1, 33, 7),
    (13, 31, 1),
    (14, 32, 16),
    (15, 33, 17),
    (29, 65, 255),
    (43, 9, 257),
    (5, 47, 1023),
)


def integers(rows: int, columns: int, width: int) -> tuple[Tensor, Tensor]:
    """Small integers: every similarity is exact in every dtype, and ties abound. [N, D], [M, D]"""
    generator = torch.Generator().manual_seed(rows * 10007 + columns * 101 + width)
    image = torch.randint(-2, 3, (rows, width), generator=generator).double()
    text = torch.randint(-2, 3, (columns, width), generator=generator).double()
    return image, text


@cache
def expected(shape: tuple[int, int, int], question: Question) -> tuple[Side, Side]:
    return loops.mine(loops.similarity(*integers(*shape)), question)


def ask(
    backend: CpuBackend,
    image: Tensor,
    text: Tensor,
    question: Question,
    precision: str = "highest",
) -> Mined:
    def vector(ids) -> Tensor | None:
        return None if ids is None else torch.tensor(list(ids), dtype=torch.int64)

    pairing = Pairing(*map(vector, question[3:]))
    threshold = torch.tensor(question.threshold, dtype=accumulate_dtype(image.dtype))
    query = RelativeQuery(question.kind, threshold, question.beta)
    return native_calls.mine(backend, image, text, pairing, query, precision)[0]


def close(found: Tensor, truth: list[float], tolerance: float) -> None:
    truth_tensor = torch.tensor(truth, dtype=torch.float64)
    torch.testing.assert_close(
        found.double(), truth_tensor, rtol=tolerance, atol=tolerance, equal_nan=True
    )


def check(found: Mined, sides: tuple[Side, Side], kind: str, tolerance: float = 2e-6) -> None:
    """Exact data: indices, values and counts are equal, sums equal up to rounding."""
    rows, columns = sides
    assert found.row_index.tolist() == rows.index
    assert found.column_index.tolist() == columns.index
    close(found.row_value, rows.value, 0)
    close(found.column_value, columns.value, 0)
    if kind == "none":
        for empty in found[4:]:
            assert empty.shape == (0,)
        return
    assert found.row_count.tolist() == rows.count
    assert found.column_count.tolist() == columns.count
    close(found.row_sum, rows.total, tolerance)
    close(found.column_sum, columns.total, tolerance)


@pytest.mark.usefixtures("nan_filled_memory")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_exact_data_around_the_tile_edges(backend, shape, kind, dtype) -> None:
    question = Question(kind, -1.0, 0.125)
    image, text = (x.to(dtype) for x in integers(*shape))
    found = ask(backend, image, text, question)
    assert found.row_value.dtype == found.row_sum.dtype == accumulate_dtype(dtype)
    check(found, expected(shape, question), kind)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(300, 40, 3), (70, 2100, 2)], ids=["chunks", "column blocks"])
def test_several_chunks_and_column_blocks(backend, shape, kind, dtype) -> None:
    question = Question(kind, 0.0, 0.5)
    image, text = (x.to(dtype) for x in integers(*shape))
    check(ask(backend, image, text, question), expected(shape, question), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_wide_rows_shrink_the_blocks(fastest, kind) -> None:
    """At this width one panel of columns fills the block and one group of rows the pack."""
    shape = (31, 70, 70000)
    question = Question(kind, 0.0, 1e-3)
    image, text = (x.float() for x in integers(*shape))
    check(ask(fastest, image, text, question), expected(shape, question), kind)


TARGETS = {
    "permuted": tuple(range(39, -1, -1)),
    "with holes": tuple(-1 if i % 3 == 0 else (7 * i) % 37 for i in range(40)),
    "all the same": (5,) * 40,
    "out of range": tuple([-7, 37, 1 << 40, -(1 << 62), 36] * 8),
}
IDS = {
    "none": (None, None),
    "small": (tuple(i % 5 for i in range(40)), tuple(j % 7 for j in range(37))),
    "equal in 32 bits": (
        tuple((i % 5) << 32 for i in range(40)),
        tuple((j % 7) << 32 for j in range(37)),
    ),
    "extreme": (
        tuple([-(1 << 63), (1 << 63) - 1, 0, -1] * 10),
        tuple([(1 << 63) - 1, 0, 1, -(1 << 63)] * 9 + [5]),
    ),
    "no negatives": ((3,) * 40, (3,) * 37),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ids", IDS)
@pytest.mark.parametrize("target", TARGETS)
def test_targets_and_ids(backend, target, ids, kind, dtype) -> None:
    shape = (40, 37, 6)
    question = Question(kind, -2.0, 0.25, TARGETS[target], *IDS[ids])
    image, text = (x.to(dtype) for x in integers(*shape))
    check(ask(backend, image, text, question), expected(shape, question), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_duplicate_rows_and_signed_zeros_tie(backend, kind) -> None:
    image = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]).repeat(20, 1)
    text = torch.tensor([[0.0, -1.0], [-0.0, -1.0], [0.0, -0.0], [-0.0, 0.0]]).repeat(17, 1)
    question = Question(kind, 0.0, 3.0)
    sides = loops.mine(loops.similarity(image, text), question)
    assert 0.0 in sides[0].value, "the case is about zeros that tie"
    check(ask(backend, image, text, question), sides, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_similarities_that_rise_along_both_axes(backend, kind) -> None:
    """Every element is a new maximum: the sums are rebased at each step."""
    rise = torch.linspace(0, 1, 100).double()
    image, text = torch.stack([rise, torch.ones(100)], 1), torch.stack([torch.ones(100), rise], 1)
    image, text = image.float(), text.float()
    question = Question(kind, 0.5, 20.0, (-1,) * 100)
    found = ask(backend, image, text, question)
    sides = loops.mine((image @ text.T).tolist(), question)
    check(found, sides, kind, tolerance=4e-6)


@pytest.mark.parametrize("beta", [0.0, 1e4, 1e30])
def test_exponential_never_overflows(backend, beta) -> None:
    shape = (50, 40, 3)
    question = Question("exponential", -INF, beta)
    image, text = (x.float() for x in integers(*shape))
    found = ask(backend, image, text, question)
    check(found, expected(shape, question), "exponential", tolerance=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_exponential_is_accurate_over_its_range(backend, dtype) -> None:
    """One hardest text at 0 and one other at -x: the sum is exp(-x) alone."""
    lowest = 87.0 if dtype == torch.float32 else 708.0
    x = torch.linspace(0, lowest, 5000, dtype=dtype)[:, None]
    text = torch.tensor([[0.0], [-1.0]], dtype=dtype)
    found = ask(backend, x, text, Question("exponential", -INF, 1.0, (-1,) * 5000))
    exact = torch.exp(-x[:, 0].double())
    error = (found.row_sum.double() - exact).abs() / exact
    assert error.max().item() <= 3 * torch.finfo(dtype).eps
    assert (found.row_count == 1).all()


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("threshold", [-INF, INF, NAN, 1e30])
def test_extreme_thresholds(backend, kind, threshold) -> None:
    shape = (33, 40, 3)
    image, text = (x.float() for x in integers(*shape))
    question = Question(kind, threshold, 1.0)
    sides = loops.mine(loops.similarity(image, text), question)
    check(ask(backend, image, text, question), sides, kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("place", [(0, 0), (17, 3), (59, 5)])
def test_nan_and_infinity(backend, place, bad, kind) -> None:
    """The first NaN of an anchor wins; other anchors are untouched."""
    image, text = (x.float() for x in integers(60, 50, 6))
    text += 3  # no zeros, so that infinity times zero makes no further NaN
    image[place] = bad
    text[49, 0] = bad
    question = Question(kind, 0.0, 0.5)
    scores = loops.similarity(image, text)
    sides = loops.mine(scores, question)
    for padding in (0, 122):  # the wider rows are not packed
        sides_of = (torch.nn.functional.pad(x, (0, padding)) for x in (image, text))
        check(ask(backend, *sides_of, question), sides, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_all_candidates_minus_infinity(backend, kind) -> None:
    """There are candidates, so there is an index; some chunks of rows have none to offer."""
    image, text = torch.full((300, 2), -INF), torch.ones(20, 2)
    ids = (tuple(int(i < 50) for i in range(300)), (1,) * 20)
    question = Question(kind, 0.0, 1.0, None, *ids)
    sides = loops.mine([[-INF] * 20] * 300, question)
    assert sides[1].index == [50] * 20
    check(ask(backend, image, text, question), sides, kind)


def layouts(matrix: Tensor) -> dict[str, Tensor]:
    """The same [rows, width] values in memory of several shapes."""
    rows, width = matrix.shape
    wide = torch.full((rows, width + 5), NAN, dtype=matrix.dtype)
    wide[:, 3 : width + 3] = matrix
    shifted = torch.full((rows * width + 1,), NAN, dtype=matrix.dtype)
    shifted[1:] = matrix.flatten()
    every_other = torch.full((2 * rows, width), NAN, dtype=matrix.dtype)
    every_other[::2] = matrix
    return {
        "columns of a wider matrix": wide[:, 3 : width + 3],
        "unaligned": shifted[1:].view(rows, width),
        "every other row": every_other[::2],
        "transposed": matrix.T.contiguous().T,
    }


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_any_memory_layout(backend, dtype) -> None:
    shape = (33, 37, 19)
    question = Question("exponential", 0.0, 0.25)
    image, text = (x.to(dtype) for x in integers(*shape))
    for name, (one, other) in {
        name: (layouts(image)[name], layouts(text)[name]) for name in layouts(image)
    }.items():
        assert torch.equal(one, image), name
        check(ask(backend, one, other, question), expected(shape, question), question.kind)


def test_expanded_rows_and_single_column(backend) -> None:
    one = torch.tensor([[1.0, 2.0, 3.0]]).expand(40, 3)
    question = Question("linear", -100.0, 1.0)
    text = integers(40, 41, 3)[1].float()
    sides = loops.mine(loops.similarity(one, text), question)
    check(ask(backend, one, text, question), sides, "linear")
    column = integers(40, 41, 1)[0].float().expand(40, 4)[:, 1:2]
    narrow = text[:, 1:2]
    assert narrow.stride() == (3, 1)
    sides = loops.mine(loops.similarity(column, narrow), question)
    check(ask(backend, column, narrow, question), sides, "linear")


def random_pair(rows: int, columns: int, width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(width)
    image = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    text = torch.randn(columns, width, generator=generator, dtype=torch.float64)
    normalize = torch.nn.functional.normalize
    return normalize(image, dim=1).to(dtype), normalize(text, dim=1).to(dtype)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("width", [3, 100, 600])
def test_random_data_within_rounding(backend, width, dtype, kind) -> None:
    """Indices are the float64 ones unless the gap is below the rounding of a dot product."""
    image, text = random_pair(90, 75, width, dtype)
    scores = image.double() @ text.double().T
    # A threshold inside the widest gap near the middle, so that rounding cannot move a pair across.
    middle = scores.flatten().sort().values[2000:4000]
    gap = middle.diff().argmax()
    threshold = (middle[gap] + middle[gap + 1]).item() / 2
    question = Question(kind, threshold, 10.0)
    found = ask(backend, image, text, question)
    eps = torch.finfo(accumulate_dtype(dtype)).eps
    bound = 4 * eps * (4 + width**0.5)
    rows, columns = loops.mine(scores.tolist(), question)
    for side, value, index, total, count, matrix in (
        (rows, found.row_value, found.row_index, found.row_sum, found.row_count, scores),
        (columns, found.column_value, found.column_index, found.column_sum, found.column_count,
         scores.T),
    ):  # fmt: skip
        chosen = matrix.gather(1, index[:, None])[:, 0]
        close(value, chosen.tolist(), bound)
        exact = torch.tensor(side.value, dtype=torch.float64)
        assert (exact - chosen).max().item() <= 2 * bound
        if kind != "none":
            assert count.tolist() == side.count
            # Each of the terms moves by the error of its similarity times the slope.
            close(total / 90, [t / 90 for t in side.total], 12 * bound)


def test_float32_error_is_not_above_torch(backend) -> None:
    """One long chain of additions would lose against torch's blocked product at this width."""
    image, text = random_pair(64, 64, 8192, torch.float32)
    exact = image.double() @ text.double().T
    found = ask(backend, image, text, Question())
    chosen = exact.gather(1, found.row_index[:, None])[:, 0]
    error = (found.row_value.double() - chosen).abs().max().item()
    by_torch = ((image @ text.T).double() - exact).abs().max().item()
    assert error <= by_torch + 4 * torch.finfo(torch.float32).eps * exact.abs().max().item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_bit_equal_for_any_thread_count(backend, kind, dtype, set_threads) -> None:
    image, text = random_pair(180, 200, 32, dtype)  # just above the threshold for threads
    assert 180 * 200 * 32 > 2**20
    ids = (tuple(i % 50 for i in range(180)), tuple(j % 60 for j in range(200)))
    for question in (Question(kind, 0.05), Question(kind, 0.05, 10.0, None, *ids)):
        set_threads(1)
        serial = ask(backend, image, text, question)
        for threads in (2, 3, 5):
            set_threads(threads)
            again = ask(backend, image, text, question)
            for name, one, other in zip(Mined._fields, serial, again, strict=True):
                assert torch.equal(one, other), f"{name} with {threads} threads"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_every_16_bit_pattern_is_widened_exactly(backend, dtype) -> None:
    patterns = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16)
    image = patterns.view(dtype)[:, None]
    text = torch.ones(1, 1, dtype=dtype)
    pairing = Pairing(torch.full((1 << 16,), -1))
    query = RelativeQuery("none", torch.tensor(0.0), 1.0)
    found, _ = native_calls.mine(backend, image, text, pairing, query)
    truth = image[:, 0].double()
    if dtype == torch.bfloat16 and backend.isa in FLUSHING_ISAS:
        truth = truth.masked_fill(truth.abs() < torch.finfo(dtype).tiny, 0.0)
    close(found.row_value, truth.tolist(), 0)
    assert (found.row_index == 0).all()


UNPACKED = ((1, 1, 128), (16, 32, 144), (17, 33, 256), (45, 71, 1024), (130, 126, 128))
"""Sizes up to which, and widths at which, csrc/cpu/mine.cpp takes the direct product."""


@pytest.mark.usefixtures("nan_filled_memory")
@pytest.mark.parametrize("shape", UNPACKED, ids=str)
def test_small_batches_are_not_packed(backend, shape) -> None:
    question = Question("none", 0.0, 0.0, tuple(range(2, shape[0] + 2)))
    pairing = Pairing(torch.arange(2, shape[0] + 2))
    image, text = (x.float() for x in integers(*shape))
    sides = loops.mine(loops.similarity(image, text), question)
    relative = RelativeQuery("none", torch.tensor(0.0), 0.0)
    for one, other in zip(layouts(image).values(), layouts(text).values(), strict=True):
        found, product = native_calls.mine(backend, one, other, pairing, relative)
        assert product == "direct"
        check(found, sides, "none")


@pytest.mark.parametrize("change", ["elements", "narrow", "wide", "width", "sums", "dtype"])
def test_what_is_packed(fastest, change) -> None:
    """One step beyond each limit of the direct product."""
    rows, width = 128, {"narrow": 112, "wide": 2064, "width": 129}.get(change, 128)
    image = torch.ones(rows + (change == "elements"), width)
    text, kind = torch.ones(rows, width), "linear" if change == "sums" else "none"
    if change == "dtype":
        image, text = image.half(), text.half()
    relative = RelativeQuery(kind, torch.tensor(0.0), 0.0)
    assert native_calls.mine(fastest, image, text, Pairing(), relative)[1] != "direct"


@pytest.mark.parametrize("shape", [(64, 64, 1024), (128, 128, 256)], ids=str)
def test_unpacked_products_depend_on_two_rows_alone(backend, set_threads, shape) -> None:
    """Bit-equal for any number of threads, and copies tie wherever they lie in a tile."""
    generator = torch.Generator().manual_seed(0)
    image, text = (torch.randn(shape[i], shape[2], generator=generator) for i in range(2))
    text[33:] = text[: shape[1] - 33].clone()
    found = []
    for count in (1, 2, 3):
        set_threads(count)
        found.append(ask(backend, image, text, Question("none", 0.0, 0.0)))
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))
    index, own = found[0].row_index, torch.arange(len(image))
    copies = (index >= 33) & (index < 66)
    assert torch.equal(index[copies] - 33, own[copies]), "the lower copy is the positive itself"
