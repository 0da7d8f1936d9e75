"""Metrics where more is relevant to a query than the captions written for an image.

For a query with R relevant candidates, r(k) = 1 if the candidate of rank k is relevant:

    R-precision = (1/R) sum over k = 1..R of r(k)
    mAP@R       = mean over queries of (1/R) sum over k = 1..R of r(k) P(k),
                  P(k) = (1/k) sum over l = 1..k of r(l)

Sources: Musgrave, Belongie, Lim, "A Metric Learning Reality Check", ECCV 2020 (mAP@R); Chun et al.,
"ECCV Caption", ECCV 2022 (its use for image-text retrieval); McSherry, Najork, "Computing
Information Retrieval Performance Measures Efficiently in the Presence of Tied Scores", ECIR 2008
(expected values under ties, which is what is computed here).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from goal_kernels.backends.scores import LOWEST_SCORE
from goal_kernels.checks import Index
from goal_kernels.retrieval.metrics import RECALL_AT, expected_recall
from goal_kernels.retrieval.ranks import Standing, check_text_to_image
from goal_kernels.retrieval.scores import Scores, as_scores


class Relation(Protocol):
    """Which images every text is true of, such as a `TruthRelation`, in compressed rows.

    indptr [M + 1], indices [pairs]: the images of text j are indices[indptr[j]:indptr[j + 1]],
    without repetition. shape: (M, N), texts by images.
    """

    @property
    def indptr(self) -> NDArray[np.integer]: ...
    @property
    def indices(self) -> NDArray[np.integer]: ...
    @property
    def shape(self) -> tuple[int, int]: ...


class PerQuery(NamedTuple):
    """Figures of each query that has something relevant; all [Q], in order of the queries.

    relevant: int64, R. average_precision: float64, AP@R. precision: float64, R-precision.
    better, ties, equal: int64, how the best relevant candidate stands, as in `Standing`.
    error: float64, probability that the first candidate was not written for the query (a caption
        for its image, or the reverse). excused: float64, probability of that and of it being
        relevant all the same: a false negative of the paired evaluation.
    """

    relevant: Tensor
    average_precision: Tensor
    precision: Tensor
    better: Tensor
    ties: Tensor
    equal: Tensor
    error: Tensor
    excused: Tensor


@dataclass(frozen=True)
class _Rows:
    """Relevant candidates of each query, in compressed rows, and which were written for it.

    indptr int64 [Q + 1]; items int64 [pairs]; own bool [pairs].
    """

    indptr: NDArray[np.int64]
    items: NDArray[np.int64]
    own: NDArray[np.bool_]

    def counts(self, queries: slice) -> NDArray[np.int64]:
        """Number of items of each query, [queries]."""
        return np.diff(self.indptr[queries.start : queries.stop + 1])

    def padded(self, queries: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Items, own, and whether a place holds an item, [queries, most]; item 0 where not."""
        start, stop = self.indptr[queries.start], self.indptr[queries.stop]
        counts = self.counts(queries)
        filled = np.arange(counts.max()) < counts[:, None]
        items = np.zeros(filled.shape, dtype=np.int64)
        own = np.zeros(filled.shape, dtype=bool)
        items[filled], own[filled] = self.items[start:stop], self.own[start:stop]
        return torch.from_numpy(items), torch.from_numpy(own), torch.from_numpy(filled)


def _rows(
    queries: NDArray[np.int64], items: NDArray[np.int64], own: NDArray[np.bool_], size: int
) -> _Rows:
    """Pairs (query, item) in any order as rows of `size` queries."""
    order = np.lexsort((items, queries))
    indptr = np.concatenate([[0], np.cumsum(np.bincount(queries, minlength=size))])
    return _Rows(indptr.astype(np.int64), items[order], own[order])


