"""The `cpu` backend: native C++ on torch's number of threads. Never stores the [N, M] matrix.

float16 and bfloat16 are widened exactly and accumulated in float32, so every dtype is mined at full
precision whatever `precision` allows, and nothing needs to be recomputed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from goal_kernels import native
from goal_kernels.backends.base import (
    RELATIVE_KINDS,
    Backend,
    Call,
    GradientTerms,
    Mined,
    Pairing,
    RankCounts,
    RelativeQuery,
    Verdict,
    accumulate_dtype,
)

DTYPES = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}
AUTO_ISA = "auto"


class CpuBackend(Backend):
    """`mine`, `apply` and `rank` of the native module.

    Args:
        isa: instruction set to use, one of `native.build_info()["usable_isas"]`, or "auto" for the
            fastest. Results of different ones agree to rounding, not bit for bit.
    """

    name = "cpu"
    ranks = True

    def __init__(self, isa: str = AUTO_ISA) -> None:
        self.isa = isa

    def availability(self) -> Verdict:
        return Verdict(*native.status())

    def supports(self, call: Call) -> Verdict:
        if call.device_type != "cpu":
            return Verdict(False, f"it serves CPU tensors only, these are on {call.device_type}.")
        if call.dtype not in DTYPES:
            supported = ", ".join(DTYPES.values())
            return Verdict(False, f"it supports {supported}, not {call.dtype}.")
        return Verdict(True)

    def mine(
        self,
        image: Tensor,
        text: Tensor,
        pairing: Pairing,
        relative: RelativeQuery,
        precision: str,
    ) -> Mined:
        image, text = _rows(image, "image"), _rows(text, "text", like=image)
        rows, columns = image.shape[0], text.shape[0]
        value = accumulate_dtype(image.dtype)
        if relative.kind not in RELATIVE_KINDS:
            raise ValueError(
                f"relative.kind: expected one of {RELATIVE_KINDS}, got {relative.kind!r}"
            )
        if (pairing.image_ids is None) != (pairing.text_ids is None):
            raise ValueError("image_ids, text_ids: expected both or none; pass the missing one")
        mined = _empty_mined(rows, columns, value, relative.kind != "none")
        native.load().mine(
            dtype=DTYPES[image.dtype],
            image=(image.data_ptr(), rows, image.stride(0), 0),
            text=(text.data_ptr(), columns, text.stride(0), 0),
            width=image.shape[1],
            pairing=(
                _address(pairing.target, "target", torch.int64, rows),
                _address(pairing.image_ids, "image_ids", torch.int64, rows),
                _address(pairing.text_ids, "text_ids", torch.int64, columns),
            ),
            relative=(
                relative.kind,
                _address(relative.threshold, "relative.threshold", value, 1),
                float(relative.beta),
            ),
            row=_addresses(mined.row_value, mined.row_index, mined.row_sum, mined.row_count),
            column=_addresses(
                mined.column_value, mined.column_index, mined.column_sum, mined.column_count
            ),
            precision=precision,
            threads=torch.get_num_threads(),
            isa=self.isa,
        )
        return mined

    def apply(
        self,
        grad_loss: Tensor,
        image: Tensor,
        text: Tensor,
        terms: GradientTerms,
        need: tuple[bool, bool],
    ) -> tuple[Tensor | None, Tensor | None]:
        image, text = _rows(image, "image"), _rows(text, "text", like=image)
        rows, columns = image.shape[0], text.shape[0]
        value = accumulate_dtype(image.dtype)
        grad_image = torch.empty(image.shape, dtype=image.dtype) if need[0] else None
        grad_text = torch.empty(text.shape, dtype=text.dtype) if need[1] else None
        # Weights may be expanded scalars; the names keep a copy alive until the call is over.
        positive, row, column = (weight.contiguous() for weight in terms[3:])
        native.load().apply(
            dtype=DTYPES[image.dtype],
            image=(image.data_ptr(), rows, image.stride(0), 0),
            text=(text.data_ptr(), columns, text.stride(0), 0),
            width=image.shape[1],
            indices=(
                _address(terms.hardest_text, "hardest_text", torch.int64, rows),
                _address(terms.hardest_image, "hardest_image", torch.int64, columns),
                _address(terms.target, "target", torch.int64, rows),
            ),
            weights=(
                _address(positive, "positive_weight", value, rows),
                _address(row, "row_weight", value, rows),
                _address(column, "column_weight", value, columns),
                _address(grad_loss, "grad_loss", value, 1),
            ),
            gradients=_addresses(grad_image, grad_text),
            threads=torch.get_num_threads(),
            isa=self.isa,
        )
        return grad_image, grad_text

    def rank(self, image: Tensor, text: Tensor, text_to_image: Tensor) -> RankCounts:
        image, text = _rows(image, "image"), _rows(text, "text", like=image)
        rows, columns = image.shape[0], text.shape[0]
        counts = RankCounts(
            torch.empty(columns, dtype=torch.float32),
            *(torch.empty(length, dtype=torch.int64) for length in (rows, rows, columns, columns)),
        )
        native.load().rank(
            dtype=DTYPES[image.dtype],
            image=(image.data_ptr(), rows, image.stride(0), 0),
            text=(text.data_ptr(), columns, text.stride(0), 0),
            width=image.shape[1],
            text_to_image=_address(text_to_image, "text_to_image", torch.int64, columns),
            positive=counts.positive.data_ptr(),
            image_counts=_addresses(counts.image_better, counts.image_ties),
            text_counts=_addresses(counts.text_better, counts.text_ties),
            threads=torch.get_num_threads(),
            isa=self.isa,
        )
        return counts


def _rows(matrix: Tensor, name: str, like: Tensor | None = None) -> Tensor:
    """`matrix` [rows, width] itself, or a copy of it if the elements of a row are not adjacent."""
    if matrix.dim() != 2 or matrix.device.type != "cpu" or matrix.dtype not in DTYPES:
        raise ValueError(
            f"{name}: expected a CPU matrix of {', '.join(DTYPES.values())}, got "
            f"{tuple(matrix.shape)} {matrix.dtype} on {matrix.device}; convert it"
        )
    if like is not None and (matrix.dtype != like.dtype or matrix.shape[1] != like.shape[1]):
        raise ValueError(
            f"{name}: expected {like.dtype} and width {like.shape[1]} as the image embeddings, got "
            f"{matrix.dtype} and {matrix.shape[1]}; convert one of them"
        )
    matrix = matrix.resolve_neg()
    return matrix if matrix.shape[1] == 1 or matrix.stride(1) == 1 else matrix.contiguous()


def _address(tensor: Tensor | None, name: str, dtype: torch.dtype, length: int) -> int:
    """Address of a vector of `length` elements, 0 for None. The kernels trust these checks."""
    if tensor is None:
        return 0
    fits = tensor.dtype == dtype and tensor.numel() == length and tensor.device.type == "cpu"
    if not fits or not tensor.is_contiguous():
        raise ValueError(
            f"{name}: expected {length} contiguous elements of {dtype} on the CPU, got "
            f"{tuple(tensor.shape)} {tensor.dtype} on {tensor.device}, strides {tensor.stride()}; "
            "convert it or call .contiguous()"
        )
    return tensor.data_ptr()


def _addresses(*outputs: Tensor | None) -> tuple[int, ...]:
    """Addresses of outputs that were allocated here, 0 for None."""
    return tuple(0 if output is None else output.data_ptr() for output in outputs)


def _empty_mined(rows: int, columns: int, value: torch.dtype, sums: bool) -> Mined:
    """Uninitialised results: [N] and [M] vectors, sums of length 0 unless wanted."""
    sum_rows, sum_columns = (rows, columns) if sums else (0, 0)
    return Mined(
        row_value=torch.empty(rows, dtype=value),
        row_index=torch.empty(rows, dtype=torch.int64),
        column_value=torch.empty(columns, dtype=value),
        column_index=torch.empty(columns, dtype=torch.int64),
        row_sum=torch.empty(sum_rows, dtype=value),
        row_count=torch.empty(sum_rows, dtype=torch.int64),
        column_sum=torch.empty(sum_columns, dtype=value),
        column_count=torch.empty(sum_columns, dtype=torch.int64),
    )
