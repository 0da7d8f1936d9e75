"""Top-k search in plain torch, on any device: dense in float64, and in blocks."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from goal_kernels.backends.answers import MinedTopK
from goal_kernels.backends.base import TopKQuery, accumulate_dtype
from goal_kernels.constants import NO_INDEX
from goal_kernels.normalization import row_scale, wide_rows
from goal_kernels.pairs import cut, pair_similarity

BLOCK_ROWS = 512
BLOCK_COLUMNS = 16384
"""A block is 32 MiB of float32: large for the product, small beside the inputs."""

SEGMENT = 32
"""The k largest of a row lie in the k segments of so many columns that have the largest maxima."""

FEW = 8
"""The segments are looked for where they are more than so many times k; else they save nothing."""

NEGATIVE_INFINITY = float("-inf")


def dense_top_k(queries: Tensor, corpus: Tensor, query: TopKQuery) -> MinedTopK:
    """`Backend.top_k` from all scores, in float64 and then rounded once to the accumulate dtype."""
    dtype = accumulate_dtype(queries.dtype)
    left, right = (
        wide_rows(rows, row_scale(rows) if query.normalize else None).double()
        for rows in (queries, corpus)
    )
    score = (left @ right.T).to(dtype)
    excluded = _excluded(score, query, slice(None), slice(None))
    if excluded is None:
        excluded = torch.zeros_like(score, dtype=torch.bool)
    # By score, then the candidates before all that is none. Both sorts keep the order of equals.
    order = score.sort(dim=1, descending=True, stable=True).indices
    order = order.gather(1, excluded.gather(1, order).byte().sort(dim=1, stable=True).indices)
    kept = order[:, : query.k]
    none = excluded.gather(1, kept)
    best = _Best(
        score.gather(1, kept).masked_fill(none, NEGATIVE_INFINITY), kept.masked_fill(none, NO_INDEX)
    )
    return _answer(best, query.k)


def search_blocks(queries: Tensor, corpus: Tensor, query: TopKQuery) -> MinedTopK:
    """`Backend.top_k` by blocks of the vendor's matrix product, as precise as torch's is set to be.

    Memory: O(N k) and one block of scores.
    """
    dtype, rows, columns = accumulate_dtype(queries.dtype), len(queries), len(corpus)
    left_scale = row_scale(queries) if query.normalize else None
    right_scale = row_scale(corpus) if query.normalize else None
    lowest = torch.finfo(dtype).min
    width = min(BLOCK_COLUMNS, -(-columns // SEGMENT) * SEGMENT)
    buffer = queries.new_empty((min(BLOCK_ROWS, rows), width), dtype=dtype)
    best = _Best(
        queries.new_full((rows, query.k), NEGATIVE_INFINITY, dtype=dtype),
        torch.full((rows, query.k), NO_INDEX, dtype=torch.int64, device=queries.device),
    )
    for column in cut(columns, BLOCK_COLUMNS):
        right = wide_rows(corpus[column], None if right_scale is None else right_scale[column])
        tile = buffer[:, : -(-len(right) // SEGMENT) * SEGMENT]
        tile[:, len(right) :] = NEGATIVE_INFINITY
        for row in cut(rows, BLOCK_ROWS):
            left = wide_rows(queries[row], None if left_scale is None else left_scale[row])
            score = tile[: len(left), : len(right)]
            torch.mm(left, right.T, out=score)
            excluded = _excluded(score, query, row, column)
            if excluded is not None:
                # A candidate of -inf is one all the same: only what is none may be lower.
                score.clamp_(min=lowest).masked_fill_(excluded, NEGATIVE_INFINITY)
            found = _best_of_rows(tile[: len(left)], query.k)
            if excluded is None:
                none = found.place >= len(right)
                found = found._replace(
                    score=found.score.clamp(min=lowest).masked_fill(none, NEGATIVE_INFINITY)
                )
            index = (found.place + column.start).masked_fill(
                found.score == NEGATIVE_INFINITY, NO_INDEX
            )
            before = _Best(best.score[row], best.place[row])
            after = _joined(before, _Best(found.score, index), query.k)
            best.score[row], best.place[row] = after
    score = best.score.masked_fill(best.score == lowest, NEGATIVE_INFINITY)
    return _answer(_Best(score, best.place), query.k)


def rescore(queries: Tensor, corpus: Tensor, found: MinedTopK, normalize: bool) -> MinedTopK:
    """`found` with scores of full precision, and in their order."""
    scores = torch.stack(
        [pair_similarity(queries, corpus, index) for index in found.indices.unbind(1)], dim=1
    )
    if normalize:
        own = row_scale(corpus)[found.indices.clamp(min=0)]
        scores = scores * row_scale(queries)[:, None] * own
    last = found.indices.masked_fill(found.indices < 0, len(corpus)).sort(dim=1)
    scores, order = scores.gather(1, last.indices).sort(dim=1, descending=True, stable=True)
    indices = last.values.gather(1, order)
    return found._replace(
        scores=scores, indices=indices.masked_fill(indices == len(corpus), NO_INDEX)
    )


class _Best(NamedTuple):
    """Best candidates of some queries, [rows, up to k], the best first; -inf and -1: none."""

    score: Tensor
    place: Tensor


def _excluded(score: Tensor, query: TopKQuery, rows: slice, columns: slice) -> Tensor | None:
    """Which elements of a block are no candidates; None: all are."""
    excluded = None
    if query.query_ids is not None and query.corpus_ids is not None:
        excluded = query.query_ids[rows, None] == query.corpus_ids[columns]
    if query.max_score is not None:
        above = score > query.max_score[rows, None]
        excluded = above if excluded is None else excluded | above
    return excluded


def _best_of_rows(tile: Tensor, k: int) -> _Best:
    """Of every row of [rows, segments * SEGMENT], by column in the tile."""
    segments = tile.unflatten(1, (-1, SEGMENT))
    if FEW * k >= segments.shape[1]:
        index = _first_largest(tile, min(k, tile.shape[1]))
        return _Best(tile.gather(1, index), index)
    # Ascending, so that the place of an element among the gathered ones is in the order of columns.
    segment = _first_largest(segments.amax(dim=2), k).sort(dim=1).values
    inside = segments.gather(1, segment[:, :, None].expand(-1, -1, SEGMENT)).flatten(1)
    place = _first_largest(inside, k)
    index = segment.gather(1, place // SEGMENT) * SEGMENT + place % SEGMENT
    return _Best(inside.gather(1, place), index)


def _joined(before: _Best, found: _Best, k: int) -> _Best:
    """The k best of both; those before have lower indices."""
    score = torch.cat([before.score, found.score], dim=1)
    place = _first_largest(score, k)
    index = torch.cat([before.place, found.place], dim=1)
    return _Best(score.gather(1, place), index.gather(1, place))


def _first_largest(value: Tensor, count: int) -> Tensor:
    """Places [rows, count] of the largest, descending, the lowest on ties; NaN above all.

    torch.topk leaves open which of equal values it takes, and in which order.
    """
    top = value.topk(min(count + 1, value.shape[1]), dim=1)
    place, best = top.indices[:, :count], top.values
    open_rows = (best[:, 1:] == best[:, :-1]).any(dim=1) | best.isnan().any(dim=1)
    if open_rows.any():
        order = value[open_rows].sort(dim=1, descending=True, stable=True).indices
        place[open_rows] = order[:, :count]
    return place


def _answer(best: _Best, k: int) -> MinedTopK:
    """`best` filled up to k."""
    missing = k - best.score.shape[1]
    if missing > 0:
        best = _Best(
            torch.nn.functional.pad(best.score, (0, missing), value=NEGATIVE_INFINITY),
            torch.nn.functional.pad(best.place, (0, missing), value=NO_INDEX),
        )
    return MinedTopK(best.score, best.place, (best.place >= 0).sum(dim=1))
