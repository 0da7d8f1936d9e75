"""Tensors as the native module takes them: addresses and sizes, checked."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from goal_kernels.backends.base import Pairing, device_kind

DTYPES = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}


def as_rows(
    first: Tensor,
    second: Tensor,
    names: tuple[str, str] = ("image", "text"),
    *,
    device_type: str = "cpu",
    dtypes: Mapping[torch.dtype, str] = DTYPES,
) -> tuple[Tensor, Tensor]:
    """Both matrices [rows, width] themselves, or copies if the elements of a row are not adjacent.

    Args:
        device_type, dtypes: where the kernels can read them, and what. They trust these checks.
    """
    dtype, device, shape, other = first.dtype, first.device, first.shape, second.shape
    if len(shape) != 2 or device_kind(first) != device_type or dtype not in dtypes:
        raise ValueError(
            f"{names[0]}: expected a {device_type.upper()} matrix of {', '.join(dtypes.values())}, "
            f"got {tuple(shape)} {dtype} on {device}; convert it"
        )
    width = shape[1]
    fits = len(other) == 2 and other[1] == width and second.dtype == dtype
    if not fits or second.device != device:
        raise ValueError(
            f"{names[1]}: expected {dtype} and width {width} on {device} as {names[0]}, got "
            f"{tuple(other)} {second.dtype} on {second.device}; convert one of them"
        )
    if first.is_neg() or second.is_neg():
        first, second = first.resolve_neg(), second.resolve_neg()
    if width == 1 or first.stride(1) == second.stride(1) == 1:
        return first, second
    return _adjacent(first), _adjacent(second)


def _adjacent(matrix: Tensor) -> Tensor:
    return matrix if matrix.stride(1) == 1 else matrix.contiguous()


MatrixArgument = tuple[int, int, int, int]
"""Address, rows, elements from row to row, and the address of the scales or 0."""


def matrix_argument(rows: Tensor, scale: int = 0) -> MatrixArgument:
    """What the kernels know of a matrix with unit stride along its rows. scale: address or 0."""
    return rows.data_ptr(), rows.shape[0], rows.stride(0), scale


def matrix_arguments(
    first: Tensor, second: Tensor, scales: tuple[int, int] = (0, 0)
) -> tuple[str, MatrixArgument, MatrixArgument, int]:
    """What a native function takes first: dtype, both matrices of `as_rows`, and their width."""
    left, right = matrix_argument(first, scales[0]), matrix_argument(second, scales[1])
    return DTYPES[first.dtype], left, right, first.shape[1]


def pairing_addresses(pairing: Pairing, rows: int, columns: int) -> tuple[int, int, int]:
    """Addresses of target and ids, zeros for None."""
    if pairing.target is pairing.image_ids is pairing.text_ids is None:
        return 0, 0, 0
    target = address(pairing.target, "target", torch.int64, rows)
    return target, *id_addresses(pairing, rows, columns)


def id_addresses(pairing: Pairing, rows: int, columns: int) -> tuple[int, int]:
    """Addresses of the ids of both sides, two zeros without ids."""
    _, image_ids, text_ids = pairing
    if image_ids is None and text_ids is None:
        return 0, 0
    if image_ids is None or text_ids is None:
        raise ValueError("image_ids, text_ids: expected both or none; pass the missing one")
    return (
        address(image_ids, "image_ids", torch.int64, rows),
        address(text_ids, "text_ids", torch.int64, columns),
    )


def address(tensor: Tensor | None, name: str, dtype: torch.dtype, length: int) -> int:
    """Address of a vector of `length` elements, 0 for None. The kernels trust these checks."""
    if tensor is None:
        return 0
    fits = tensor.dtype == dtype and tensor.numel() == length and tensor.is_cpu
    if not fits or not tensor.is_contiguous():
        raise ValueError(
            f"{name}: expected {length} contiguous elements of {dtype} on the CPU, got "
            f"{tuple(tensor.shape)} {tensor.dtype} on {tensor.device}, strides {tensor.stride()}; "
            "convert it or call .contiguous()"
        )
    return tensor.data_ptr()


def addresses(*outputs: Tensor | None) -> tuple[int, ...]:
    """Addresses of tensors that were allocated here, 0 for None."""
    return tuple([0 if output is None else output.data_ptr() for output in outputs])
