"""Sums by whole numbers: exact over their whole range, in any order; and tops."""

from __future__ import annotations

import math

import pytest
import torch
from sum_units import FIELDS, linear_scale, to_fields

from goal_kernels.backends.gpu.runtime import on_device

triton = pytest.importorskip("triton")
import triton.language as tl  # noqa: E402

from goal_kernels.backends.gpu.kernels import fixed_sums  # noqa: E402
from goal_kernels.backends.gpu.kernels.fixed_sums import (  # noqa: E402
    add_totals,
    raise_tops,
    read_totals,
)

pytestmark = [
    pytest.mark.filterwarnings("error::RuntimeWarning"),
    pytest.mark.usefixtures("backend"),
]

LENGTH = 32
CODES = {"linear": 1, "exponential": 2}
NOTHING = -(2**63)


@triton.jit
def probe_sums(totals, sums, out, steps, length, bound, threshold, KIND: tl.constexpr):
    """out [length] = sums over `totals` [steps, length], by way of `sums`."""
    anchor = tl.arange(0, 32)
    inside = anchor < length
    scale = fixed_sums.linear_scale(bound, threshold)
    for step in range(steps):
        total = tl.load(totals + step * length + anchor, mask=inside, other=0.0)
        add_totals(sums, anchor, inside, length, total, scale, KIND)
    tl.store(out + anchor, read_totals(sums, anchor, inside, length, scale, KIND), mask=inside)


def summed(totals: torch.Tensor, kind: str, bound=1.0, threshold=0.0) -> tuple[list, list]:
    """Fields and sums of totals [steps, length]."""
    steps, length = totals.shape
    sums = totals.new_zeros(FIELDS[kind], length, dtype=torch.int64)
    out = totals.new_empty(length)
    with on_device(totals):
        probe_sums[(1,)](totals, sums, out, steps, length, bound, threshold, CODES[kind])
    return sums.T.tolist(), out.tolist()


@pytest.mark.parametrize("seed", [1, 2])
def test_exponential_sums(device, seed: int) -> None:
    """Totals from 1/2 to 2^112 and none, in two orders: fields to the unit, sums to rounding."""
    generator = torch.Generator().manual_seed(seed)
    shape = (40, LENGTH - 1)
    exponent = torch.randint(0, 112, shape, generator=generator)
    totals = torch.ldexp(torch.rand(shape, generator=generator) / 2 + 0.5, exponent)
    totals[torch.rand(shape, generator=generator) < 0.2] = 0.0
    totals[:, 0] = 0.0
    totals[0, 1], totals[1, 1] = 0.5, math.ldexp(1 - 2**-24, 112)
    totals = totals.to(device)
    fields, sums = summed(totals, "exponential")
    columns = totals.T.tolist()
    assert fields == [to_fields(column, "exponential", 1.0) for column in columns]
    for got, column in zip(sums, columns, strict=True):
        assert math.isclose(got, math.fsum(column), rel_tol=2**-22)
    assert summed(totals.flip(0), "exponential")[0] == fields


def test_exponential_sums_of_all_tiles_there_can_be() -> None:
    """2^21 of the largest totals of a field."""
    fields = to_fields([math.ldexp(1 - 2**-24, 18)], "exponential", 1.0)
    assert max(fields) << 21 <= 2**63


@pytest.mark.parametrize(
    ("bound", "threshold"),
    [(1.0, 0.0), (1.0, -1.5), (3.0, 2.9), (2.0**100, -(2.0**100)), (2.0**-80, 0.0), (0.0, 0.0)],
)
def test_linear_sums(device, bound: float, threshold: float) -> None:
    """Units far below the rounding of a similarity, whatever the range."""
    generator = torch.Generator().manual_seed(3)
    totals = torch.rand(40, LENGTH, generator=generator) * (bound - threshold)
    totals[::3] = 0.0
    fields, sums = summed(totals.to(device), "linear", bound, threshold)
    scale = linear_scale(bound, threshold)
    assert fields == [to_fields(column, "linear", scale) for column in totals.T.tolist()]
    for got, column in zip(sums, totals.T.tolist(), strict=True):
        assert math.isclose(got, math.fsum(column), rel_tol=2**-22, abs_tol=40 / scale)


@pytest.mark.parametrize("threshold", [1.0, 1.0 + 2**-23, 2.0])
def test_linear_sums_of_what_exceeds_the_bound(device, threshold: float) -> None:
    """Rounding: a similarity of 1 + 2^-7 where none is above 1, above or below the threshold."""
    totals = torch.full((50, 3), max(1 + 2**-7 - threshold, 0.0), device=device)
    _, sums = summed(totals, "linear", 1.0, threshold)
    assert sums == pytest.approx([totals[0, 0].item() * 50] * 3, rel=2**-20)


def test_exponential_sums_out_of_range(device) -> None:
    """Totals beyond 2^114 are cut off: neighbours in memory stay as they are."""
    totals = torch.full((2, 3), 3e38, device=device)
    fields, _ = summed(totals, "exponential")
    assert all(field[:5] == [0] * 5 and field[5] > 0 for field in fields)


@triton.jit
def probe_tops(tops, keys, ties, steps, length):
    """Merge keys and ties [steps, length] into tops [length]."""
    anchor = tl.arange(0, 32)
    inside = anchor < length
    for step in range(steps):
        key = tl.load(keys + step * length + anchor, mask=inside, other=0)
        count = tl.load(ties + step * length + anchor, mask=inside, other=0)
        raise_tops(tops, anchor, inside, key, count)


@pytest.mark.parametrize("length", [1, 31, 32])
def test_tops(device, length: int) -> None:
    """Keys of both signs, few of them, so that many tie; some have no negative to count."""
    generator = torch.Generator().manual_seed(4)
    keys = torch.randint(-3, 4, (30, length), generator=generator, dtype=torch.int32) * 2**29
    ties = torch.randint(0, 4, (30, length), generator=generator, dtype=torch.int32)
    expected = []
    for column_keys, column_ties in zip(keys.T.tolist(), ties.T.tolist(), strict=True):
        best = max(k for k, t in zip(column_keys, column_ties, strict=True) if t)
        count = sum(t for k, t in zip(column_keys, column_ties, strict=True) if k == best)
        expected.append(best << 32 | count)
    for order in (range(30), range(29, -1, -1)):
        tops = torch.full((length,), NOTHING, device=device)
        placed = [x[list(order)].to(device) for x in (keys, ties)]
        with on_device(tops):
            probe_tops[(1,)](tops, *placed, 30, length)
        assert tops.tolist() == expected
