"""The contract of every backend: arguments and results of search, forward, backward, rank, top_k.

The objective runs in three stages, *mine -> weight -> apply*. A backend supplies the first as
`search` and the last as `apply`. The weights in between act on [B] vectors and are plain torch,
the same for all backends, so a new objective element needs no code here and a new backend needs to
know no element. `forward` joins the first two for square batches, `backward` is `apply` of what it
left; a backend may have faster twins of both.

Shapes: image embeddings [N, D], text embeddings [M, D]. Row i is an image anchor, column j a text
anchor. Similarity is S[i, j] = <image[i], text[j]>. The *accumulate dtype* is float64 for float64
inputs and float32 for every other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from goal_kernels.backends.answers import (
    Forward,
    Found,
    GradientTerms,
    Hardest,
    Mined,
    MinedTopK,
    Scales,
    Weighted,
    unpack_terms,
)
from goal_kernels.backends.scores import RankCounts
from goal_kernels.constants import RELATIVE_KINDS as RELATIVE_KINDS

PRECISIONS = ("highest", "high", "medium")


_WORDS = {"none": "highest", "ieee": "highest", "tf32": "high", "bf16": "medium"}


def common_precision() -> str | None:
    """torch.get_float32_matmul_precision(); None where `torch.backends` was told otherwise."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return None


def settled_precision(precision: str | None, device_type: str) -> str:
    """torch's word for float32 products that holds; a constant while the arguments are."""
    if precision is not None:
        return precision
    if (common := common_precision()) is not None:
        return common
    own = torch.backends.cuda if device_type == "cuda" else torch.backends.mkldnn
    return _WORDS[own.matmul.fp32_precision]


# What torch.compiler.assume_constant_result sets; calling it would import the whole compiler, which
# costs more than everything else here together.
settled_precision._dynamo_marked_constant = True  # type: ignore[attr-defined]


class Verdict(NamedTuple):
    """Whether something can be done, and if not, why not, in words for the user."""

    ok: bool
    reason: str = ""


YES = Verdict(True)


class Call(NamedTuple):
    """The properties of a call that decide which backend can serve it.

    automatic: `auto` is choosing. A backend that would be a debugging aid here (an interpreter)
    refuses then and serves only those who ask for it by name.
    """

    device_type: str
    dtype: torch.dtype
    precision: str = "highest"
    automatic: bool = False


class Pairing(NamedTuple):
    """Which text belongs to which image, and which items are never negatives.

    target: int64 [N] or None. Column of the positive of row i; None means i. A value outside
        [0, M) (also i >= M when target is None) means that row i has no positive.
    image_ids, text_ids: int64 [N] and [M], or both None. Row i and column j with equal ids are
        never negatives of each other.
    """

    target: Tensor | None = None
    image_ids: Tensor | None = None
    text_ids: Tensor | None = None


class RelativeQuery(NamedTuple):
    """Which relative-similarity sums mining has to return (docs/derivation.md, section 5).

    kind: one of RELATIVE_KINDS. threshold: 0-d tensor, accumulate dtype, on the device of the
    embeddings; pairs with S below it are left out (ignored when kind is "none"). beta: slope of the
    exponential, >= 0.
    """

    kind: str
    threshold: Tensor
    beta: float


class SearchQuery(NamedTuple):
    """What `Backend.search` is asked.

    relative, beta: as in `RelativeQuery`. epsilon: the threshold of the relative sums is the
        smallest existing positive minus this. normalize: divide each row by its length first.
    precision: one of PRECISIONS.
    """

    relative: str
    epsilon: float
    beta: float
    normalize: bool
    precision: str


class TopKQuery(NamedTuple):
    """What `Backend.top_k` is asked, of N queries and a corpus of M candidates.

    k: how many candidates of each query, >= 1; may be more than M.
    query_ids, corpus_ids: int64 [N] and [M], or both None. Equal ids are no candidates.
    max_score: [N], accumulate dtype, or None. What scores above it is no candidate; NaN: no bound.
    normalize, precision: as in `SearchQuery`.
    """

    k: int
    query_ids: Tensor | None
    corpus_ids: Tensor | None
    max_score: Tensor | None
    normalize: bool
    precision: str


class Scalars(NamedTuple):
    """The hyper-parameters of a built-in objective, see `Objective`."""

    tau: float
    alpha: float
    beta: float
    lam: float
    epsilon: float
    margin: float


class WeightStage(NamedTuple):
    """The weight stage of a built-in objective: what defines it, and the stage as torch code.

    triplet, pair: full names of built-in elements. direction: one of weights.DIRECTIONS.
    weigh: (positive [B], mined) -> Weighted.
    """

    triplet: str
    pair: str
    scalars: Scalars
    direction: str
    weigh: Callable[[Tensor, Mined], Weighted]


