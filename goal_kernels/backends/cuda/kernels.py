"""How Python calls the CUDA stages (csrc/cuda): argument structures by name, and where they run."""

from __future__ import annotations

import contextlib
import functools
from typing import Any

import torch
from torch import Tensor

from goal_kernels import native
from goal_kernels.backends.arguments import as_rows
from goal_kernels.backends.base import Pairing

DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}

LENGTH_LIMIT = 2**31 - 1
"""Rows and columns are numbered in int32 while mining."""

PACK = 8
"""16-bit elements of one copy of the tensor unit: operands are padded to a multiple."""

PACK_BYTES = 16


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

    @property
    def device_type(self) -> str:
        """Where the tensors that they read have to be."""
        return "cpu" if self.emulated else "cuda"

    def rows(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Both matrices [rows, width] as the stages read them, see `as_rows`."""
        served = functools.partial(as_rows, device_type=self.device_type, dtypes=DTYPES)
        image = served(image, "image")
        text = served(text, "text", like=image)
        for name, matrix in (("image", image), ("text", text)):
            if matrix.shape[0] >= LENGTH_LIMIT:
                raise ValueError(
                    f"{name}: expected fewer than {LENGTH_LIMIT} rows, got {matrix.shape[0]}; "
                    "split them"
                )
        return image, text

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


def is_aligned(matrix: Tensor) -> bool:
    """Whether the copy engine can read rows, or halves of rows, where they are: in whole packs."""
    rows, width = matrix.shape
    stride, pack = matrix.stride(0), PACK_BYTES // matrix.itemsize
    whole = width % PACK == 0 and stride % pack == 0 and matrix.data_ptr() % PACK_BYTES == 0
    return whole and stride >= width


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
