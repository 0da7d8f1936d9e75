"""What operators call, composed from a backend's `mine` and `apply` in plain torch."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from goal_kernels.backends.answers import (
    UNSCALED,
    Forward,
    Found,
    GradientTerms,
    Mined,
    Scales,
    unpack_terms,
)
from goal_kernels.backends.base import Backend, Pairing, RelativeQuery, SearchQuery, WeightStage
from goal_kernels.normalization import raw_gradient, row_scale, scaled_rows
from goal_kernels.pairs import pair_similarity, relative_query


class ComposedBackend(Backend):
    """A backend that supplies `mine` and `apply` only. Normalised rows are made and mined."""

    @abstractmethod
    def mine(
        self,
        image: Tensor,
        text: Tensor,
        pairing: Pairing,
        relative: RelativeQuery,
        precision: str,
    ) -> Mined:
        """Mine both directions in one pass.

        Args:
            image, text: [N, D] and [M, D], N, M, D >= 1, same dtype and device, any strides.
            pairing: see `Pairing`; index tensors are int64, contiguous, on the same device.
            relative: see `RelativeQuery`.
            precision: one of PRECISIONS, torch's words for float32 products.
        Returns: `Mined`. Deterministic: bit-equal for equal inputs, for any thread count or grid.
        """

    @abstractmethod
    def apply(
        self,
        grad_loss: Tensor,
        image: Tensor,
        text: Tensor,
        terms: GradientTerms,
        need: tuple[bool, bool],
    ) -> tuple[Tensor | None, Tensor | None]:
        """Gather and scatter the gradient rows.

        grad_image[i] = g (row_weight[i] text[hardest_text[i]] - positive_weight[i] text[target[i]]
                           + sum over k with hardest_image[k] = i of column_weight[k] text[k])
        grad_text[j]  = g (column_weight[j] image[hardest_image[j]]
                           - sum over i with target[i] = j of positive_weight[i] image[i]
                           + sum over i with hardest_text[i] = j of row_weight[i] image[i])

        Args:
            grad_loss: g, 0-d, accumulate dtype, on the device of the embeddings.
            need: whether the image and the text gradient are wanted.
        Returns: grad_image [N, D] and grad_text [M, D] in the input dtype, contiguous; None where
            not wanted. Accumulated in the accumulate dtype; deterministic.
        """

    def search(self, image: Tensor, text: Tensor, pairing: Pairing, query: SearchQuery) -> Found:
        scales = Scales(row_scale(image), row_scale(text)) if query.normalize else UNSCALED
        image, text = scaled_rows(image, scales.image), scaled_rows(text, scales.text)
        positive = pair_similarity(image, text, pairing.target)
        relative = relative_query(query.relative, positive, query.epsilon, query.beta)
        mined = self.mine(image, text, pairing, relative, query.precision)
        return Found.pack(positive, mined, scales)

    def forward(
        self,
        image: Tensor,
        text: Tensor,
        pairing: Pairing,
        query: SearchQuery,
        stage: WeightStage,
    ) -> Forward:
        found = self.search(image, text, pairing, query)
        return Forward.pack(found, stage.weigh(found.positive, found.mined))

    def backward(
        self,
        grad_loss: Tensor,
        image: Tensor,
        text: Tensor,
        vectors: Tensor,
        hardest: Tensor,
        need: tuple[bool, bool],
    ) -> tuple[Tensor | None, Tensor | None]:
        terms, scales = unpack_terms(vectors, hardest)
        rows = scaled_rows(image, scales.image), scaled_rows(text, scales.text)
        grad_image, grad_text = self.apply(grad_loss, *rows, terms, need)
        if grad_image is not None and scales.image is not None:
            grad_image = raw_gradient(grad_image, image, scales.image)
        if grad_text is not None and scales.text is not None:
            grad_text = raw_gradient(grad_text, text, scales.text)
        return grad_image, grad_text
