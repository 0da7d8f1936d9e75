"""The `cpu` backend: native C++ on torch's number of threads. Never stores the [N, M] matrix.

float16 and bfloat16 are multiplied exactly and accumulated in float32. What `precision` lets
float32 do depends on the processor (docs/cpu.md, section 2); positives and hardest negatives are
accurate to float32 in any case.
"""

from __future__ import annotations

import torch
from torch import Tensor

from goal_kernels import native
from goal_kernels.backends.answers import (
    VECTORS,
    Forward,
    Found,
    GradientTerms,
    Hardest,
    MinedTopK,
    Scales,
)
from goal_kernels.backends.arguments import (
    DTYPES,
    address,
    addresses,
    as_rows,
    id_addresses,
    matrix_arguments,
    pairing_addresses,
)
from goal_kernels.backends.base import (
    YES,
    Backend,
    Call,
    Pairing,
    SearchQuery,
    TopKQuery,
    Verdict,
    WeightStage,
    accumulate_dtype,
)
from goal_kernels.backends.scores import RankCounts

AUTO_ISA = "auto"

Anchors = tuple[int, int, int, int]
"""Addresses of the values, indices, sums and counts of one side."""


class CpuBackend(Backend):
    """The native module behind the contract: normalised rows stay raw rows with scales.

    Args:
        isa: instruction set to use, one of `native.build_info()["usable_isas"]` or, for tests,
            "emulated_isas", or "auto" for the fastest. Results of different ones agree to
            rounding, not bit for bit.
    """

    name = "cpu"
    ranks = True
    finds_top_k = True

    def __init__(self, isa: str = AUTO_ISA) -> None:
        self.isa = isa

    def availability(self) -> Verdict:
        loaded, reason = native.status()
        return YES if loaded else Verdict(False, reason)

    def supports(self, call: Call) -> Verdict:
        if call.device_type != "cpu":
            return Verdict(False, f"it serves CPU tensors only, these are on {call.device_type}.")
        if call.dtype not in DTYPES:
            supported = ", ".join(DTYPES.values())
            return Verdict(False, f"it supports {supported}, not {call.dtype}.")
        return YES

    def search(self, image: Tensor, text: Tensor, pairing: Pairing, query: SearchQuery) -> Found:
        """See `Backend.search`."""
        sizes, value = (image.shape[0], text.shape[0]), accumulate_dtype(image.dtype)
        found = Found.empty(image, sizes, value, query.relative, query.normalize)
        values, indices, summed, counts, scales = addresses(*found)
        step, wide = sizes[0] * value.itemsize, sizes[0] * torch.int64.itemsize
        of_rows = (values + step, indices, summed, counts)
        of_columns = (values + 2 * step, indices + wide, summed + step, counts + wide)
        self._search(image, text, pairing, query, (values, of_rows, of_columns, scales))
        return found

    def hardest(self, image: Tensor, text: Tensor, pairing: Pairing, query: SearchQuery) -> Hardest:
        """See `Backend.hardest`. Parts of packed tensors take longer to make than five tensors."""
        rows, columns, value = image.shape[0], text.shape[0], accumulate_dtype(image.dtype)
        positive = image.new_empty(rows, dtype=value)
        row_value = image.new_empty(rows, dtype=value)
        row_index = image.new_empty(rows, dtype=torch.int64)
        column_value = image.new_empty(columns, dtype=value)
        column_index = image.new_empty(columns, dtype=torch.int64)
        scales = image.new_empty(rows + columns, dtype=value) if query.normalize else None
        of_rows = (row_value.data_ptr(), row_index.data_ptr(), 0, 0)
        of_columns = (column_value.data_ptr(), column_index.data_ptr(), 0, 0)
        scale = 0 if scales is None else scales.data_ptr()
        output = (positive.data_ptr(), of_rows, of_columns, scale)
        self._search(image, text, pairing, query, output)
        return positive, row_value, row_index, column_value, column_index

    def _search(
        self,
        image: Tensor,
        text: Tensor,
        pairing: Pairing,
        query: SearchQuery,
        output: tuple[int, Anchors, Anchors, int],
    ) -> None:
        """One native call (csrc/cpu/search.h). output: positives, both sides, scales."""
        image, text = as_rows(image, text)
        native.load().search(
            *matrix_arguments(image, text),
            pairing_addresses(pairing, image.shape[0], text.shape[0]),
            query,
            output,
            torch.get_num_threads(),
            self.isa,
        )

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
        image, text = as_rows(image, text)
        batch = image.shape[0]
        if text.shape[0] != batch:
            raise ValueError(f"text: expected {batch} rows as images, got {text.shape[0]}")
        result = Forward.empty(image, accumulate_dtype(image.dtype), query.normalize)
        native.load().forward(
            *matrix_arguments(image, text),
            *id_addresses(pairing, batch, batch),
            stage.triplet,
            stage.pair,
            stage.scalars,
            stage.direction,
            query.normalize,
            query.precision,
            addresses(*result),
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
        scales: Scales,
        need: tuple[bool, bool],
    ) -> tuple[Tensor | None, Tensor | None]:
        """See `Backend.apply`; normalised rows are not made."""
        rows, columns, dtype = len(image), len(text), accumulate_dtype(image.dtype)
        indices = (
            address(terms.hardest_text, "hardest_text", torch.int64, rows),
            address(terms.hardest_image, "hardest_image", torch.int64, columns),
            address(terms.target, "target", torch.int64, rows),
        )
        weights = (
            address(terms.positive_weight, "positive_weight", dtype, rows),
            address(terms.row_weight, "row_weight", dtype, rows),
            address(terms.column_weight, "column_weight", dtype, columns),
        )
        of_rows = (
            address(scales.image, "scales", dtype, rows),
            address(scales.text, "scales", dtype, columns),
        )
        return self._apply(grad_loss, image, text, indices, weights, of_rows, need)

    def backward(
        self,
        grad_loss: Tensor,
        image: Tensor,
        text: Tensor,
        vectors: Tensor,
        hardest: Tensor,
        need: tuple[bool, bool],
    ) -> tuple[Tensor | None, Tensor | None]:
        """See `Backend.backward`. Takes addresses apart, not tensors: each costs a microsecond."""
        batch, dtype = image.shape[0], accumulate_dtype(image.dtype)
        if len(text) != batch or len(vectors) not in (VECTORS, VECTORS + 2):
            raise ValueError(
                f"text, vectors: expected {batch} and {VECTORS} or {VECTORS + 2} rows, got "
                f"{len(text)} and {len(vectors)}; pass what forward returned"
            )
        vectors, hardest = vectors.contiguous(), hardest.contiguous()
        first = address(vectors, "vectors", dtype, len(vectors) * batch)
        text_index = address(hardest, "hardest", torch.int64, 2 * batch)
        step = batch * vectors.element_size()
        weights = (first + 3 * step, first + 4 * step, first + 5 * step)
        scales = (first + 6 * step, first + 7 * step) if len(vectors) > VECTORS else (0, 0)
        indices = (text_index, text_index + batch * hardest.element_size(), 0)
        return self._apply(grad_loss, image, text, indices, weights, scales, need)

    def _apply(
        self,
        grad_loss: Tensor,
        image: Tensor,
        text: Tensor,
        indices: tuple[int, int, int],
        weights: tuple[int, int, int],
        scales: tuple[int, int],
        need: tuple[bool, bool],
    ) -> tuple[Tensor | None, Tensor | None]:
        """One native call (csrc/cpu/apply.h). indices, weights, scales: addresses, 0: none."""
        image, text = as_rows(image, text)
        grad_image = image.new_empty(image.shape) if need[0] else None
        grad_text = text.new_empty(text.shape) if need[1] else None
        native.load().apply(
            *matrix_arguments(image, text, scales),
            indices,
            (*weights, address(grad_loss, "grad_loss", accumulate_dtype(image.dtype), 1)),
            addresses(grad_image, grad_text),
            torch.get_num_threads(),
            self.isa,
        )
        return grad_image, grad_text

    def rank(self, image: Tensor, text: Tensor, text_to_image: Tensor) -> RankCounts:
        image, text = as_rows(image, text)
        rows, columns = image.shape[0], text.shape[0]
        counts = RankCounts(
            image.new_empty(columns, dtype=torch.float32),
            *(
                image.new_empty(length, dtype=torch.int64)
                for length in (rows, rows, columns, columns)
            ),
        )
        native.load().rank(
            *matrix_arguments(image, text),
            text_to_image=address(text_to_image, "text_to_image", torch.int64, columns),
            positive=counts.positive.data_ptr(),
            image_counts=addresses(counts.image_better, counts.image_ties),
            text_counts=addresses(counts.text_better, counts.text_ties),
            threads=torch.get_num_threads(),
            isa=self.isa,
        )
        return counts

    def top_k(self, queries: Tensor, corpus: Tensor, query: TopKQuery) -> MinedTopK:
        """See `Backend.top_k`. As exact as `highest` at any precision (csrc/cpu/top_k.h)."""
        queries, corpus = as_rows(queries, corpus, ("queries", "corpus"))
        rows, columns, dtype = len(queries), len(corpus), accumulate_dtype(queries.dtype)
        found = MinedTopK(
            queries.new_empty((rows, query.k), dtype=dtype),
            queries.new_empty((rows, query.k), dtype=torch.int64),
            queries.new_empty(rows, dtype=torch.int64),
        )
        native.load().top_k(
            *matrix_arguments(queries, corpus),
            ids=id_addresses(Pairing(None, query.query_ids, query.corpus_ids), rows, columns),
            max_score=address(query.max_score, "max_score", dtype, rows),
            normalize=query.normalize,
            k=query.k,
            output=addresses(*found),
            threads=torch.get_num_threads(),
            isa=self.isa,
        )
        return found
