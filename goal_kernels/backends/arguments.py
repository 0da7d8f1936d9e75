"""Tensors as the native module takes them: addresses and sizes, checked."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from goal_kernels.backends.base import Pairing

DTYPES = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}


def as_rows(
    matrix: Tensor,
    name: str,
    like: Tensor | None = None,
    *,
    device_type: str = "cpu",
    dtypes: Mapping[torch.dtype, str] = DTYPES,
) -> Tensor:
    """`matrix` [rows, width] itself, or a copy of it if the elements of a row are not adjacent.

    Args:
        like: the other matrix, whose dtype, width and device it has to share.
        device_type, dtypes: where the kernels can read it, and what. They trust these checks.
    """
    dtype, device = matrix.dtype, matrix.device
    if matrix.dim() != 2 or device.type != device_type or dtype not in dtypes:
        raise ValueError(
            f"{name}: expected a {device_type.upper()} matrix of {', '.join(dtypes.values())}, got "
            f"{tuple(matrix.shape)} {matrix.dtype} on {matrix.device}; convert it"
        )
    if like is not None and not (
        dtype == like.dtype and matrix.size(1) == like.size(1) and device == like.device
    ):
        raise ValueError(
            f"{name}: expected {like.dtype} and width {like.shape[1]} on {like.device} as the "
            f"image embeddings, got {matrix.dtype} and {matrix.shape[1]} on {matrix.device}; "
            "convert one of them"
        )
    if matrix.is_neg():
        matrix = matrix.resolve_neg()
    return matrix if matrix.stride(1) == 1 or matrix.size(1) == 1 else matrix.contiguous()


def matrix_argument(rows: Tensor, scale: int = 0) -> tuple[int, int, int, int]:
    """What the kernels know of a matrix with unit stride along its rows. scale: address or 0."""
    return rows.data_ptr(), rows.size(0), rows.stride(0), scale


def id_addresses(pairing: Pairing, rows: int, columns: int) -> tuple[int, int]:
    """Addresses of the ids of both sides, two zeros without ids."""
    if (pairing.image_ids is None) != (pairing.text_ids is None):
        raise ValueError("image_ids, text_ids: expected both or none; pass the missing one")
    return (
        address(pairing.image_ids, "image_ids", torch.int64, rows),
        address(pairing.text_ids, "text_ids", torch.int64, columns),
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
