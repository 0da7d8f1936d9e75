"""Mining statistics: what one loss call saw. They cost nothing until read."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from goal_kernels.backends.answers import Forward
from goal_kernels.constants import COLLAPSE_GAP


class MiningStatistics(NamedTuple):
    """Similarities and indices of one call, with summaries computed on demand.

    All tensors are detached, stay on the device of the embeddings and have B elements; with
    `text_to_image` one for each of the M texts, of which those without an image have -inf for
    similarities, -1 for indices and do not count. A summary is a 0-d tensor and never synchronises
    with the device; `summary()` does, once.

    positive: similarity of each pair.
    negative_text, hardest_text: similarity and index of each image's hardest negative text; -inf
        and -1 where it has none. negative_image, hardest_image: of each text's, likewise.
    active_text, active_image: bool, image (text) anchors with a weight that is not zero.
    value: 0-d, the reported value summed over the batch, whatever the reduction.
    margin: of the objective, a similarity.
    skipped_text, skipped_image: int64, how many texts (images) each image (text) would have had for
        candidates but for "semi_hard" and the limits of false negatives: [N] and [M]; None where
        the hardest of all candidates is taken.

    Of several negatives an anchor (`TopK`) negative_*, hardest_* are the first.
    """

    positive: Tensor
    negative_text: Tensor
    negative_image: Tensor
    hardest_text: Tensor
    hardest_image: Tensor
    active_text: Tensor
    active_image: Tensor
    value: Tensor
    margin: float
    skipped_text: Tensor | None = None
    skipped_image: Tensor | None = None

    @classmethod
    def of(cls, forward: Forward, margin: float, skipped: tuple[Tensor, ...]) -> MiningStatistics:
        """skipped: `skipped_text` and `skipped_image`, or empty."""
        vectors = forward.vectors.unbind()
        positive, row_value, column_value, _, row_weight, column_weight = vectors[:6]
        hardest_text, hardest_image = forward.hardest[:2].unbind()
        return cls(
            positive,
            row_value,
            column_value,
            hardest_text,
            hardest_image,
            row_weight != 0,
            column_weight != 0,
            forward.value.detach(),
            margin,
            *skipped,
        )

    @property
    def _pairs(self) -> Tensor:
        """Which elements are pairs, bool [B]: not the texts without an image."""
        return self.positive != -math.inf

    def _both(self) -> tuple[Tensor, Tensor]:
        """Negatives of both directions, and which of them exist: 2 x [2 B]."""
        negative = torch.cat([self.negative_text, self.negative_image])
        exists = torch.cat([self.hardest_text, self.hardest_image]) >= 0
        return negative, exists

    def _gap(self) -> tuple[Tensor, Tensor]:
        """Hardest negative - positive, 0 where there is no negative, and which exist: 2 x [2 B]."""
        negative, exists = self._both()
        gap = negative - torch.cat([self.positive, self.positive])
        return torch.where(exists, gap, 0.0), exists

    @property
    def mean_positive(self) -> Tensor:
        """Mean similarity of the pairs."""
        return torch.where(self._pairs, self.positive, 0.0).sum() / self._pairs.sum()

    @property
    def mean_hardest_negative(self) -> Tensor:
        """Mean similarity of the hardest negatives of both directions; NaN if there is none."""
        negative, exists = self._both()
        return torch.where(exists, negative, 0.0).sum() / exists.sum()

    @property
    def active_fraction(self) -> Tensor:
        """Share of the 2 B anchors whose weights are not zero, in [0, 1]."""
        active = self.active_text.sum() + self.active_image.sum()
        return active.to(self.positive.dtype) / (2 * self._pairs.sum())

    @property
    def rows_without_negative(self) -> Tensor:
        """Number of the 2 B anchors with no negative left after the ids mask, int64."""
        return 2 * self._pairs.sum() - self._both()[1].sum()

    @property
    def skipped_negatives(self) -> Tensor:
        """Number of candidates that were left out as false negatives or too hard, int64."""
        if self.skipped_text is None or self.skipped_image is None:
            return torch.zeros((), dtype=torch.int64, device=self.positive.device)
        return self.skipped_text.sum() + self.skipped_image.sum()

    @property
    def mean_absolute_gap(self) -> Tensor:
        """Mean |hardest negative - positive| over the anchors that have a negative."""
        gap, exists = self._gap()
        return gap.abs().sum() / exists.sum()

    @property
    def plateau_ratio(self) -> Tensor:
        """Mean hinge margin + n - p, relative to the margin: 1 exactly at the collapse plateau.

        For hinge x constant this is loss / (2 B margin) while every anchor is active. NaN when the
        margin is 0.
        """
        gap, exists = self._gap()
        margins = exists.to(gap.dtype).sum() * self.margin
        return torch.relu(self.margin + gap).where(exists, 0.0).sum() / margins

    @property
    def collapsed(self) -> Tensor:
        """Whether the batch sits at the plateau where all similarities are equal, 0-d bool.

        There every gap is zero and the hinge loss is 2 B margin, the most reported failure of
        training with hardest negatives. Warm up on the sum of hinges to leave it. "semi_hard" finds
        no negative there, for no candidate scores below its positive.
        """
        none_left = ~self._both()[1].any() & (self.skipped_negatives > 0)
        return (self.mean_absolute_gap < COLLAPSE_GAP) | none_left

    def summary(self) -> dict[str, float]:
        """Every summary as a number; one synchronisation with the device."""
        names = (
            "mean_positive",
            "mean_hardest_negative",
            "active_fraction",
            "rows_without_negative",
            "skipped_negatives",
            "mean_absolute_gap",
            "plateau_ratio",
            "collapsed",
            "value",
        )
        values = torch.stack([getattr(self, name).double() for name in names])
        return dict(zip(names, values.tolist(), strict=True))
