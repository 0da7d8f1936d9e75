"""The dense reference: what mining and applying mean, in plain torch, with the matrix in full.

Everything here works on an explicit similarity matrix [N, M] and is meant to be read. It serves the
`reference` backend, `goal_loss_from_similarity`, and the tests of every other backend.
"""

from __future__ import annotations

import torch
from torch import Tensor

from goal_kernels.backends.answers import GradientTerms, Mined
from goal_kernels.backends.base import Pairing, RelativeQuery
from goal_kernels.constants import NO_INDEX
from goal_kernels.pairs import default_target

NEGATIVE_INFINITY = float("-inf")


def negative_mask(rows: int, columns: int, pairing: Pairing, device: torch.device) -> Tensor:
    """bool [N, M]: whether column j may be a negative of row i (and row i of column j)."""
    target = pairing.target
    if target is None:
        target = default_target(rows, columns, device)
    allowed = target[:, None] != torch.arange(columns, device=device)[None, :]
    if pairing.image_ids is not None and pairing.text_ids is not None:
        allowed &= pairing.image_ids[:, None] != pairing.text_ids[None, :]
    return allowed


def hardest(similarity: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
    """Hardest negative of every row: value [N] and lowest index [N]; -inf and -1 if there is none.

    Args: similarity, allowed: [N, M].
    """
    value, index = similarity.masked_fill(~allowed, NEGATIVE_INFINITY).max(dim=1)
    none = ~allowed.any(dim=1)
    # A row of -inf similarities has a hardest negative all the same; max() may pick a masked one.
    first_allowed = allowed.to(torch.uint8).argmax(dim=1)
    index = torch.where(value == NEGATIVE_INFINITY, first_allowed, index)
    return value, index.masked_fill(none, NO_INDEX)


def relative_negative_sums(
    similarity: Tensor, allowed: Tensor, value: Tensor, index: Tensor, relative: RelativeQuery
) -> tuple[Tensor, Tensor]:
    """Sum and count behind R- of every row (docs/derivation.md, eq. 6): [N], int64 [N].

    Args: similarity, allowed: [N, M]; value, index: [N], the hardest negative of each row.
    """
    columns = torch.arange(similarity.shape[1], device=similarity.device)
    counted = allowed & (columns[None, :] != index[:, None]) & (similarity >= relative.threshold)
    gap = value[:, None] - similarity
    if relative.kind == "linear":
        counted &= gap > 0
        term = gap
    else:
        term = torch.exp(-relative.beta * gap)
    return torch.where(counted, term, 0.0).sum(dim=1), counted.sum(dim=1)


def mine_similarity(
    similarity: Tensor,
    pairing: Pairing,
    relative: RelativeQuery,
    given: tuple[Tensor, Tensor] | None = None,
) -> Mined:
    """Mine an explicit similarity matrix [N, M] in its own dtype.

    Args:
        given: (hardest_text [N], hardest_image [M]) to use instead of mining, so that two backends
            can be compared given the same indices.
    """
    rows, columns = similarity.shape
    allowed = negative_mask(rows, columns, pairing, similarity.device)
    sides = []
    for side, (matrix, mask) in enumerate(((similarity, allowed), (similarity.T, allowed.T))):
        if given is None:
            value, index = hardest(matrix, mask)
        else:
            index = given[side]
            value = matrix.gather(1, index.clamp(min=0)[:, None])[:, 0]
            value = value.masked_fill(index < 0, NEGATIVE_INFINITY)
        if relative.kind == "none":
            total, count = value.new_empty(0), index.new_empty(0)
        else:
            total, count = relative_negative_sums(matrix, mask, value, index, relative)
        sides.append((value, index, total, count))
    (row_value, row_index, row_sum, row_count), column = sides
    return Mined(row_value, row_index, *column[:2], row_sum, row_count, *column[2:])


def _gathered(source: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """weight[i] * source[index[i]], zero rows where the index is out of range: [len(index), D]."""
    present = (index >= 0) & (index < source.shape[0])
    row = source[index.clamp(0, source.shape[0] - 1)] * weight[:, None]
    return torch.where(present[:, None], row, 0.0)


def _scatter_rows(into: Tensor, index: Tensor, rows: Tensor) -> None:
    """into[index[k]] += rows[k], in order of k; indices out of range contribute nothing."""
    present = (index >= 0) & (index < into.shape[0])
    rows = torch.where(present[:, None], rows, 0.0)
    # index_put_ is ordered on every device; index_add_ is not on CUDA.
    into.index_put_((index.clamp(0, into.shape[0] - 1),), rows, accumulate=True)


def apply_terms(
    grad_loss: Tensor, image: Tensor, text: Tensor, terms: GradientTerms, need: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Both gradients in the accumulate dtype (docs/derivation.md, eq. 9 and 10).

    Args: grad_loss 0-d; image [N, D], text [M, D], already in the accumulate dtype.
    """
    target = terms.target
    if target is None:
        target = default_target(image.shape[0], text.shape[0], image.device)
    grad_image = grad_text = None
    if need[0]:
        grad_image = _gathered(text, terms.hardest_text, terms.row_weight)
        grad_image -= _gathered(text, target, terms.positive_weight)
        _scatter_rows(grad_image, terms.hardest_image, terms.column_weight[:, None] * text)
        grad_image *= grad_loss
    if need[1]:
        grad_text = _gathered(image, terms.hardest_image, terms.column_weight)
        _scatter_rows(grad_text, target, -terms.positive_weight[:, None] * image)
        _scatter_rows(grad_text, terms.hardest_text, terms.row_weight[:, None] * image)
        grad_text *= grad_loss
    return grad_image, grad_text


def apply_similarity(grad_loss: Tensor, shape: tuple[int, int], terms: GradientTerms) -> Tensor:
    """The gradient with respect to the similarity matrix itself: [N, M] with O(N + M) entries."""
    rows, columns = shape
    grad = terms.row_weight.new_zeros(rows * columns)
    target = terms.target
    row = torch.arange(rows, device=grad.device)
    if target is None:
        target = default_target(rows, columns, grad.device)
    column = torch.arange(columns, device=grad.device)
    for i, j, weight in (
        (row, terms.hardest_text, terms.row_weight),
        (row, target, -terms.positive_weight),
        (terms.hardest_image, column, terms.column_weight),
    ):
        present = (i >= 0) & (j >= 0) & (i < rows) & (j < columns)
        flat = (i.clamp(0, rows - 1) * columns) + j.clamp(0, columns - 1)
        grad.index_put_((flat,), torch.where(present, weight, 0.0), accumulate=True)
    return (grad * grad_loss).view(rows, columns)
