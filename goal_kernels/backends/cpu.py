"""The `cpu` backend: native C++ on torch's number of threads. Never stores the [N, M] matrix.

float16 and bfloat16 are multiplied exactly and accumulated in float32. What `precision` lets
float32 do depends on the processor (docs/cpu.md, section 2); positives and hardest negatives are
accurate to float32 in any case.
"""

from __future__ import annotations

import torch
from torch import Tensor

from goal_kernels import native
from goal_kernels.backends.base import (
    RELATIVE_KINDS,
    UNSCALED,
    VECTORS,
    Call,
    Forward,
    Found,
    GradientTerms,
    Mined,
    Pairing,
    RelativeQuery,
    Scales,
    SearchQuery,
    Verdict,
    WeightStage,
    accumulate_dtype,
)
from goal_kernels.backends.composed import ComposedBackend
from goal_kernels.pairs import relative_query

DTYPES = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}
AUTO_ISA = "auto"


class CpuBackend(ComposedBackend):
    """The native module behind the contract: normalised rows stay raw rows with scales.

    Args:
        isa: instruction set to use, one of `native.build_info()["usable_isas"]`, or "auto" for the
            fastest. Results of different ones agree to rounding, not bit for bit.
    """

    name = "cpu"

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
        scales: Scales = UNSCALED,
    ) -> Mined:
        """See `Backend.mine`; with scales the scaled rows are mined, without a copy of them."""
        image, text = _rows(image, "image"), _rows(text, "text", like=image)
        rows, columns = image.shape[0], text.shape[0]
        value = accumulate_dtype(image.dtype)
        if relative.kind not in RELATIVE_KINDS:
            raise ValueError(
                f"relative.kind: expected one of {RELATIVE_KINDS}, got {relative.kind!r}"
            )
        ids = _id_addresses(pairing, rows, columns)
        mined = _empty_mined(rows, columns, value, relative.kind != "none")
        native.load().mine(
            dtype=DTYPES[image.dtype],
            image=_matrix(image, _address(scales.image, "image_scale", value, rows)),
            text=_matrix(text, _address(scales.text, "text_scale", value, columns)),
            width=image.shape[1],
            pairing=(_address(pairing.target, "target", torch.int64, rows), *ids),
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

    def search(self, image: Tensor, text: Tensor, pairing: Pairing, query: SearchQuery) -> Found:
        """See `Backend.search`."""
        image, text = _rows(image, "image"), _rows(text, "text", like=image)
        scales = UNSCALED
        if query.normalize:
            scales = Scales(self._row_scales(image), self._row_scales(text))
        positive = torch.empty(image.shape[0], dtype=accumulate_dtype(image.dtype))
        native.load().score_pairs(
            dtype=DTYPES[image.dtype],
            a=_matrix(image, *_addresses(scales.image)),
            b=_matrix(text, *_addresses(scales.text)),
            width=image.shape[1],
            index=_address(pairing.target, "target", torch.int64, image.shape[0]),
            similarity=positive.data_ptr(),
            threads=torch.get_num_threads(),
            isa=self.isa,
        )
        relative = relative_query(query.relative, positive, query.epsilon, query.beta)
        mined = self.mine(image, text, pairing, relative, query.precision, scales)
        return Found(positive, mined, scales)

    def _row_scales(self, matrix: Tensor) -> Tensor:
        """1 / max(length, SHORTEST_LENGTH) of each row, [rows]."""
        scale = torch.empty(matrix.shape[0], dtype=accumulate_dtype(matrix.dtype))
        native.load().row_scales(
            dtype=DTYPES[matrix.dtype],
            rows=_matrix(matrix),
            width=matrix.shape[1],
            scale=scale.data_ptr(),
            threads=torch.get_num_threads(),
            isa=self.isa,
        )
        return scale

    def forward(
        self,
        image: Tensor,
        text: Tensor,
        pairing: Pairing,
        query: SearchQuery,
        stage: WeightStage,
    ) -> Forward:
        """See `Backend.forward`. One native call, the weights included (csrc/cpu/forward.h).

        An element that has no native twin is weighed in torch.
        """
        if not native.weighs(stage.triplet, stage.pair):
            return super().forward(image, text, pairing, query, stage)
        image, text = _rows(image, "image"), _rows(text, "text", like=image)
        batch = image.shape[0]
        if text.shape[0] != batch:
            raise ValueError(f"text: expected {batch} rows as images, got {text.shape[0]}")
        dtype = accumulate_dtype(image.dtype)
        result = Forward(
            torch.empty((), dtype=dtype),
            torch.empty((VECTORS + 2 if query.normalize else VECTORS, batch), dtype=dtype),
            torch.empty((2, batch), dtype=torch.int64),
        )
        native.load().forward(
            DTYPES[image.dtype],
            _matrix(image),
            _matrix(text),
            image.shape[1],
            *_id_addresses(pairing, batch, batch),
            stage.triplet,
            stage.pair,
            stage.scalars,
            stage.direction,
            query.normalize,
            query.precision,
            _addresses(*result),
            torch.get_num_threads(),
            self.isa,
        )
        return result

    def apply(
        self,
        grad_loss: Tensor,
        image: Tensor,
        text: Tensor,
        terms: GradientTerms,
        need: tuple[bool, bool],
    ) -> tuple[Tensor | None, Tensor | None]:
        """See `Backend.apply`."""
        rows, columns = image.shape[0], text.shape[0]
        value = accumulate_dtype(image.dtype)
        # Weights may be expanded scalars; the names keep a copy alive until the call is over.
        positive, row, column = (weight.contiguous() for weight in terms[3:])
        indices = (
            _address(terms.hardest_text, "hardest_text", torch.int64, rows),
            _address(terms.hardest_image, "hardest_image", torch.int64, columns),
            _address(terms.target, "target", torch.int64, rows),
        )
        weights = (
            _address(positive, "positive_weight", value, rows),
            _address(row, "row_weight", value, rows),
            _address(column, "column_weight", value, columns),
        )
        return self._gather(grad_loss, (image, text), (0, 0), indices, weights, need)

    def backward(
        self,
        grad_loss: Tensor,
        image: Tensor,
        text: Tensor,
        vectors: Tensor,
        hardest: Tensor,
        need: tuple[bool, bool],
    ) -> tuple[Tensor | None, Tensor | None]:
        """See `Backend.backward`; normalised rows are not made."""
        batch, dtype = image.shape[0], accumulate_dtype(image.dtype)
        if len(text) != batch or len(vectors) not in (VECTORS, VECTORS + 2):
            raise ValueError(
                f"text, vectors: expected {batch} and {VECTORS} or {VECTORS + 2} rows, got "
                f"{len(text)} and {len(vectors)}; pass what forward returned"
            )
        vectors, hardest = vectors.contiguous(), hardest.contiguous()
        first = _address(vectors, "vectors", dtype, len(vectors) * batch)
        text_index = _address(hardest, "hardest", torch.int64, 2 * batch)
        step = batch * vectors.element_size()
        weights = (first + 3 * step, first + 4 * step, first + 5 * step)
        scales = (first + 6 * step, first + 7 * step) if len(vectors) > VECTORS else (0, 0)
        indices = (text_index, text_index + batch * hardest.element_size(), 0)
        return self._gather(grad_loss, (image, text), scales, indices, weights, need)

    def _gather(
        self,
        grad_loss: Tensor,
        embeddings: tuple[Tensor, Tensor],
        scales: tuple[int, int],
        indices: tuple[int, int, int],
        weights: tuple[int, int, int],
        need: tuple[bool, bool],
    ) -> tuple[Tensor | None, Tensor | None]:
        """Both gradients.

        Args: the rest are addresses; scales: 0 for none; indices: hardest text, hardest image and
            target; weights: positive, row, column.
        """
        image = _rows(embeddings[0], "image")
        text = _rows(embeddings[1], "text", like=image)
        grad_image = torch.empty(image.shape, dtype=image.dtype) if need[0] else None
        grad_text = torch.empty(text.shape, dtype=text.dtype) if need[1] else None
        native.load().apply(
            DTYPES[image.dtype],
            _matrix(image, scales[0]),
            _matrix(text, scales[1]),
            image.shape[1],
            indices,
            (*weights, _address(grad_loss, "grad_loss", accumulate_dtype(image.dtype), 1)),
            _addresses(grad_image, grad_text),
            torch.get_num_threads(),
            self.isa,
        )
        return grad_image, grad_text


def _rows(matrix: Tensor, name: str, like: Tensor | None = None) -> Tensor:
    """`matrix` [rows, width] itself, or a copy of it if the elements of a row are not adjacent."""
    if matrix.dim() != 2 or not matrix.is_cpu or matrix.dtype not in DTYPES:
        raise ValueError(
            f"{name}: expected a CPU matrix of {', '.join(DTYPES.values())}, got "
            f"{tuple(matrix.shape)} {matrix.dtype} on {matrix.device}; convert it"
        )
    if like is not None and (matrix.dtype != like.dtype or matrix.shape[1] != like.shape[1]):
        raise ValueError(
            f"{name}: expected {like.dtype} and width {like.shape[1]} as the image embeddings, got "
            f"{matrix.dtype} and {matrix.shape[1]}; convert one of them"
        )
    if matrix.is_neg():
        matrix = matrix.resolve_neg()
    return matrix if matrix.shape[1] == 1 or matrix.stride(1) == 1 else matrix.contiguous()


def _matrix(rows: Tensor, scale: int = 0) -> tuple[int, int, int, int]:
    """What the kernels know of a matrix with unit stride along its rows. scale: address or 0."""
    return rows.data_ptr(), rows.shape[0], rows.stride(0), scale


def _id_addresses(pairing: Pairing, rows: int, columns: int) -> tuple[int, int]:
    """Addresses of the ids of both sides, two zeros without ids."""
    if (pairing.image_ids is None) != (pairing.text_ids is None):
        raise ValueError("image_ids, text_ids: expected both or none; pass the missing one")
    return (
        _address(pairing.image_ids, "image_ids", torch.int64, rows),
        _address(pairing.text_ids, "text_ids", torch.int64, columns),
    )


def _address(tensor: Tensor | None, name: str, dtype: torch.dtype, length: int) -> int:
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


def _addresses(*outputs: Tensor | None) -> tuple[int, ...]:
    """Addresses of tensors that were allocated here, 0 for None."""
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
