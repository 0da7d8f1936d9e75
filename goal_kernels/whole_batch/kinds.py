"""The losses over all negatives, each as the formulas of its values and derivatives.

To add one: a class here, its line in `KINDS`, and its function in `functional.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from goal_kernels.backends.base import Scalars
from goal_kernels.backends.candidates import NEGATIVE_INFINITY
from goal_kernels.objective import Objective
from goal_kernels.weights import wide

LINEAR = 40.0
"""log(1 + exp z) is z from here on, in float64 too."""


def softplus(z: Tensor) -> Tensor:
    """log(1 + exp z) of every z."""
    return F.softplus(z, threshold=LINEAR)


class Terms(NamedTuple):
    """Of anchors and negatives [rows, N]: the value, push = dL/dn, and pull = -dL/dp.

    All are 0 where the negative is -inf, which is no candidate, or the positive inf, which is none.
    """

    value: Tensor
    push: Tensor
    pull: Tensor


Relate = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""R+ and R- of positive and negative, float64."""


class Pointwise(ABC):
    """A loss of one positive and one negative, summed over the negatives of an anchor."""

    mean = False
    """Whether it is averaged instead."""

    @abstractmethod
    def terms(self, positive: Tensor, negative: Tensor, relate: Relate | None = None) -> Terms:
        """positive [rows, 1] or [1, N] and negative [rows, N], or any that broadcast."""

    def floor(self, positive: Tensor) -> Tensor | None:
        """The negative below which all terms are exactly 0; None: there is none."""
        return None


@dataclass(frozen=True)
class Hinges(Pointwise):
    """relu(margin + n - p)."""

    margin: float

    def floor(self, positive: Tensor) -> Tensor:
        return positive - self.margin

    def terms(self, positive: Tensor, negative: Tensor, relate: Relate | None = None) -> Terms:
        over = negative + (self.margin - positive)
        push = torch.gt(over, 0, out=torch.empty_like(over))  # a cast costs seven times as much
        return Terms(over.clamp_(min=0), push, push)


@dataclass(frozen=True)
class SoftMargin(Pointwise):
    """log(1 + exp(tau (n - p))) / tau."""

    tau: float

    def terms(self, positive: Tensor, negative: Tensor, relate: Relate | None = None) -> Terms:
        over = (negative - positive).mul_(self.tau)
        push = over.sigmoid()
        return Terms(softplus(over).div_(self.tau), push, push)


@dataclass(frozen=True)
class Averaged(Pointwise):
    """A GOAL objective with every negative of an anchor in turn, averaged."""

    objective: Objective
    mean = True

    def floor(self, positive: Tensor) -> Tensor | None:
        # The reported value of other objectives is n - p, whatever the weight.
        if not (self.objective.built_in and self.objective.reports_potential):
            return None
        return positive - self.objective.margin

    def terms(self, positive: Tensor, negative: Tensor, relate: Relate | None = None) -> Terms:
        valid = (negative != NEGATIVE_INFINITY) & (positive != float("inf"))
        # Finite stand-ins: no formula of a user's has to cope with infinity.
        p = torch.where(valid, positive, 0.0)
        n = torch.where(valid, negative, p)
        given = {}
        if relate is not None:
            p, n = wide(p), wide(n)
            given["relative_positive"], given["relative_negative"] = relate(p, n)
        triplet, pair = self.objective.triplet_element, self.objective.pair_element
        weight = triplet.formula(positive=p, negative=n, **self.objective.values_for(triplet))
        pull, push = pair.formula(
            positive=p, negative=n, **given, **self.objective.values_for(pair)
        )
        potential = self.objective.potential if self.objective.reports_potential else None
        value = n - p if potential is None else potential(p, n)
        return Terms(*(torch.where(valid, x, 0.0) for x in (value, weight * push, weight * pull)))


@dataclass(frozen=True)
class Siglip:
    """log(1 + exp(-z (scale S + bias))) of every text and image, z = 1 for pairs, else -1.

    Texts and images of equal ids are pairs.
    """

    scale: Tensor
    bias: Tensor


class Sums(NamedTuple):
    """Over the negatives of some anchors, [A] each, float64 where the device has it.

    log: of the sum of exponentials, -inf of none. total, number: of logits and how many there are,
    where a loss asks for them.
    """

    log: Tensor
    total: Tensor
    number: Tensor


class Loss(NamedTuple):
    """Of anchors: the value, and its derivatives by the `Sums` and by `positive`."""

    value: Tensor
    by_log: Tensor
    by_total: Tensor
    by_positive: Tensor


