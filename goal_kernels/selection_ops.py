"""The operators that choose negatives other than the hardest: `select` and `select_similarity`.

Rows are texts and columns are images, as in `backends.selection`. Neither can be differentiated:
`attach_terms` and `attach_similarity` carry the gradient.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from goal_kernels.backends.answers import UNSCALED, Scales
from goal_kernels.backends.base import Pairing, SearchQuery, accumulate_dtype
from goal_kernels.backends.candidates import Selection
from goal_kernels.backends.reference import matmul_precision
from goal_kernels.backends.selection import BLOCK, Chosen, select
from goal_kernels.normalization import row_scale, wide_rows
from goal_kernels.operators import define_operator
from goal_kernels.pairs import pair_similarity, relative_query, value_at

_CHOSEN = ", ".join(
    f"Tensor {side}_{part}"
    for side in ("row", "column")
    for part in ("value", "place", "total", "number", "skipped")
)
_PAIRING = "Tensor? target, Tensor? row_ids, Tensor? column_ids, Tensor? exempt"
_SELECTION = (
    "str kind, int size, float temperature, int seed, float margin, float ratio, int first_row, "
    "int first_column, str backend"
)
_SELECT_SCHEMA = (
    f"(Tensor rows, Tensor columns, {_PAIRING}, str relative, float epsilon, float beta, "
    f"bool normalize, str precision, {_SELECTION})"
    f" -> (Tensor positive, {_CHOSEN}, Tensor scales_of_rows)"
)
_SELECT_SIMILARITY_SCHEMA = (
    f"(Tensor similarity, {_PAIRING}, str relative, float epsilon, float beta, {_SELECTION})"
    f" -> (Tensor positive, {_CHOSEN})"
)


class Selected(NamedTuple):
    """The negatives of both directions.

    positive [M]: similarity of each row and its column, -inf where it has none. rows, columns: see
    `Chosen`. scales_of_rows: [M + N] what normalises the rows, [0] without `normalize`.
    """

    positive: Tensor
    rows: Chosen
    columns: Chosen
    scales_of_rows: Tensor

    @property
    def skipped(self) -> tuple[Tensor, ...]:
        """How many candidates each column and each row lost; empty where none are left out."""
        parts = self.columns.skipped, self.rows.skipped
        return parts if parts[1].shape[0] else ()


def _select(rows: Tensor, columns: Tensor, *question: Any) -> tuple[Tensor, ...]:
    pairing, exempt, backend = Pairing(*question[:3]), question[3], question[-1]
    query, selection = SearchQuery(*question[4:9]), Selection(*question[9:-1])
    lossless = rows.dtype != torch.float32
    scales = Scales(row_scale(rows), row_scale(columns)) if query.normalize else UNSCALED
    rows, columns = wide_rows(rows, scales.image), wide_rows(columns, scales.text)
    positive = pair_similarity(rows, columns, pairing.target)
    relative = relative_query(query.relative, positive, query.epsilon, query.beta)
    with matmul_precision("highest" if lossless else query.precision):
        chosen = select(
            lambda part, out: torch.mm(rows[part], columns.T, out=out),
            positive,
            len(columns),
            pairing,
            exempt,
            relative,
            selection,
            len(rows) if backend == "reference" else BLOCK,
            natively=backend == "cpu",
        )
    if not lossless and query.precision != "highest":
        chosen = (
            _rescored(chosen[0], rows, columns),
            _rescored(chosen[1], columns, rows),
        )
    factors = [scale for scale in scales if scale is not None]
    return (
        positive,
        *chosen[0],
        *chosen[1],
        torch.cat(factors) if factors else positive.new_empty(0),
    )


def _rescored(chosen: Chosen, own: Tensor, others: Tensor) -> Chosen:
    """With the similarities of the negatives in full precision."""
    value = torch.stack([pair_similarity(own, others, index) for index in chosen.place])
    return chosen._replace(value=value)


def _chosen_fake(like: Tensor, sizes: tuple[int, int], question: Any) -> tuple[Tensor, ...]:
    """question: from `relative` on."""
    relative, selection = question[0], Selection(*question[-9:-1])
    slots, dtype = selection.slots, accumulate_dtype(like.dtype)

    def side(size: int) -> tuple[Tensor, ...]:
        sums = 0 if relative == "none" else size
        return (
            like.new_empty((slots, size), dtype=dtype),
            like.new_empty((slots, size), dtype=torch.int64),
            like.new_empty((slots, sums), dtype=dtype),
            like.new_empty((slots, sums), dtype=torch.int64),
            like.new_empty(size, dtype=torch.int64),
        )

    positive = like.new_empty(sizes[0], dtype=dtype)
    return positive, *side(sizes[0]), *side(sizes[1])


def _select_fake(rows: Tensor, columns: Tensor, *question: Any) -> tuple[Tensor, ...]:
    sizes = rows.shape[0], columns.shape[0]
    scales = sum(sizes) if question[7] else 0
    dtype = accumulate_dtype(rows.dtype)
    return *_chosen_fake(rows, sizes, question[4:]), rows.new_empty(scales, dtype=dtype)


def _select_similarity(similarity: Tensor, *question: Any) -> tuple[Tensor, ...]:
    pairing, exempt = Pairing(*question[:3]), question[3]
    relative, selection = question[4:7], Selection(*question[7:-1])
    assert pairing.target is not None
    scores = similarity.to(accumulate_dtype(similarity.dtype))
    positive = value_at(scores, pairing.target)
    query = relative_query(relative[0], positive, *relative[1:])
    chosen = select(
        lambda part, out: out.copy_(scores[part]),
        positive,
        scores.shape[1],
        pairing,
        exempt,
        query,
        selection,
    )
    return positive, *chosen[0], *chosen[1]


def _select_similarity_fake(similarity: Tensor, *question: Any) -> tuple[Tensor, ...]:
    rows, columns = similarity.shape
    return _chosen_fake(similarity, (rows, columns), question[4:])


define_operator("select", _SELECT_SCHEMA, _select, _select_fake)
define_operator(
    "select_similarity", _SELECT_SIMILARITY_SCHEMA, _select_similarity, _select_similarity_fake
)


def select_rows(
    rows: Tensor,
    columns: Tensor,
    pairing: Pairing,
    exempt: Tensor | None,
    query: SearchQuery,
    selection: Selection,
    backend: str,
) -> Selected:
    """The negatives of embeddings [M, D] and [N, D].

    Args: backend: "reference" makes the matrix in one block, "cpu" draws natively.
    """
    positive, *both, scales = torch.ops.goal_kernels.select(
        rows.detach(), columns.detach(), *pairing, exempt, *query, *selection, backend
    )
    return Selected(positive, Chosen(*both[:5]), Chosen(*both[5:]), scales)


def select_scores(
    similarity: Tensor,
    pairing: Pairing,
    exempt: Tensor | None,
    relative: tuple[str, float, float],
    selection: Selection,
) -> Selected:
    """The negatives of a matrix [M, N]. relative: kind, epsilon, beta."""
    positive, *both = torch.ops.goal_kernels.select_similarity(
        similarity.detach(), *pairing, exempt, *relative, *selection, "reference"
    )
    return Selected(positive, Chosen(*both[:5]), Chosen(*both[5:]), positive.new_empty(0))
