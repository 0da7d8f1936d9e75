"""The `reference` backend: dense plain torch on any device and dtype. Stores the [N, M] matrix."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from goal_kernels.backends.answers import UNSCALED, Found, GradientTerms, Mined, MinedTopK, Scales
from goal_kernels.backends.base import (
    Backend,
    Call,
    Pairing,
    RelativeQuery,
    SearchQuery,
    TopKQuery,
    Verdict,
    common_precision,
)
from goal_kernels.backends.reference_rank import rank_blocks
from goal_kernels.backends.scores import RankCounts
from goal_kernels.backends.torch_top_k import dense_top_k
from goal_kernels.normalization import raw_gradient, row_scale, wide_rows
from goal_kernels.pairs import pair_similarity, relative_query
from goal_kernels.reference import apply_terms, mine_similarity


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """Run with torch's float32 product precision set, and put back what was there."""
    before = common_precision()
    if before == precision:
        yield
        return
    own = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    words = [products.fp32_precision for products in own]
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before or "highest")
        for products, word in zip(own, words, strict=True):
            products.fp32_precision = word


class ReferenceBackend(Backend):
    """Mining by one matrix product and dense reductions, gradients by ordered sums of rows.

    Half-precision inputs are widened first: their products are exact in the wider type. Normalised
    rows are made, in the accumulate dtype.
    """

    name = "reference"
    ranks = True
    finds_top_k = True

    def availability(self) -> Verdict:
        return Verdict(True)

    def supports(self, call: Call) -> Verdict:
        return Verdict(True)

    def _mine(
        self, image: Tensor, text: Tensor, pairing: Pairing, relative: RelativeQuery
    ) -> Mined:
        """Mine rows of the accumulate dtype, as precisely as torch's products are set to be."""
        return mine_similarity(image @ text.T, pairing, relative)

    def search(self, image: Tensor, text: Tensor, pairing: Pairing, query: SearchQuery) -> Found:
        scales = Scales(row_scale(image), row_scale(text)) if query.normalize else UNSCALED
        lossless = image.dtype != torch.float32
        image, text = wide_rows(image, scales.image), wide_rows(text, scales.text)
        positive = pair_similarity(image, text, pairing.target)
        relative = relative_query(query.relative, positive, query.epsilon, query.beta)
        with matmul_precision("highest" if lossless else query.precision):
            mined = self._mine(image, text, pairing, relative)
        if not lossless and query.precision != "highest":
            mined = mined._replace(
                row_value=pair_similarity(image, text, mined.row_index),
                column_value=pair_similarity(text, image, mined.column_index),
            )
        return Found.pack(positive, mined, scales)

    def apply(
        self,
        grad_loss: Tensor,
        image: Tensor,
        text: Tensor,
        terms: GradientTerms,
        scales: Scales,
        need: tuple[bool, bool],
    ) -> tuple[Tensor | None, Tensor | None]:
        rows = wide_rows(image, scales.image), wide_rows(text, scales.text)
        grads = apply_terms(grad_loss, *rows, terms, need)
        grad_image, grad_text = (
            None if grad is None else raw_gradient(grad, raw, scale).to(raw.dtype)
            for grad, raw, scale in zip(grads, (image, text), scales, strict=True)
        )
        return grad_image, grad_text

    def rank(self, image: Tensor, text: Tensor, text_to_image: Tensor) -> RankCounts:
        return rank_blocks(image, text, text_to_image)

    def top_k(self, queries: Tensor, corpus: Tensor, query: TopKQuery) -> MinedTopK:
        return dense_top_k(queries, corpus, query)
