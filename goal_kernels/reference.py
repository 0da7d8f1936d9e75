"""The whole algorithm in plain torch, with the similarity matrix [N, M] in full. Start here.

`dense_objective` goes from embeddings to both gradients: mine, weight, apply. The functions below
it are its steps, in that order; the weights, formulas on [B] vectors, stand in `weights.py` and
`elements.py`. Equation numbers refer to docs/derivation.md. The steps serve the `reference`
backend, `goal_loss_from_similarity` and the tests of every other backend.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from goal_kernels.backends.answers import GradientTerms, Mined, Weighted
from goal_kernels.backends.base import Pairing, RelativeQuery
from goal_kernels.constants import NO_INDEX
from goal_kernels.pairs import default_target, owned, relative_query, value_at

NEGATIVE_INFINITY = float("-inf")


def dense_objective(
    image: Tensor,
    text: Tensor,
    pairing: Pairing,
    relative: tuple[str, float, float],
    weigh: Callable[[Tensor, Mined], Weighted],
) -> tuple[Tensor, Tensor, Tensor]:
    """Value and both gradients [B, D] of an objective on finite embeddings [B, D].

    Args:
        relative: kind of the relative sums, epsilon, beta; see `SearchQuery`.
        weigh: the weight stage, such as partial(weights.weigh, objective).
    """
    similarity = image @ text.T  # eq. 1
    positive = similarity.diagonal().clone()
    kind, epsilon, beta = relative
    query = relative_query(kind, positive, epsilon, beta)
    mined = mine_similarity(similarity, pairing, query)  # eq. 2, 3 and 6
    weighted = weigh(positive, mined)  # eq. 4, 5, 7 and 8
    terms = GradientTerms(mined.row_index, mined.column_index, None, *weighted[1:])
    slope = apply_similarity(similarity.new_ones(()), similarity.shape, terms)
    return weighted.value, slope @ text, slope.T @ image  # eq. 9 and 10


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
    """Sum and count behind R- of every row (eq. 6): [N], int64 [N].

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
            value = value_at(matrix, index)
        if relative.kind == "none":
            total, count = value.new_empty(0), index.new_empty(0)
        else:
            total, count = relative_negative_sums(matrix, mask, value, index, relative)
        sides.append((value, index, total, count))
    (row_value, row_index, row_sum, row_count), column = sides
    return Mined(row_value, row_index, *column[:2], row_sum, row_count, *column[2:])


def weighted_pairs(
    terms: GradientTerms, rows: int, columns: int, device: torch.device
) -> tuple[tuple[Tensor, Tensor, Tensor], ...]:
    """The entries of the gradient of S: rows i, columns j and their weights, list by list.

    No entry twice within one list.
    """
    row, column = torch.arange(rows, device=device), torch.arange(columns, device=device)
    target = default_target(rows, columns, device) if terms.target is None else terms.target
    of_rows = zip(*map(_slots, (terms.hardest_text, terms.row_weight)), strict=True)
    of_columns = zip(*map(_slots, (terms.hardest_image, terms.column_weight)), strict=True)
    return (
        *((row, index, weight) for index, weight in of_rows),
        (row, target, -terms.positive_weight),
        *((index, column, weight) for index, weight in of_columns),
    )


def _slots(values: Tensor) -> tuple[Tensor, ...]:
    """[k, A] slot by slot; [A] is one slot."""
    return torch.atleast_2d(values).unbind()


def apply_similarity(grad_loss: Tensor, shape: Sequence[int], terms: GradientTerms) -> Tensor:
    """The gradient of the similarity matrix: [N, M] with O(N + M) entries that are not zero."""
    rows, columns = shape
    device = terms.row_weight.device
    grad = terms.row_weight.new_zeros(rows * columns)
    for i, j, weight in weighted_pairs(terms, rows, columns, device):
        present = owned(i, rows) & owned(j, columns)
        flat = (i.clamp(0, rows - 1) * columns) + j.clamp(0, columns - 1)
        # No place twice within one list, so the order of this scatter does not matter.
        grad.index_put_((flat,), torch.where(present, weight, 0.0), accumulate=True)
    return (grad * grad_loss).view(rows, columns)


def sum_rows(source: Tensor, index: Tensor, into: Tensor, weight: Tensor, rows: int) -> Tensor:
    """[rows, D]: out[into[k]] += weight[k] source[index[k]], in the order of k for every out row.

    The order is the same on every device and for any number of threads, which no scatter of torch
    promises. Terms with an index or a row out of range are left out.

    Args: source: [L, D]; index, into: int64 [K]; weight: [K], dtype of source.
    """
    present = owned(index, len(source)) & owned(into, rows)
    into, order = torch.where(present, into, rows).sort(stable=True)
    # The bags of embedding_bag are summed one element after the other. The last takes what is out.
    starts = torch.searchsorted(into, torch.arange(rows + 1, device=source.device))
    bags = F.embedding_bag(
        torch.where(present, index, 0)[order],
        source,
        starts,
        mode="sum",
        per_sample_weights=torch.where(present, weight, 0.0)[order],
    )
    return bags[:rows]


def apply_terms(
    grad_loss: Tensor, image: Tensor, text: Tensor, terms: GradientTerms, need: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Both gradients in the accumulate dtype, without the matrix (eq. 9 and 10).

    Args: grad_loss 0-d; image [N, D], text [M, D], already in the accumulate dtype.
    """
    rows, columns = image.shape[0], text.shape[0]
    pairs = weighted_pairs(terms, rows, columns, image.device)
    i, j, weight = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    return (
        sum_rows(text, j, i, weight, rows).mul_(grad_loss) if need[0] else None,
        sum_rows(image, i, j, weight, columns).mul_(grad_loss) if need[1] else None,
    )
