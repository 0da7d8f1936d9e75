"""Comparing a backend with float64: indices first, then values, then gradients given the indices.

Every bound is a formula in the unit roundoff, the width and the inputs; none is a measured number.
`test_comparators.py` plants faults that each of these must catch.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from goal_kernels import Objective
from goal_kernels.backends.answers import GradientTerms, Mined
from goal_kernels.backends.base import Pairing, RelativeQuery
from goal_kernels.reference import apply_terms, mine_similarity, negative_mask
from goal_kernels.weights import Weighted, weigh

SAFETY = 4.0
"""A bound is worst case per rounding but statistical over a sum; this covers the difference."""


class Truth(NamedTuple):
    """Float64 result for one batch, given the indices it was told or found itself."""

    similarity: Tensor
    positive: Tensor
    mined: Mined
    weighted: Weighted
    grad_image: Tensor
    grad_text: Tensor


def float64_truth(
    image: Tensor,
    text: Tensor,
    objective: Objective,
    ids: tuple[Tensor | None, Tensor | None] = (None, None),
    direction: str = "both",
    given: tuple[Tensor, Tensor] | None = None,
) -> Truth:
    """The dense reference in float64; image, text [B, D] of any dtype."""
    image, text = image.detach().double().cpu(), text.detach().double().cpu()
    similarity = image @ text.T
    positive = similarity.diagonal().clone()
    query = RelativeQuery(
        objective.pair_element.relative, positive.min() - objective.epsilon, objective.beta
    )
    mined = mine_similarity(similarity, Pairing(None, *ids), query, given)
    weighted = weigh(objective, positive, mined, direction)
    terms = GradientTerms(mined.row_index, mined.column_index, None, *weighted[1:])
    one = torch.ones((), dtype=torch.float64)
    grad_image, grad_text = apply_terms(one, image, text, terms, (True, True))
    assert grad_image is not None
    assert grad_text is not None
    return Truth(similarity, positive, mined, weighted, grad_image, grad_text)


def accumulate_epsilon(dtype: torch.dtype) -> float:
    """Unit roundoff of the accumulate dtype."""
    return torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps


def similarity_bound(image: Tensor, text: Tensor, dtype: torch.dtype) -> float:
    """Largest rounding error of a similarity accumulated in the accumulate dtype of `dtype`.

    A sum of D products in blocks: SAFETY * eps * (4 + sqrt(D)) * max |x| max |y|.
    """
    lengths = image.double().norm(dim=1).max() * text.double().norm(dim=1).max()
    return SAFETY * accumulate_epsilon(dtype) * (4 + image.shape[1] ** 0.5) * lengths.item()


def check_indices(
    similarity: Tensor, allowed: Tensor, found: Tensor, bound: float, what: str
) -> None:
    """Each index must be an allowed negative, and the float64 argmax unless the gap is below bound.

    similarity, allowed: [N, M] float64; found: [N].
    """
    none = ~allowed.any(dim=1)
    assert torch.equal(found == -1, none), f"{what}: -1 exactly where no negative is allowed"
    rows = torch.arange(len(found))[~none]
    index = found[~none]
    assert ((index >= 0) & (index < similarity.shape[1])).all(), f"{what}: index out of range"
    assert allowed[rows, index].all(), f"{what}: a masked item was mined"
    best = similarity.masked_fill(~allowed, float("-inf")).max(dim=1).values[~none]
    gap = best - similarity[rows, index]
    worst = gap.max().item() if len(gap) else 0.0
    assert worst <= 2 * bound, f"{what}: gap {worst:.3g} to the hardest, bound {2 * bound:.3g}"


def check_values(found: Tensor, expected: Tensor, bound: float, what: str) -> None:
    """Element-wise |found - expected| <= bound, and infinities and NaN in the same places."""
    found, expected = found.double().cpu(), expected.double()
    finite = expected.isfinite()
    same = (found[~finite] == expected[~finite]) | (
        found[~finite].isnan() & expected[~finite].isnan()
    )
    assert same.all(), f"{what}: expected {expected[~finite]}, got {found[~finite]}"
    error = (found - expected)[finite].abs()
    worst = error.max().item() if error.numel() else 0.0
    assert worst <= bound, f"{what}: error {worst:.3g} above the bound {bound:.3g}"


def weight_slope(objective: Objective, similarity: Tensor) -> float:
    """Largest relative (or absolute, whichever is larger) change of a weight per similarity.

    |d log T| <= tau (2 + 2 |s|); |d log P| <= alpha + beta; the linear weights change by at most
    1 + |R| <= 3 + |s|.
    """
    largest = similarity.abs().max().item()
    return objective.tau * (2 + 2 * largest) + objective.alpha + objective.beta + 3 + largest


def gradient_bound(
    image: Tensor, text: Tensor, truth: Truth, objective: Objective, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Element-wise bounds of both gradients: [B, D] each.

    The gradient is a sum of weight * embedding. With all weights replaced by (1 + |weight|) and all
    embeddings by their magnitude, the same sum bounds the error per unit of similarity error.
    """
    m, w = truth.mined, truth.weighted
    larger = [1 + x.abs() for x in w[1:]]
    terms = GradientTerms(m.row_index, m.column_index, None, -larger[0], *larger[1:])
    one = torch.ones((), dtype=torch.float64)
    spread = apply_terms(one, image.double().abs(), text.double().abs(), terms, (True, True))
    error = similarity_bound(image, text, dtype) * (1 + weight_slope(objective, truth.similarity))
    half_ulp = torch.finfo(dtype).eps
    smallest = torch.finfo(dtype).tiny
    bounds = []
    for magnitude, grad in zip(spread, (truth.grad_image, truth.grad_text), strict=True):
        assert magnitude is not None
        bounds.append(error * magnitude + half_ulp * grad.abs() + smallest)
    return bounds[0], bounds[1]


