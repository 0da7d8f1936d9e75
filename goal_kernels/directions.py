"""What a contribution w y to the gradient of a row x loses along x itself: w (y - kappa x).

Whatever kappa is, the contributions to a row together lose c x with one coefficient c, so backends
sum the gradient rows as ever and c x is taken off afterwards (docs/derivation.md, section 13).
"""

from __future__ import annotations

import torch
from torch import Tensor

from goal_kernels.backends.answers import Forward, GradientTerms, unpack_terms
from goal_kernels.backends.base import accumulate_dtype
from goal_kernels.objective import Objective
from goal_kernels.reference import sum_rows, weighted_pairs
from goal_kernels.weights import wide

Similarities = tuple[Tensor, Tensor, Tensor]
"""Of what each weight of `GradientTerms` belongs to: row_weight, positive_weight, column_weight."""


def makes_a_difference(objective: Objective, normalize: bool) -> bool:
    """Whether gradients are others than along "dot". Normalising takes what is along a row away."""
    return objective.direction_element != "dot" and not normalize


def accumulated(embeddings: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Both in the accumulate dtype, so that the two parts of a gradient are rounded once."""
    image, text = embeddings
    dtype = accumulate_dtype(image.dtype)
    return image.to(dtype), text.to(dtype)


def of_square(forward: Forward) -> tuple[GradientTerms, Similarities]:
    """The terms of a square batch and their similarities."""
    positive, row_value, column_value = forward.vectors[:3].unbind()
    terms, _ = unpack_terms(forward.vectors, forward.hardest)
    return terms, (row_value, positive, column_value)


def directed(
    objective: Objective,
    value: Tensor,
    sides: tuple[Tensor, Tensor],
    terms: GradientTerms,
    similarities: Similarities,
) -> Tensor:
    """The value, with -c x added to the gradient of every row x (eq. 15).

    Args: sides: rows [N, D] and columns [M, D] of the terms, accumulate dtype, with their graph.
    """
    with torch.no_grad():
        coefficients = row_coefficients(objective, sides, terms, similarities)
    for matrix, c in zip(sides, coefficients, strict=True):
        half_square = (c * matrix.square().sum(dim=1)).sum() / 2  # whose gradient is c x
        value = value - (half_square - half_square.detach())
    return value


def row_coefficients(
    objective: Objective,
    sides: tuple[Tensor, Tensor],
    terms: GradientTerms,
    similarities: Similarities,
) -> tuple[Tensor, Tensor]:
    """c of every row and column, [N] and [M]: the sums of w kappa over their contributions."""
    rows, columns = sides
    element = objective.kappa_element
    pairs = weighted_pairs(terms, len(rows), len(columns), rows.device)
    i, j, weight = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    similarity = torch.cat([part.flatten() for part in similarities])
    sums = []
    for own, into, others, index in ((rows, i, columns, j), (columns, j, rows, i)):
        square = own.square().sum(dim=1).clamp(min=torch.finfo(own.dtype).tiny)
        share = similarity / square[into.clamp(0, len(own) - 1)]
        kappa = element.formula(similarity=wide(share), **objective.values_for(element))
        product = (weight * kappa).to(weight.dtype)
        ones = own.new_ones(len(others), 1)
        sums.append(sum_rows(ones, index, into, product, len(own))[:, 0])
    return sums[0], sums[1]