@torch.no_grad()
def relevance_metrics(
    scores: Any, relation: Relation, text_to_image: Index | None = None
) -> dict[str, Any]:
    """Metrics over everything that is relevant, not only over the pairs of the dataset.

    Scores compare as in `similarity_ranks`. Every figure is its expectation when ties are broken by
    a fair shuffle; NaN ranks last. The [N, M] matrix is never stored; a block of it is.

    Args:
        scores: see `similarity_ranks`.
        relation: which images every text is relevant to; see `Relation`.
        text_to_image: [M] integers in [0, N), the image that each text was written for, or None.

    Returns: {"i2t": {...}, "t2i": {...}}, each with, in percent,
        "mAP@R", "R-precision": over the queries with something relevant.
        "R@1", "R@5", "R@10": the first K hold anything relevant.
        "false_negatives": with text_to_image, share of the errors at rank 1 that are none, since
            what was found is relevant though written for another; None if there is no error.
        and "queries": with something relevant; "mean_relevant": their mean R.

    Raises: TypeError, ValueError naming the argument.
    """
    source = as_scores(scores)
    pairs = _check_relation(relation, source, text_to_image)
    return {
        direction: _summary(_search(source, rows, own, direction), text_to_image is not None)
        for direction, (rows, own) in pairs.items()
    }


def _check_relation(
    relation: Relation, scores: Scores, text_to_image: Index | None
) -> dict[str, tuple[_Rows, _Rows]]:
    """Relevant items and the paired ones by direction."""
    images, texts = scores.shape
    if tuple(relation.shape) != (texts, images):
        raise ValueError(
            f"relation: expected shape (texts, images) = {(texts, images)}, got "
            f"{tuple(relation.shape)}; use the relation of the very split that was scored."
        )
    text = np.repeat(np.arange(texts), np.diff(relation.indptr))
    image = relation.indices.astype(np.int64)
    if len(text) == 0 or len(np.unique(text * images + image)) < len(text):
        raise ValueError(
            f"relation: expected relevant pairs, each once, got {len(text)} with repetitions."
        )
    if text_to_image is None:
        owner, written = np.full(texts, -1), np.empty(0, dtype=np.int64)
    else:
        index = check_text_to_image(text_to_image, texts, images, torch.device("cpu"))
        owner, written = index.numpy(), np.arange(texts)
    own = owner[text] == image
    return {
        "i2t": (_rows(image, text, own, images), _own_rows(owner[written], written, images)),
        "t2i": (_rows(text, image, own, texts), _own_rows(written, owner[written], texts)),
    }


def _own_rows(queries: NDArray[np.int64], items: NDArray[np.int64], size: int) -> _Rows:
    return _rows(queries, items, np.ones(len(queries), dtype=bool), size)


