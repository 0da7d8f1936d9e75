"""The contract every backend fulfils: what it is asked, what it answers.

The objective runs in three stages, *mine -> weight -> apply*. A backend supplies the first and the
last. The weights in between act on [B] vectors and are plain torch, the same for all backends, so a
new objective element needs no code here and a new backend needs to know no element.

Shapes: image embeddings [N, D], text embeddings [M, D]. Row i is an image anchor, column j a text
anchor. Similarity is S[i, j] = <image[i], text[j]>. The *accumulate dtype* is float64 for float64
inputs and float32 for every other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

RELATIVE_KINDS = ("none", "linear", "exponential")
PRECISIONS = ("highest", "high", "medium")


class Verdict(NamedTuple):
    """Whether something can be done, and if not, why not, in words for the user."""

    ok: bool
    reason: str = ""


@dataclass(frozen=True)
class Call:
    """The properties of a call that decide which backend can serve it.

    automatic: `auto` is choosing. A backend that would be a debugging aid here (an interpreter)
    refuses then and serves only those who ask for it by name.
    """

    device_type: str
    dtype: torch.dtype
    width: int
    precision: str = "highest"
    automatic: bool = False


class Pairing(NamedTuple):
    """Who belongs to whom.

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


class Mined(NamedTuple):
    """What mining found. Rows are image anchors (i2t), columns are text anchors (t2i).

    row_value [N], column_value [M], accumulate dtype: similarity of the hardest negative,
        -inf if there is none. Accurate to the accumulate dtype whatever the mining precision:
        a backend that mines at lower precision recomputes these (`rescore`).
    row_index [N], column_index [M], int64: its column / row, lowest index on ties, -1 if none.
        NaN counts as larger than every number (the first one wins), as in torch.max.
    row_sum, column_sum, accumulate dtype, and row_count, column_count, int64, same lengths (empty
        tensors [0] when kind is "none"): over the allowed negatives k of anchor i that are not its
        hardest negative j* (that one index) and have S_ik >= threshold, with n = S_ij*:
        kind "linear": sum of n - S_ik over those with S_ik < n, and their number;
        kind "exponential": sum of exp(-beta * (n - S_ik)), and their number.
    """

    row_value: Tensor
    row_index: Tensor
    column_value: Tensor
    column_index: Tensor
    row_sum: Tensor
    row_count: Tensor
    column_sum: Tensor
    column_count: Tensor


class GradientTerms(NamedTuple):
    """Everything that turns mined pairs into gradients (docs/derivation.md, eq. 9 and 10).

    hardest_text int64 [N], hardest_image int64 [M]: mined indices; -1 drops the term.
    target: as in `Pairing`.
    positive_weight [N], row_weight [N], column_weight [M], accumulate dtype: c, b_i2t and b_t2i.
    """

    hardest_text: Tensor
    hardest_image: Tensor
    target: Tensor | None
    positive_weight: Tensor
    row_weight: Tensor
    column_weight: Tensor


class RankCounts(NamedTuple):
    """How the positives fare among all candidates. Scores are defined in `Backend.rank`.

    positive [M] float32: score of every text with its own image, NaN and infinities as they are.
    image_better, image_ties int64 [N]: texts of other images that score better than the image's
        best own text, or the same. An image without texts has the best score -inf.
    text_better, text_ties int64 [M]: other images that score better than the text's own, the same.
    """

    positive: Tensor
    image_better: Tensor
    image_ties: Tensor
    text_better: Tensor
    text_ties: Tensor


class Backend(ABC):
    """One way to mine and to apply. Stateless; instances are registered in `backends/__init__`.

    ranks: whether it has `rank` too.
    """

    name: str
    ranks: bool = False

    @abstractmethod
    def availability(self) -> Verdict:
        """Whether this backend can run on this machine at all. Never raises."""

    @abstractmethod
    def supports(self, call: Call) -> Verdict:
        """Whether an available backend can serve `call`. Must not touch the device."""

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

    def rank(self, image: Tensor, text: Tensor, text_to_image: Tensor) -> RankCounts:
        """Count the wrong candidates that score better than the positives, or the same.

        The score of a pair is its dot product in float64, rounded once to float32, and compares as
        `comparable` says. Rounding makes ties meaningful: scores that differ by less than float32
        resolves tie, whatever order a product was summed in.

        Args:
            image, text: as in `mine`.
            text_to_image: int64 [M], contiguous, in [0, N); row of the image of each text.
        Returns: `RankCounts`. Memory O(N + M) and a constant. Deterministic.
        Raises: NotImplementedError unless `ranks`.
        """
        raise NotImplementedError(f"backend {self.name!r} does not rank")


def accumulate_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64, float32 for every other floating dtype."""
    return torch.float64 if dtype == torch.float64 else torch.float32


LOWEST_SCORE = float("-inf")
"""What a NaN score compares as: below every number, so a broken item never scores."""


def comparable(score: Tensor) -> Tensor:
    """Scores as they compare: NaN is `LOWEST_SCORE`, infinity the largest finite number."""
    return torch.nan_to_num(score, LOWEST_SCORE, None, LOWEST_SCORE)


def best_positives(score: Tensor, text_to_image: Tensor, images: int) -> Tensor:
    """Best score among the texts of every image, [N]; `LOWEST_SCORE` for an image without any.

    score: [M], comparable, of every text with its own image.
    """
    best = score.new_full((images,), LOWEST_SCORE)
    return best.scatter_reduce(0, text_to_image, score, "amax")
