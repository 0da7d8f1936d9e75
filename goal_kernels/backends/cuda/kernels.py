"""How Python calls the CUDA stages (csrc/cuda): argument structures by name, and where they run."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor

from goal_kernels import native
from goal_kernels.backends.base import Pairing

DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}

LENGTH_LIMIT = 2**31 - 1
"""Rows and columns are numbered in int32 while mining."""


class Kernels:
    """The stages on the GPU of the tensors, or emulated on the processor, warp by warp.

    Args:
        programs: thread blocks of the mining kernel, 0 for one per multiprocessor. Tests change it;
            results do not.
    """

    def __init__(self, emulated: bool, programs: int = 0) -> None:
        self.emulated = emulated
        self.programs = programs

    @property
    def module(self) -> Any:
        """The native module of the stages."""
        return native.load().cuda

    def structure(self, name: str, /, **fields: Any) -> Any:
        """An argument structure; fields not named are zero. Tensors become their addresses."""
        result = getattr(self.module, name)()
        for field, value in fields.items():
            if value is not None:
                setattr(result, field, value.data_ptr() if isinstance(value, Tensor) else value)
        return result

    def run(self, stage: str, arguments: Any, device: torch.device) -> None:
        """Enqueue a stage on the current stream of `device`."""
        if self.emulated:
            getattr(self.module, f"{stage}_emulated")(arguments)
        else:
            stream = torch.cuda.current_stream(device).cuda_stream
            getattr(self.module, stage)(arguments, stream)

    def on_device(self, tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
        """Launches go to the current device."""
        return contextlib.nullcontext() if self.emulated else torch.cuda.device(tensor.device)


def as_rows(matrix: Tensor, name: str, like: Tensor | None = None) -> Tensor:
    """`matrix` [rows, width] itself, or a copy if the elements of a row are not adjacent.

    like: the other matrix, whose dtype, width and device it has to share.
    """
    if matrix.dim() != 2 or matrix.dtype not in DTYPES:
        raise ValueError(
            f"{name}: expected a matrix of {', '.join(DTYPES.values())}, got "
            f"{tuple(matrix.shape)} {matrix.dtype}; convert it"
        )
    if matrix.shape[0] >= LENGTH_LIMIT:
        raise ValueError(
            f"{name}: expected fewer than {LENGTH_LIMIT} rows, got {matrix.shape[0]}; split them"
        )
    if like is not None and (
        (matrix.dtype, matrix.shape[1], matrix.device) != (like.dtype, like.shape[1], like.device)
    ):
        raise ValueError(
            f"{name}: expected {like.dtype}, width {like.shape[1]} and {like.device} as the image "
            f"embeddings, got {matrix.dtype}, {matrix.shape[1]} and {matrix.device}; convert one"
        )
    if matrix.is_neg():
        matrix = matrix.resolve_neg()
    return matrix if matrix.shape[1] == 1 or matrix.stride(1) == 1 else matrix.contiguous()


def matrix_argument(rows: Tensor) -> tuple[int, int, int]:
    """What the kernels know of a matrix with unit stride along its rows."""
    return rows.data_ptr(), rows.shape[0], rows.stride(0)


def vector(tensor: Tensor | None, name: str, like: Tensor, length: int) -> Tensor | None:
    """`tensor` itself, once it is known to have `length` elements of the type that `like` has.

    The kernels trust this check. like: any tensor of the wanted dtype and device.
    """
    if tensor is None:
        return None
    fits = tensor.dtype == like.dtype and tensor.device == like.device
    if not fits or tensor.numel() != length or not tensor.is_contiguous():
        raise ValueError(
            f"{name}: expected {length} contiguous elements of {like.dtype} on {like.device}, got "
            f"{tuple(tensor.shape)} {tensor.dtype} on {tensor.device}, strides {tensor.stride()}; "
            "convert it or call .contiguous()"
        )
    return tensor


def checked_pairing(pairing: Pairing, rows: int, columns: int, device: torch.device) -> Pairing:
    """The pairing itself, once its lengths are known to be right."""
    if (pairing.image_ids is None) != (pairing.text_ids is None):
        raise ValueError("image_ids, text_ids: expected both or none; pass the missing one")
    like = torch.empty(0, dtype=torch.int64, device=device)
    return Pairing(
        vector(pairing.target, "target", like, rows),
        vector(pairing.image_ids, "image_ids", like, rows),
        vector(pairing.text_ids, "text_ids", like, columns),
    )