class Backend(ABC):
    """One way to mine and to sum gradients. Stateless; instances stand in `backends/choice.py`.

    ranks, finds_top_k: whether it has `rank`, and `top_k`, too.
    list_rows: rows that its `forward` adds to `Forward.hardest`, for its own `backward`.
    """

    name: str
    ranks: bool = False
    finds_top_k: bool = False
    list_rows: int = 0

    @abstractmethod
    def availability(self) -> Verdict:
        """Whether this backend can run on this machine at all. Never raises."""

    @abstractmethod
    def supports(self, call: Call) -> Verdict:
        """Whether an available backend can serve `call`. Must not touch the device."""

    @abstractmethod
    def search(self, image: Tensor, text: Tensor, pairing: Pairing, query: SearchQuery) -> Found:
        """Similarities of the positives, and the hardest negatives of both directions.

        Args:
            image, text: [N, D] and [M, D], N, M, D >= 1, same dtype and device, any strides.
            pairing: see `Pairing`; index tensors are int64, contiguous, on the same device.
            query: see `SearchQuery`.
        Returns: `Found`. Deterministic: bit-equal for equal inputs.
        """

    def hardest(self, image: Tensor, text: Tensor, pairing: Pairing, query: SearchQuery) -> Hardest:
        """`Found.hardest` of what `search` finds without relative sums."""
        return self.search(image, text, pairing, query).hardest

    def forward(
        self,
        image: Tensor,
        text: Tensor,
        pairing: Pairing,
        query: SearchQuery,
        stage: WeightStage,
    ) -> Forward:
        """`search` and the weight stage, for a square batch without targets.

        A twin of `stage.weigh` must agree with it to a few roundings of the accumulate dtype.
        """
        found = self.search(image, text, pairing, query)
        return Forward.pack(found, stage.weigh(found.positive, found.mined))

    @abstractmethod
    def apply(
        self,
        grad_loss: Tensor,
        image: Tensor,
        text: Tensor,
        terms: GradientTerms,
        scales: Scales,
        need: tuple[bool, bool],
    ) -> tuple[Tensor | None, Tensor | None]:
        """Sum the gradient rows (docs/derivation.md, eq. 9 and 10).

        grad_image[i] = g (row_weight[i] text[hardest_text[i]] - positive_weight[i] text[target[i]]
                           + sum over k with hardest_image[k] = i of column_weight[k] text[k])
        grad_text[j]  = g (column_weight[j] image[hardest_image[j]]
                           - sum over k with target[k] = j of positive_weight[k] image[k]
                           + sum over k with hardest_text[k] = j of row_weight[k] image[k])

        Args:
            grad_loss: g, 0-d, accumulate dtype, on the device of the embeddings.
            image, text: [N, D] and [M, D]; with scales the raw rows, whose gradients are returned.
            terms, scales: of N rows and M columns, contiguous.
            need: whether the image and the text gradient are wanted.
        Returns: grad_image [N, D] and grad_text [M, D] in the input dtype, contiguous; None where
            not wanted. Accumulated in the accumulate dtype; bit-equal for equal inputs, for any
            number of threads.
        """

    def backward(
        self,
        grad_loss: Tensor,
        image: Tensor,
        text: Tensor,
        vectors: Tensor,
        hardest: Tensor,
        need: tuple[bool, bool],
    ) -> tuple[Tensor | None, Tensor | None]:
        """`apply` for a square batch, from what `forward` left.

        Args:
            vectors, hardest: as in `Forward`, hardest with this backend's own rows or without any.
            Others: as in `apply`, [B, D] each.
        """
        return self.apply(grad_loss, image, text, *unpack_terms(vectors, hardest), need)

    def rank(self, image: Tensor, text: Tensor, text_to_image: Tensor) -> RankCounts:
        """Count the wrong candidates that score better than the positives, or the same.

        The score of a pair is its dot product in float64, rounded once to float32, and compares as
        `comparable` says. Rounding makes ties meaningful: scores that differ by less than float32
        resolves tie, whatever order a product was summed in.

        Args:
            image, text: as in `search`.
            text_to_image: int64 [M], contiguous, in [0, N); row of the image of each text.
        Returns: `RankCounts`. Memory O(N + M) and a constant. Deterministic.
        Raises: NotImplementedError unless `ranks`.
        """
        raise NotImplementedError(f"backend {self.name!r} does not rank")

    def top_k(self, queries: Tensor, corpus: Tensor, query: TopKQuery) -> MinedTopK:
        """The k most similar candidates of every query.

        Args:
            queries, corpus: [N, D] and [M, D], as image and text in `search`.
            query: see `TopKQuery`; tensors contiguous, on the device of the embeddings.
        Returns: `MinedTopK`; memory O(N k) and a constant. Deterministic for any number of threads.
        Raises: NotImplementedError unless `finds_top_k`.
        """
        raise NotImplementedError(f"backend {self.name!r} has no top_k")


def accumulate_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64, float32 for every other floating dtype."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def device_kind(tensor: Tensor) -> str:
    """`tensor.device.type`, without what it takes torch to spell the word for the CPU (2 us)."""
    return "cpu" if tensor.is_cpu else tensor.device.type
