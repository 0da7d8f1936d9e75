"""Products of blocks of rows, summed in float32 at least, by what multiplies them fastest."""

from __future__ import annotations

import torch
from torch import Tensor

from goal_kernels import native
from goal_kernels.backends.arguments import (
    DTYPES,
    address,
    as_rows,
    matrix_argument,
    matrix_arguments,
)
from goal_kernels.backends.base import accumulate_dtype
from goal_kernels.operators import transformed
from goal_kernels.pairs import pair_similarity


def readable(matrix: Tensor) -> bool:
    """Whether there is native code, and memory for it to read: not while something is traced."""
    traced = torch.compiler.is_compiling() or transformed()
    return matrix.is_cpu and not traced and native.status()[0]


def multiplies_fast(matrix: Tensor) -> bool:
    """Whether the device multiplies this dtype at least as fast as a wider one."""
    if not matrix.is_cpu or matrix.dtype in (torch.float32, torch.float64):
        return True
    return matrix.dtype == torch.bfloat16 and torch.cpu._is_avx512_bf16_supported()


def multiplies_wide(matrix: Tensor) -> bool:
    """Whether `similarities` of 16-bit rows are fast, and are those of the values as they are.

    torch rounds them to 16 bits on a CPU; native code does not.
    """
    if not matrix.is_cpu:
        return True
    return matrix.dtype == torch.bfloat16 and readable(matrix) and native.multiplies_bfloat16()


def similarities(rows: Tensor, columns: Tensor, out: Tensor) -> None:
    """out = rows @ columns.T; on a CPU bit-equal whichever 16-bit rows are asked for together.

    Args: rows, columns: [R, D], [N, D] of one dtype. out: [R, N] in the accumulate dtype.
    """
    if rows.dtype == out.dtype:
        torch.mm(rows, columns.T, out=out)
    elif rows.is_cpu:
        native_product(rows, columns, out)
    else:
        out.copy_(wide_product(rows, columns.T, out.dtype))


def native_product(
    rows: Tensor,
    columns: Tensor,
    out: Tensor,
    *,
    across: bool = False,
    add: bool = False,
    isa: str = "auto",
) -> None:
    """out = rows @ columns.T on the CPU, where 16-bit values are multiplied without rounding.

    Args:
        rows, columns, out: as in `similarities`; elements of a row of `out` are adjacent.
        across: rows are given transposed, [D, R]. add: to what `out` holds.
        isa: the instruction set.
    """
    _, columns = as_rows((rows.T if across else rows)[:1], columns, ("rows", "columns"))
    rows = rows.resolve_neg() if rows.stride(1) == 1 else rows.contiguous()
    shape, dtype = (rows.shape[1 if across else 0], len(columns)), accumulate_dtype(rows.dtype)
    if out.shape != shape or out.dtype != dtype or not out.is_cpu or out.stride(1) != 1:
        raise ValueError(
            f"out: expected {list(shape)} of {dtype} on the CPU with adjacent elements, got "
            f"{list(out.shape)} of {out.dtype} on {out.device}, strides {out.stride()}."
        )
    native.load().similarities(
        DTYPES[rows.dtype],
        (rows.data_ptr(), shape[0], rows.stride(0), 0),
        matrix_argument(columns),
        columns.shape[1],
        across,
        (out.data_ptr(), out.stride(0), add),
        torch.get_num_threads(),
        isa,
    )


def pair_products(rows: Tensor, columns: Tensor, index: Tensor | None = None) -> Tensor:
    """`pair_similarity`, and by native code in one pass where it can read the rows."""
    if not readable(rows):
        return pair_similarity(rows, columns, index)
    rows, columns = as_rows(rows, columns, ("rows", "columns"))
    kept = None if index is None else index.contiguous()  # while its memory is read
    out = rows.new_empty(len(rows), dtype=accumulate_dtype(rows.dtype))
    native.load().score_pairs(
        *matrix_arguments(rows, columns),
        address(kept, "index", torch.int64, len(rows)),
        out.data_ptr(),
        torch.get_num_threads(),
        "auto",
    )
    return out


def wide_product(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """left @ right, summed in float32 at least; 16-bit factors on a CPU give rounded results."""
    if left.dtype == dtype or left.is_cpu:
        return torch.mm(left, right)
    return torch.mm(left, right, out_dtype=dtype)


def logistic(values: Tensor, isa: str = "auto") -> Tensor:
    """Replace every z by 1 / (1 + exp(-z)). Returns: [R], float64, the sums of log(1 + exp z).

    Args: values: [R, N], float32 or float64 on the CPU, elements of a row adjacent.
    """
    exact = values.dtype in (torch.float32, torch.float64)
    if not exact or not values.is_cpu or values.dim() != 2 or values.stride(1) != 1:
        raise ValueError(
            "values: expected a float32 or float64 matrix on the CPU with adjacent elements, got "
            f"{list(values.shape)} {values.dtype} on {values.device}, strides {values.stride()}."
        )
    sums = values.new_empty(len(values), dtype=torch.float64)
    native.load().logistic(
        DTYPES[values.dtype],
        matrix_argument(values),
        values.shape[1],
        sums.data_ptr(),
        torch.get_num_threads(),
        isa,
    )
    return sums
