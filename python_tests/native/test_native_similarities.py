"""Blocks of similarities: every instruction set against float64, whatever is asked for together."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from native_calls import ISAS
from test_native_top_k import threads
from torch import Tensor

from goal_kernels.backends.base import accumulate_dtype
from goal_kernels.whole_batch.products import logistic, native_product

SHAPES = [(1, 1, 1), (3, 5, 7), (16, 32, 64), (33, 31, 65), (47, 161, 130), (2050, 9, 4)]
"""Rows, columns, width: around the micro-tiles of all instruction sets, and two blocks of rows."""


def inputs(rows: int, columns: int, width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Rows that do not lie behind each other."""
    generator = torch.Generator().manual_seed(rows + width)
    made = [torch.randn(n, width + 3, generator=generator).to(dtype) for n in (rows, columns)]
    return made[0][:, 2:-1], made[1][:, 1:-2]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("isa", ISAS)
def test_equals_float64(isa, dtype) -> None:
    for shape in SHAPES:
        rows, columns = inputs(*shape, dtype)
        around = torch.full((shape[0], shape[1] + 5), 7.0, dtype=accumulate_dtype(dtype))
        native_product(rows, columns, around[:, 2:-3], isa=isa)
        exact, factors = rows.double() @ columns.double().T, (rows.double(), columns.double())
        # A sum of D products in any order, each rounded at most D + 1 times.
        bound = (
            (shape[2] + 1) * torch.finfo(around.dtype).eps * (factors[0].abs() @ factors[1].abs().T)
        )
        assert ((around[:, 2:-3].double() - exact).abs() <= bound).all()
        assert (around[:, :2] == 7.0).all()
        assert (around[:, -3:] == 7.0).all()


@pytest.mark.parametrize("isa", ISAS)
def test_an_element_depends_on_its_two_rows_alone(isa) -> None:
    rows, columns = inputs(120, 400, 96, torch.bfloat16)
    whole, parts = torch.empty(2, 120, 400)
    with threads(3):
        native_product(rows, columns, whole, isa=isa)
    with threads(1):
        for start in range(0, 120, 50):
            part = slice(start, start + 50)
            native_product(rows[part], columns, parts[part], isa=isa)
    assert torch.equal(whole, parts)


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("isa", ISAS)
def test_adds_products_of_any_depth(isa, across) -> None:
    """To what is there, and in several parts of the depth; rows also where they lie transposed."""
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        for shape in ((3, 5, 1), (33, 70, 31), (40, 9, 2100)):
            rows, columns = inputs(*shape, dtype)
            found = torch.ones(shape[0], shape[1] + 2, dtype=accumulate_dtype(dtype))
            # A column beyond the rows shows that only they are read.
            given = F.pad(rows.T, (0, 1), value=torch.nan)[:, :-1] if across else rows
            native_product(given, columns, found[:, 1:-1], across=across, add=True, isa=isa)
            left, right = rows.double(), columns.double()
            bound = (shape[2] + 3) * torch.finfo(found.dtype).eps
            bound = bound * (1 + left.abs() @ right.abs().T)
            assert ((found[:, 1:-1].double() - 1 - left @ right.T).abs() <= bound).all()
            assert (found[:, [0, -1]] == 1).all()


def test_not_a_number_stays() -> None:
    rows, columns = inputs(40, 40, 40, torch.bfloat16)
    rows[3, 2], columns[5, 1] = float("nan"), float("inf")
    out = torch.empty(40, 40)
    native_product(rows, columns, out)
    assert out[3].isnan().all()
    assert not out[4:, 5].isfinite().any()
    assert out[4:, 6:].isfinite().all()


def test_refuses_other_outputs() -> None:
    rows, columns = inputs(4, 6, 8, torch.bfloat16)
    for out in (torch.empty(4, 5), torch.empty(4, 6).double(), torch.empty(6, 4).T):
        with pytest.raises(ValueError, match=r"out: expected \[4, 6\] of torch.float32"):
            native_product(rows, columns, out)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("isa", ISAS)
def test_logistic_equals_torch_in_float64(isa, dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    for count in (1, 7, 16, 1025, 2600):
        # Of all sizes: a sum of them loses none, its bound is that of the largest in it.
        values = torch.randn(3, count + 2, generator=generator, dtype=torch.float64)
        values = (values * torch.tensor([[1.0], [20.0], [60.0]])).to(dtype)
        given, left = values[:, 1:-1].clone(), values[:, [0, -1]].clone()
        sums = logistic(values[:, 1:-1], isa)
        assert torch.equal(values[:, [0, -1]], left)
        eps = torch.finfo(dtype).eps
        share, value = given.double().sigmoid(), F.softplus(given.double(), threshold=40)
        torch.testing.assert_close(values[:, 1:-1].double(), share, rtol=4 * eps, atol=1e-37)
        torch.testing.assert_close(sums, value.sum(dim=1), rtol=16 * eps, atol=1e-37)


@pytest.mark.parametrize("isa", ISAS)
def test_logistic_of_what_is_no_number(isa) -> None:
    infinity = float("inf")
    values = torch.tensor([[0.0, float("nan")], [-infinity, 0.0], [infinity, 0.0], [-1e4, 1e4]])
    sums = logistic(values, isa)
    expected = torch.tensor([[0.5, float("nan")], [0.0, 0.5], [1.0, 0.5], [0.0, 1.0]])
    torch.testing.assert_close(values, expected, equal_nan=True)
    log2 = torch.tensor(2.0).double().log()
    expected = torch.stack([log2 * torch.nan, log2, log2 * infinity, log2 * 0 + 1e4])
    torch.testing.assert_close(sums, expected, equal_nan=True, rtol=1e-7, atol=0)
