"""The built-in objective elements: formulas on [B] vectors, one registry row each.

`positive` (p) and `negative` (n) are similarities [B]; every formula returns [B] vectors. Source:
arXiv 2210.13188, sections 3.2 and 3.3; the hinge is VSE++ / VSE-infinity. To add an element of the
library's own, add its formula and its row here; users call `register_triplet`, `register_pair` or
`register_direction`.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from goal_kernels import constants
from goal_kernels.registry import Element, register_element

if TYPE_CHECKING:  # methods of tensors are enough, so that `goal-kernels objectives` needs no torch
    from torch import Tensor

INFINITY = math.inf


def _triplet_constant(positive: Tensor, negative: Tensor) -> Tensor:
    return positive.new_ones(positive.shape)


def _triplet_nca(positive: Tensor, negative: Tensor, tau: float) -> Tensor:
    return (-tau * (positive - negative)).sigmoid()


def _circle_argument(positive: Tensor, negative: Tensor) -> Tensor:
    """p (2 - p) - n^2 - 1/2, [B]: positive on the right side of the circle."""
    return positive * (2.0 - positive) - negative * negative - constants.CIRCLE_OFFSET


def _triplet_circle(positive: Tensor, negative: Tensor, tau: float) -> Tensor:
    return (-tau * _circle_argument(positive, negative)).sigmoid()


def _triplet_hinge(positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    violated = margin + negative - positive
    # NaN must stay NaN: the comparison alone would call it satisfied.
    return violated.where(violated.isnan(), (violated > 0).to(violated.dtype))


def _pair_constant(positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
    return positive.new_ones(positive.shape), negative.new_ones(negative.shape)


def _pair_linear(positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
    return 1.0 - positive, negative


def _pair_sigmoid(
    positive: Tensor, negative: Tensor, alpha: float, beta: float, lam: float
) -> tuple[Tensor, Tensor]:
    return (-alpha * (positive - lam)).sigmoid(), (beta * (negative - lam)).sigmoid()


def _pair_linear_ms(
    positive: Tensor, negative: Tensor, relative_positive: Tensor, relative_negative: Tensor
) -> tuple[Tensor, Tensor]:
    return (1.0 - relative_positive) * (1.0 - positive), (1.0 + relative_negative) * negative


def _pair_sigmoid_ms(
    positive: Tensor,
    negative: Tensor,
    relative_positive: Tensor,
    relative_negative: Tensor,
    alpha: float,
    beta: float,
    lam: float,
) -> tuple[Tensor, Tensor]:
    weight_positive = _reciprocal((alpha * (positive - lam)).exp() + relative_positive)
    weight_negative = _reciprocal((-beta * (negative - lam)).exp() + relative_negative)
    return weight_positive, weight_negative


def _reciprocal(x: Tensor) -> Tensor:
    """1 / x, finite for x = 0: a triplet weight of 0 times infinity would be NaN."""
    import torch

    return 1.0 / x.clamp(min=torch.finfo(x.dtype).tiny)


def softplus(z: Tensor) -> Tensor:
    """log(1 + exp z), exact in float64 also for large z (torch's softplus switches to z there)."""
    return z.logaddexp(z.new_zeros(z.shape))


def _potential_nca(positive: Tensor, negative: Tensor, tau: float) -> Tensor:
    return softplus(tau * (negative - positive)) / tau


def _potential_circle(positive: Tensor, negative: Tensor, tau: float) -> Tensor:
    return softplus(-tau * _circle_argument(positive, negative)) / (2.0 * tau)


def _potential_hinge(positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    return (margin + negative - positive).relu()


def _potential_constant(positive: Tensor, negative: Tensor) -> Tensor:
    return negative - positive


def _potential_linear(positive: Tensor, negative: Tensor) -> Tensor:
    return 0.5 * (negative * negative + positive * positive) - positive


def _potential_sigmoid(
    positive: Tensor, negative: Tensor, alpha: float, beta: float, lam: float
) -> Tensor:
    return softplus(-alpha * (positive - lam)) / alpha + softplus(beta * (negative - lam)) / beta


def _direction_dot(similarity: Tensor) -> Tensor:
    return similarity.new_zeros(similarity.shape)


def _direction_euclidean(similarity: Tensor) -> Tensor:
    return similarity.new_ones(similarity.shape)


def _direction_tangent(similarity: Tensor) -> Tensor:
    return similarity


BUILTIN_ELEMENTS = (
    Element(
        "constant",
        "triplet",
        _triplet_constant,
        alias="con",
        equation="T = 1",
        weight_range=(1.0, 1.0),
    ),
    Element(
        "nca",
        "triplet",
        _triplet_nca,
        ("tau",),
        equation="T = 1 / (1 + exp(tau (p - n)))",
        weight_range=(0.0, 1.0),
        potentials={"constant": _potential_nca},
    ),
    Element(
        "circle",
        "triplet",
        _triplet_circle,
        ("tau",),
        alias="cir",
        equation="T = 1 / (1 + exp(tau (p (2 - p) - n^2 - 0.5)))",
        weight_range=(0.0, 1.0),
        potentials={"linear": _potential_circle},
    ),
    Element(
        "hinge",
        "triplet",
        _triplet_hinge,
        ("margin",),
        equation="T = 1 if margin + n - p > 0 else 0",
        weight_range=(0.0, 1.0),
        potentials={"constant": _potential_hinge},
        reports_potential=True,
    ),
    Element(
        "constant",
        "pair",
        _pair_constant,
        alias="con",
        equation="P+ = 1; P- = 1",
        weight_range=(1.0, 1.0),
        potentials={"constant": _potential_constant},
    ),
    Element(
        "linear",
        "pair",
        _pair_linear,
        alias="lin",
        equation="P+ = 1 - p; P- = n",
        weight_range=(-1.0, 2.0),
        potentials={"constant": _potential_linear},
    ),
    Element(
        "sigmoid",
        "pair",
        _pair_sigmoid,
        ("alpha", "beta", "lam"),
        alias="sig",
        equation="P+ = 1 / (1 + exp(alpha (p - lam))); P- = 1 / (1 + exp(-beta (n - lam)))",
        weight_range=(0.0, 1.0),
        potentials={"constant": _potential_sigmoid},
    ),
    Element(
        "linear_ms",
        "pair",
        _pair_linear_ms,
        alias="lin_ms",
        relative="linear",
        equation="P+ = (1 - R+)(1 - p); P- = (1 + R-) n",
        # R+ is a mean of p_i - p_k, in [-2, 2]; R- a mean of n - S >= 0, in [0, 2].
        weight_range=(-3.0, 6.0),
    ),
    Element(
        "sigmoid_ms",
        "pair",
        _pair_sigmoid_ms,
        ("alpha", "beta", "lam"),
        alias="sig_ms",
        relative="exponential",
        equation="P+ = 1 / (exp(alpha (p - lam)) + R+); P- = 1 / (exp(-beta (n - lam)) + R-)",
        weight_range=(0.0, INFINITY),
    ),
    Element(
        "dot",
        "direction",
        _direction_dot,
        equation="kappa = 0: along y, the derivative of x y",
        weight_range=(0.0, 0.0),
    ),
    Element(
        "euclidean",
        "direction",
        _direction_euclidean,
        equation="kappa = 1: along y - x, the derivative of -|x - y|^2 / 2",
        weight_range=(1.0, 1.0),
    ),
    Element(
        "tangent",
        "direction",
        _direction_tangent,
        equation="kappa = x y / x x: along the part of y at right angles to x",
        weight_range=(-1.0, 1.0),
    ),
)

for _element in BUILTIN_ELEMENTS:
    register_element(replace(_element, built_in=True))