def check_gradient(found: Tensor, expected: Tensor, bound: Tensor, what: str) -> None:
    """Element-wise bound, and on the whole: relative L2, direction and signed bias."""
    assert found.shape == expected.shape, f"{what}: shape {list(found.shape)}"
    found = found.double().cpu()
    assert found.isfinite().all(), f"{what}: not finite"
    excess = ((found - expected).abs() / bound).max().item()
    assert excess <= 1, f"{what}: {excess:.3g} times the element-wise bound"
    # Errors of one sign pass an element-wise bound unnoticed; independent ones average out.
    count = expected.numel()
    bias = (found - expected).sum().abs().item()
    allowed = SAFETY * bound.square().sum().sqrt().item()
    assert bias <= allowed or count < 64, f"{what}: signed bias {bias:.3g} above {allowed:.3g}"


def check_against_truth(
    image: Tensor,
    text: Tensor,
    objective: Objective,
    outcome: tuple[Tensor, Mined, Tensor, Tensor, Tensor],
    ids: tuple[Tensor | None, Tensor | None] = (None, None),
    direction: str = "both",
) -> None:
    """The whole comparison. outcome: positive, mined, value, grad_image, grad_text of a backend."""
    positive, mined, value, grad_image, grad_text = outcome
    dtype = image.dtype
    bound = similarity_bound(image, text, dtype)
    given = (mined.row_index.cpu(), mined.column_index.cpu())
    truth = float64_truth(image, text, objective, ids, direction, given)
    batch = len(image)
    allowed = negative_mask(batch, batch, Pairing(None, *ids), torch.device("cpu"))
    check_indices(truth.similarity, allowed, given[0], bound, "hardest_text")
    check_indices(truth.similarity.T, allowed.T, given[1], bound, "hardest_image")
    check_values(positive, truth.positive, bound, "positive")
    check_values(mined.row_value, truth.mined.row_value, bound, "negative_text")
    check_values(mined.column_value, truth.mined.column_value, bound, "negative_image")
    spread = truth.similarity.abs().sum(dim=1).max().item() + 4.0
    value_bound = 4 * batch * bound + accumulate_epsilon(dtype) * batch * spread
    check_values(value.reshape(1), truth.weighted.value.reshape(1), value_bound, "value")
    bounds = gradient_bound(image, text, truth, objective, dtype)
    check_gradient(grad_image, truth.grad_image, bounds[0], "grad_image")
    check_gradient(grad_text, truth.grad_text, bounds[1], "grad_text")
