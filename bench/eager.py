"""The competitor: what a good user writes today in plain torch, with the matrix in full.

No Python loop, no second product in the backward, gradients by gather and index_add. It is spared
the bookkeeping of autograd, which the library's methods pay for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from bench.cases import NO_OBJECTIVE
from goal_kernels import MinedPairs, Objective
from goal_kernels.backends.base import accumulate_dtype

NEGATIVE_INFINITY = float("-inf")


class Outcome(NamedTuple):
    """What any method answers: hardest negatives, 0-d value, gradients [B, D] of both if made."""

    hardest: MinedPairs
    value: Tensor
    gradients: tuple[Tensor, Tensor] | None


def mine(image: Tensor, text: Tensor) -> tuple[Tensor, MinedPairs]:
    """The similarity matrix [B, B] without its diagonal, in the input dtype, and the hardest."""
    similarity = image @ text.T
    wide = accumulate_dtype(image.dtype)
    positive = similarity.diagonal().to(wide, copy=True)
    similarity.fill_diagonal_(NEGATIVE_INFINITY)
    text_value, text_index = similarity.max(1)
    image_value, image_index = similarity.max(0)
    hardest = MinedPairs(
        positive, text_value.to(wide), text_index, image_value.to(wide), image_index
    )
    return similarity, hardest


def hardest_only(image: Tensor, text: Tensor) -> MinedPairs:
    """Mining alone."""
    return mine(image, text)[1]


def pipeline(objective: str, mode: str) -> Callable[..., object]:
    """The pipeline of a case: (image, text) [B, D] -> MinedPairs or Outcome."""
    if objective == NO_OBJECTIVE:
        return hardest_only
    function: Callable[..., object] = getattr(EagerPipeline(Objective.parse(objective)), mode)
    return function


class EagerPipeline:
    """One objective as vectorised torch code."""

    def __init__(self, objective: Objective) -> None:
        self.triplet = objective.triplet_element.formula
        self.triplet_values = objective.values_for(objective.triplet_element)
        self.pair = objective.pair_element.formula
        self.pair_values = objective.values_for(objective.pair_element)
        self.potential = objective.potential if objective.reports_potential else None
        self.relative = objective.pair_element.relative
        self.epsilon, self.alpha, self.beta = objective.epsilon, objective.alpha, objective.beta

    def _relative_positive(self, positive: Tensor, negative: Tensor) -> Tensor:
        """R+ of every anchor from a dense [B, B] comparison of the positives. [B]"""
        gap = positive[:, None] - positive[None, :]
        counted = positive[None, :] <= negative[:, None] + self.epsilon
        counted = counted.fill_diagonal_(False)
        if self.relative == "linear":
            counted = counted & (gap != 0)
            term = gap
        else:
            term = torch.exp(self.alpha * gap)
        return torch.where(counted, term, 0.0).sum(1) / counted.sum(1).clamp(min=1)

    def _relative_negative(
        self, similarity: Tensor, negative: Tensor, index: Tensor, threshold: Tensor
    ) -> Tensor:
        """R- of every anchor from the [B, B] matrix, whose diagonal is -inf. [B]"""
        counted = similarity >= threshold
        counted = counted.scatter_(1, index[:, None], False)
        gap = negative[:, None] - similarity
        if self.relative == "linear":
            counted = counted & (gap > 0)
            term = gap
        else:
            term = torch.exp(-self.beta * gap)
        return torch.where(counted, term, 0.0).sum(1) / counted.sum(1).clamp(min=1)

    def _weights(
        self, similarity: Tensor, positive: Tensor, negative: Tensor, index: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """a, b and value per anchor of one direction, [B] each."""
        relative = {}
        if self.relative != "none":
            threshold = positive.amin() - self.epsilon
            relative["relative_positive"] = self._relative_positive(positive, negative)
            relative["relative_negative"] = self._relative_negative(
                similarity, negative, index, threshold
            )
        weight = self.triplet(positive=positive, negative=negative, **self.triplet_values)
        own, other = self.pair(positive=positive, negative=negative, **relative, **self.pair_values)
        potential = self.potential
        value = negative - positive if potential is None else potential(positive, negative)
        return weight * own, weight * other, value

    def forward(self, image: Tensor, text: Tensor) -> Outcome:
        """Value of image, text [B, D]."""
        hardest, value, *_ = self._weigh(image, text)
        return Outcome(hardest, value, None)

    def _weigh(
        self, image: Tensor, text: Tensor
    ) -> tuple[MinedPairs, Tensor, Tensor, Tensor, Tensor]:
        """What was mined, 0-d value, and weights [B] of positives, texts and images."""
        similarity, hardest = mine(image, text)
        positive = hardest.positive
        rows = self._weights(similarity, positive, hardest.negative_text, hardest.hardest_text)
        columns = self._weights(
            similarity.T, positive, hardest.negative_image, hardest.hardest_image
        )
        value = rows[2].sum() + columns[2].sum()
        return hardest, value, rows[0] + columns[0], rows[1], columns[1]

    def forward_backward(self, image: Tensor, text: Tensor) -> Outcome:
        """Value and gradients of image, text [B, D]."""
        hardest, value, *weights = self._weigh(image, text)
        x, y = image.to(value.dtype), text.to(value.dtype)
        own, to_text, to_image = (weight[:, None] for weight in weights)
        grad_image = to_text * y[hardest.hardest_text] - own * y
        grad_image.index_add_(0, hardest.hardest_image, to_image * y)
        grad_text = to_image * x[hardest.hardest_image] - own * x
        grad_text.index_add_(0, hardest.hardest_text, to_text * x)
        return Outcome(hardest, value, (grad_image.to(image.dtype), grad_text.to(text.dtype)))
