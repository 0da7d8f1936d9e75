"""`search` and `backward` composed from mining and applying in plain torch."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from goal_kernels.backends.answers import (
    UNSCALED,
    Found,
    GradientTerms,
    Mined,
    Scales,
    unpack_terms,
)
from goal_kernels.backends.base import Backend, Pairing, RelativeQuery, SearchQuery
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
        """Mine both directions in one pass; arguments as in `Backend.search`."""

    @abstractmethod
    def apply(
        self,
        grad_loss: Tensor,
        image: Tensor,
        text: Tensor,
        terms: GradientTerms,
        need: tuple[bool, bool],
    ) -> tuple[Tensor | None, Tensor | None]:
        """The sums of `Backend.backward`, with any targets. Returns them in the input dtype."""

    def search(self, image: Tensor, text: Tensor, pairing: Pairing, query: SearchQuery) -> Found:
        scales = Scales(row_scale(image), row_scale(text)) if query.normalize else UNSCALED
        image, text = scaled_rows(image, scales.image), scaled_rows(text, scales.text)
        positive = pair_similarity(image, text, pairing.target)
        relative = relative_query(query.relative, positive, query.epsilon, query.beta)
        mined = self.mine(image, text, pairing, relative, query.precision)
        return Found.pack(positive, mined, scales)

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
