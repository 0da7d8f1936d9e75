"""The `reference` backend: dense plain torch on any device and dtype. Stores the [N, M] matrix."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from goal_kernels.backends.answers import GradientTerms, Mined
from goal_kernels.backends.base import Call, Pairing, RelativeQuery, Verdict, accumulate_dtype
from goal_kernels.backends.composed import ComposedBackend
from goal_kernels.backends.reference_rank import rank_blocks
from goal_kernels.backends.scores import RankCounts
from goal_kernels.pairs import pair_similarity
from goal_kernels.reference import apply_terms, mine_similarity


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """Run with torch's float32 product precision set, and put back what was there."""
    before = torch.get_float32_matmul_precision()
    if before == precision:
        yield
        return
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


class ReferenceBackend(ComposedBackend):
    """Mining by one matrix product and dense reductions, applying by gather and ordered scatter."""

    name = "reference"
    ranks = True

    def availability(self) -> Verdict:
        return Verdict(True)

    def supports(self, call: Call) -> Verdict:
        return Verdict(True)

    def mine(
        self,
        image: Tensor,
        text: Tensor,
        pairing: Pairing,
        relative: RelativeQuery,
        precision: str,
    ) -> Mined:
        dtype = accumulate_dtype(image.dtype)
        # Half-precision inputs are widened first: their products are exact in the wider type.
        lossless = image.dtype != torch.float32
        with matmul_precision("highest" if lossless else precision):
            similarity = image.to(dtype) @ text.to(dtype).T
        mined = mine_similarity(similarity, pairing, relative)
        if lossless or precision == "highest":
            return mined
        return mined._replace(
            row_value=pair_similarity(image, text, mined.row_index),
            column_value=pair_similarity(text, image, mined.column_index),
        )

    def apply(
        self,
        grad_loss: Tensor,
        image: Tensor,
        text: Tensor,
        terms: GradientTerms,
        need: tuple[bool, bool],
    ) -> tuple[Tensor | None, Tensor | None]:
        dtype = accumulate_dtype(image.dtype)
        grads = apply_terms(grad_loss, image.to(dtype), text.to(dtype), terms, need)
        grad_image, grad_text = (None if g is None else g.to(image.dtype) for g in grads)
        return grad_image, grad_text

    def rank(self, image: Tensor, text: Tensor, text_to_image: Tensor) -> RankCounts:
        return rank_blocks(image, text, text_to_image)