class Exponential(ABC):
    """A loss of logarithms of sums of exponentials over the positives and negatives of an anchor.

    Exponents are functions of similarities, of any shape; slopes are their derivatives.
    """

    by_ids = True
    """Whether items of equal ids are positives. Else they are neither, and pairs stand alone."""

    smoothing = 0.0
    """Above 0, sums of the exponents of positives are taken over the negatives too."""

    @abstractmethod
    def negative(self, similarity: Tensor) -> Tensor:
        """Exponents of negatives, a new tensor."""

    @abstractmethod
    def negative_slope(self, similarity: Tensor) -> Tensor | float: ...

    @abstractmethod
    def positive(self, similarity: Tensor) -> Tensor:
        """Exponents of positives, a new tensor."""

    @abstractmethod
    def positive_slope(self, similarity: Tensor) -> Tensor | float: ...

    @abstractmethod
    def loss(self, negatives: Sums, positive: Tensor) -> Loss:
        """Of anchors. positive: log-sum over their positives; without `by_ids` of one."""


@dataclass(frozen=True)
class InfoNCE(Exponential):
    """log(1 + sum of exp(scale (n - p))) of every pair, both directions.

    smoothing: share of the target that is spread over the pair and its negatives. hardness: added
    to the factor of negatives, without a derivative of its own.
    """

    scale: Tensor
    smoothing: float = 0.0
    hardness: float = 0.0
    by_ids = False

    def negative(self, similarity: Tensor) -> Tensor:
        return similarity * (self.scale + self.hardness)

    def negative_slope(self, similarity: Tensor) -> float:
        return 1.0

    def positive(self, similarity: Tensor) -> Tensor:
        return -similarity * self.scale

    def positive_slope(self, similarity: Tensor) -> float:
        return -1.0

    def loss(self, negatives: Sums, positive: Tensor) -> Loss:
        z = negatives.log + positive
        share = z.sigmoid()
        each = self.smoothing / (negatives.number + 1)
        value = softplus(z) - self.smoothing * positive - each * (negatives.total - positive)
        return Loss(value, share, -each, share - self.smoothing + each)


@dataclass(frozen=True)
class MultiSimilarity(Exponential):
    """log(1 + sum of exp(alpha (lam - p))) / alpha + log(1 + sum of exp(beta (n - lam))) / beta."""

    alpha: float
    beta: float
    lam: float

    def negative(self, similarity: Tensor) -> Tensor:
        return (similarity - self.lam).mul_(self.beta)

    def negative_slope(self, similarity: Tensor) -> float:
        return self.beta

    def positive(self, similarity: Tensor) -> Tensor:
        return (self.lam - similarity).mul_(self.alpha)

    def positive_slope(self, similarity: Tensor) -> float:
        return -self.alpha

    def loss(self, negatives: Sums, positive: Tensor) -> Loss:
        return Loss(
            softplus(positive) / self.alpha + softplus(negatives.log) / self.beta,
            negatives.log.sigmoid() / self.beta,
            torch.zeros_like(positive),
            positive.sigmoid() / self.alpha,
        )


@dataclass(frozen=True)
class Circle(Exponential):
    """log(1 + sum of exp(gamma w(n) (n - m)) x sum of exp(-gamma w(p) (p - 1 + m))).

    w(n) = relu(n + m) and w(p) = relu(1 + m - p), which count as constants in the derivative.
    """

    gamma: float
    margin: float

    def negative(self, similarity: Tensor) -> Tensor:
        return (similarity - self.margin).mul_(self.negative_slope(similarity))

    def negative_slope(self, similarity: Tensor) -> Tensor:
        return (similarity + self.margin).clamp_(min=0).mul_(self.gamma)

    def positive(self, similarity: Tensor) -> Tensor:
        return (similarity - (1 - self.margin)).mul_(self.positive_slope(similarity))

    def positive_slope(self, similarity: Tensor) -> Tensor:
        return (1 + self.margin - similarity).clamp_(min=0).mul_(-self.gamma)

    def loss(self, negatives: Sums, positive: Tensor) -> Loss:
        z = negatives.log + positive
        share = z.sigmoid()
        return Loss(softplus(z), share, torch.zeros_like(z), share)


Kind = Pointwise | Exponential | Siglip

KINDS: dict[str, Callable[..., Kind]] = {
    "sum_of_hinges": Hinges,
    "soft_margin": SoftMargin,
    "info_nce": InfoNCE,
    "siglip": Siglip,
    "multi_similarity": MultiSimilarity,
    "circle": Circle,
}
"""By name; those of a factor of S take it first, then their numbers."""


def named_kind(name: str, factors: list[Tensor], parameters: list[float]) -> Kind:
    """A loss by its name in `KINDS` or "triplet/pair", whose parameters are the six scalars."""
    if name in KINDS:
        return KINDS[name](*factors, *parameters)
    triplet, pair = name.split("/")
    return Averaged(Objective(triplet, pair, **Scalars(*parameters)._asdict()))