def _search(scores: Scores, rows: _Rows, own: _Rows, direction: str) -> PerQuery:
    """Go through the queries by blocks; those with nothing relevant are left out."""
    parts = []
    for queries, block in _blocks(scores, direction):
        asked = torch.from_numpy(rows.counts(queries) > 0)
        if asked.any():
            parts.append(_search_block(block, queries, rows, own, asked))
    return PerQuery(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _blocks(scores: Scores, direction: str) -> Iterator[tuple[slice, Tensor]]:
    """Queries and their scores with every candidate, [queries, candidates]."""
    every = slice(None)
    if direction == "i2t":
        return ((q, scores.compared_block(q, every)) for q in scores.blocks_of_images())
    return ((q, scores.compared_block(every, q).T.contiguous()) for q in scores.blocks_of_texts())


def _search_block(
    block: Tensor, queries: slice, rows: _Rows, own: _Rows, asked: Tensor
) -> PerQuery:
    """`PerQuery` of the asked queries of a block of scores [queries, candidates]."""
    items, paired, filled = (part[asked] for part in rows.padded(queries))
    own_items, _, own_filled = (part[asked] for part in own.padded(queries))
    block = block[asked]
    relevant = filled.sum(dim=1)
    score = block.gather(1, items).masked_fill(~filled, LOWEST_SCORE)
    depth = min(max(items.shape[1], max(RECALL_AT)), block.shape[1])
    place = _places(block, score, filled, depth)
    best = block.amax(dim=1, keepdim=True)
    first = (block == best).sum(dim=1)  # candidates that share the first rank
    own_first = ((block.gather(1, own_items) == best) & own_filled).sum(dim=1)
    excused = ((score == best) & filled & ~paired).sum(dim=1)
    top = score.argmax(dim=1, keepdim=True)
    better, ties, _, equal = (part.gather(1, top)[:, 0] for part in place)
    return PerQuery(
        relevant,
        *_precisions(place, relevant, filled),
        better,
        # Beyond the depth nothing is known of the tie, and nothing of it counts.
        (ties - equal).clamp(min=0),
        equal,
        1.0 - own_first.double() / first,
        excused.double() / first,
    )


class _Places(NamedTuple):
    """Where relevant candidates stand, int64 [Q, width].

    better, ties: candidates with a higher, with the same score (itself included), exact for all
    that can be among the first `depth`. before, equal: relevant ones among them.
    """

    better: Tensor
    ties: Tensor
    before: Tensor
    equal: Tensor


def _places(block: Tensor, score: Tensor, filled: Tensor, depth: int) -> _Places:
    """Places from the first `depth` scores alone. score, filled: [Q, width], of the relevant."""
    top = -block.topk(depth, dim=1).values  # ascending, as searchsorted wants
    wanted = (-score).contiguous()
    better = torch.searchsorted(top, wanted)
    ties = torch.searchsorted(top, wanted, right=True) - better
    last = -top[:, -1:]
    # The tie that the cut goes through may reach beyond it.
    ties = torch.where(score == last, (block == last).sum(dim=1, keepdim=True), ties)
    ranked = wanted.sort(dim=1).values
    before = torch.searchsorted(ranked, wanted)
    equal = torch.searchsorted(ranked, wanted, right=True)
    equal = torch.minimum(equal, filled.sum(dim=1, keepdim=True)) - before  # padding has no score
    return _Places(better, ties, before, equal)


def _precisions(place: _Places, relevant: Tensor, filled: Tensor) -> tuple[Tensor, Tensor]:
    """Expected AP@R and R-precision, float64 [Q].

    A tie takes places b + 1 .. b + t and holds e relevant candidates, c of them stand before it.
    Place b + i holds a given one with probability 1/t, and then on average c + 1 + (i - 1) d
    relevant ones stand up to there, d = (e - 1)/(t - 1). With q = min(t, R - b) places up to R and
    h = sum over i = 1..q of 1/(b + i), a relevant candidate adds to AP@R

        1/(R t) ((c + 1) h + d (q - (b + 1) h)).
    """
    better, ties, before, equal = (part.double() for part in place)
    count = relevant[:, None]
    places = torch.minimum(place.ties, count - place.better).clamp(min=0)
    number = torch.arange(int(relevant.max()) + 1, dtype=torch.float64, device=relevant.device)
    harmonic = torch.where(number > 0, 1.0 / number, 0.0).cumsum(0)
    start = torch.minimum(place.better, count)
    h = harmonic[start + places] - harmonic[start]
    d = (equal - 1) / (ties - 1).clamp(min=1)
    gain = ((before + 1) * h + d * (places - (better + 1) * h)) / ties.clamp(min=1)
    share = places / ties.clamp(min=1)
    average, precision = (
        part.masked_fill(~filled, 0.0).sum(dim=1) / relevant for part in (gain, share)
    )
    return average, precision


def _summary(found: PerQuery, paired: bool) -> dict[str, float | None]:
    """The record of one direction. paired: whether it is known what was written for what."""
    standing = Standing(found.better, found.ties, found.equal)
    table: dict[str, float | None] = {
        "mAP@R": 100.0 * found.average_precision.mean().item(),
        "R-precision": 100.0 * found.precision.mean().item(),
        **{f"R@{k}": expected_recall(standing, k) for k in RECALL_AT},
        "queries": len(found.relevant),
        "mean_relevant": found.relevant.double().mean().item(),
    }
    if paired:
        errors = found.error.sum().item()
        share = 100.0 * found.excused.sum().item() / errors if errors else None
        table["false_negatives"] = share
    return table
