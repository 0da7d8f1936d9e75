"""Similarities of given pairs and row scales against float64, for every instruction set."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from goal_kernels import native
from goal_kernels.backends.arguments import DTYPES
from goal_kernels.backends.base import accumulate_dtype
from goal_kernels.backends.cpu import CpuBackend

NAN, INF = float("nan"), float("inf")

# Dot products take 64 elements at a time.
WIDTHS = (1, 7, 63, 64, 65, 128, 200, 1024)


def rows(matrix: Tensor, scale: Tensor | None = None) -> tuple[int, int, int, int]:
    address = 0 if scale is None else scale.data_ptr()
    return matrix.data_ptr(), matrix.shape[0], matrix.stride(0), address


def score(
    backend: CpuBackend,
    a: Tensor,
    b: Tensor,
    index: Tensor | None = None,
    scales: tuple[Tensor | None, Tensor | None] = (None, None),
) -> Tensor:
    similarity = torch.full((len(a),), NAN, dtype=accumulate_dtype(a.dtype))
    address = 0 if index is None else index.data_ptr()
    native.load().score_pairs(
        DTYPES[a.dtype], rows(a, scales[0]), rows(b, scales[1]), a.shape[1], address,
        similarity.data_ptr(), torch.get_num_threads(), backend.isa,
    )  # fmt: skip
    return similarity


def row_scales(backend: CpuBackend, matrix: Tensor) -> Tensor:
    scale = torch.full((len(matrix),), NAN, dtype=accumulate_dtype(matrix.dtype))
    native.load().row_scales(
        DTYPES[matrix.dtype], rows(matrix), matrix.shape[1], scale.data_ptr(),
        torch.get_num_threads(), backend.isa,
    )  # fmt: skip
    return scale


def random_rows(count: int, width: int, dtype: torch.dtype, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("width", WIDTHS)
def test_scores_against_float64(backend, width, dtype) -> None:
    a, b = random_rows(70, width, dtype, 0), random_rows(41, width, dtype, 1)
    index = torch.randint(-1, 42, (70,), generator=torch.Generator().manual_seed(2))
    scales = tuple(torch.rand(len(m)).to(accumulate_dtype(dtype)) for m in (a, b))
    found = score(backend, a, b, index, scales)
    exists = (index >= 0) & (index < 41)
    assert (found[~exists] == -INF).all()
    partner = index[exists]
    products = a.double()[exists] * b.double()[partner]
    products *= (scales[0].double()[exists] * scales[1].double()[partner])[:, None]
    # Per chain width / 64 additions, 6 to add the chains, 3 roundings in each product.
    roundings = width / 64 + 9
    bound = roundings * torch.finfo(found.dtype).eps / 2 * products.abs().sum(dim=1)
    assert ((found[exists] - products.sum(dim=1)).abs() <= bound).all()


def test_no_index_means_the_same_row(backend) -> None:
    a, b = random_rows(5, 9, torch.float64, 0), random_rows(3, 9, torch.float64, 1)
    found = score(backend, a, b)
    torch.testing.assert_close(found[:3], (a[:3] * b).sum(dim=1), rtol=1e-14, atol=1e-14)
    assert found[3:].tolist() == [-INF, -INF]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_every_16_bit_number_is_widened_exactly(backend, dtype) -> None:
    """Against one: subnormals, infinities and NaN among them."""
    bits = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16)
    numbers = bits.view(dtype)[:, None]
    found = score(backend, numbers, torch.ones(len(numbers), 1, dtype=dtype))
    torch.testing.assert_close(found, numbers[:, 0].float(), rtol=0, atol=0, equal_nan=True)


def test_nan_and_infinity(backend) -> None:
    a, b = torch.ones(4, 70), torch.ones(4, 70)
    a[0, 66], a[1, 2], a[2, 3], a[3, 69] = NAN, INF, INF, -INF
    b[2, 3] = 0.0
    found = score(backend, a, b)
    torch.testing.assert_close(found, torch.tensor([NAN, INF, NAN, -INF]), equal_nan=True)


def test_strided_rows_and_thread_counts(backend, set_threads) -> None:
    a, b = random_rows(2100, 600, torch.float32, 0), random_rows(2100, 500, torch.float32, 1)
    set_threads(1)
    expected = score(backend, a[:, 100:].contiguous(), b)
    for threads in (1, 2, 3):
        set_threads(threads)
        assert torch.equal(score(backend, a[:, 100:], b), expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_scales_are_those_of_f_normalize(backend, dtype) -> None:
    matrix = random_rows(40, 100, dtype, 0)
    matrix[0] = 0
    matrix[1] *= 1e-4
    found = row_scales(backend, matrix)
    expected = 1 / matrix.double().norm(dim=1).clamp(min=1e-12)
    torch.testing.assert_close(
        found.double(), expected, rtol=8 * torch.finfo(found.dtype).eps, atol=0
    )


def test_scales_of_what_has_no_length(backend) -> None:
    matrix = torch.ones(3, 5)
    matrix[0, 1], matrix[1, 1], matrix[2] = NAN, INF, 1e-30
    found = row_scales(backend, matrix)
    torch.testing.assert_close(found, torch.tensor([NAN, 0.0, 1e12]), equal_nan=True)
