"""Metrics over folds of the images: the COCO 1K protocol and any other number of folds."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from goal_kernels.checks import Index
from goal_kernels.retrieval.metrics import chance_metrics, expected_recall, retrieval_metrics
from goal_kernels.retrieval.ranks import (
    RetrievalRanks,
    Standing,
    check_groups,
    check_text_to_image,
    similarity_ranks,
)
from goal_kernels.retrieval.scores import MatrixScores, Rows, Scores, as_scores


class FoldMetrics(NamedTuple):
    """What folds gave.

    mean: the record of `retrieval_metrics` with every number averaged over the folds.
    std: the same with sample standard deviations (over folds - 1; 0 for a single fold).
    folds: the record of every fold.
    ranks: `RetrievalRanks` of every fold, among the candidates of that fold.
    """

    mean: dict[str, Any]
    std: dict[str, Any]
    folds: list[dict[str, Any]]
    ranks: list[RetrievalRanks]


def fold_metrics(
    scores: Any,
    text_to_image: Index,
    folds: int = 5,
    *,
    ties: str = "expected",
    backend: str = "auto",
    groups: Index | None = None,
) -> FoldMetrics:
    """Rank within each fold of the images and average every metric, as the field's COCO 1K does.

    Fold f of F holds images [f N/F, (f + 1) N/F) and the texts of those; an image is ranked
    against the texts of its fold, and a text against its images. With 5,000 COCO test images and
    five folds this is the "1K" protocol, whose figures are far higher than those of "5K".

    Args:
        scores, text_to_image, ties, backend, groups: as in `similarity_ranks`.
        folds: a divisor of N.

    Raises: ValueError when N is no multiple of `folds` or a fold has no text; else as there.
    """
    source = as_scores(scores)
    images, texts = source.shape
    if isinstance(folds, bool) or not isinstance(folds, int) or folds < 1 or images % folds:
        raise ValueError(
            f"folds: expected a whole number that divides the {images} images, got {folds!r}; "
            "leave images out at the end, or evaluate all at once with folds=1."
        )
    index = check_text_to_image(text_to_image, texts, images, None).cpu()
    size, ranks = images // folds, []
    options: dict[str, Any] = {"ties": ties, "backend": backend}
    things = None if groups is None else check_groups(groups, images)
    for fold in range(folds):
        rows = slice(fold * size, (fold + 1) * size)
        own = _texts_of(rows, index.numpy())
        if own is None:
            raise ValueError(
                f"text_to_image: expected texts for every fold, fold {fold + 1} has none."
            )
        part = source.select(rows, own)
        if things is not None:
            options["groups"] = things[rows]
        ranks.append(similarity_ranks(part, index[own] - fold * size, **options))
    tables = [retrieval_metrics(found) for found in ranks]
    mean = _combine(tables, np.mean)
    return FoldMetrics(mean, _combine(tables, _deviation), tables, ranks)


def _texts_of(images: slice, index: np.ndarray) -> Rows | None:
    """The texts of some images, None for no text. index: int64 [M]."""
    texts = np.flatnonzero((images.start <= index) & (index < images.stop))
    if len(texts) == 0:
        return None
    if texts[-1] - texts[0] + 1 == len(texts):
        return slice(int(texts[0]), int(texts[-1]) + 1)  # a view, not a copy
    return texts


def sibling_recalls(
    rankings: Mapping[str, Any], text_to_image: Index, families: Index | None
) -> dict[str, dict[str, float]]:
    """R@1 among siblings, in percent: a query ranks the candidates of its own family alone.

    An image ranks the texts of the images of its family, a text these images. Ties count as
    expected; what re-ranks takes the family for the whole set. A family of one image, which could
    be taken for no other, asks nothing.

    Args:
        rankings: of one set, by name; each as `scores` of `similarity_ranks`.
        text_to_image: as there.
        families: [N] integers, images of a family one after another; None where there are none.

    Returns: {"i2t", "t2i"} by the names of `rankings`, and of "chance"; nothing without a family
        that asks.
    Raises: ValueError for a family in several places; else as `similarity_ranks`.
    """
    if families is None:
        return {}
    sources = {name: as_scores(scores) for name, scores in rankings.items()}
    images, texts = next(iter(sources.values())).shape
    index = check_text_to_image(text_to_image, texts, images, None).cpu()
    parts = [
        (rows, own)
        for rows in _several(check_groups(families, images).cpu())
        if (own := _texts_of(rows, index.numpy())) is not None
    ]
    if not parts:
        return {}
    sources["chance"] = MatrixScores(np.broadcast_to(np.float32(0), (images, texts)))
    return {name: _recalls_of_parts(scores, index, parts) for name, scores in sources.items()}


def _several(families: Tensor) -> Iterator[slice]:
    """The images of each family that has several. Raises: ValueError."""
    names, sizes = families.unique_consecutive(return_counts=True)
    if len(names.unique()) < len(names):
        raise ValueError(
            "families: expected the images of a family one after another, got a family in several "
            "places; order the images by family."
        )
    for stop, size in zip(sizes.cumsum(0).tolist(), sizes.tolist(), strict=True):
        if size > 1:
            yield slice(stop - size, stop)


def _recalls_of_parts(
    scores: Scores, index: Tensor, parts: list[tuple[slice, Rows]]
) -> dict[str, float]:
    """R@1 by direction, over the queries of all parts: images, and their texts."""
    with warnings.catch_warnings():  # NaN is reported once, where all are ranked
        warnings.filterwarnings("ignore", "retrieval_ranks: ", RuntimeWarning)
        ranks = [
            similarity_ranks(scores.select(rows, own), index[own] - rows.start)
            for rows, own in parts
        ]
    sides = {"i2t": [r.i2t_standing for r in ranks], "t2i": [r.t2i_standing for r in ranks]}
    return {
        direction: expected_recall(Standing(*map(torch.cat, zip(*found, strict=True))), 1)
        for direction, found in sides.items()
    }


def _deviation(values: list[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _combine(tables: list[Any], combine: Callable[[list[float]], Any]) -> Any:
    """Nested records of one shape as one record: every number combined over the records."""
    if isinstance(tables[0], dict):
        return {name: _combine([table[name] for table in tables], combine) for name in tables[0]}
    return float(combine(tables))


def fold_chance(
    text_to_image: Tensor, images: int, folds: int = 1, groups: Tensor | None = None
) -> dict[str, Any]:
    """`chance_metrics` averaged over folds as `fold_metrics` makes them.

    Args: text_to_image: [M] integers in [0, images); folds: a divisor of images; groups: [images].
    """
    size = images // folds
    fold = text_to_image // size
    parts = [text_to_image[fold == number] - number * size for number in range(folds)]
    things = [None] * folds if groups is None else groups.split(size)
    pairs = zip(parts, things, strict=True)
    return _combine([chance_metrics(part, size, own) for part, own in pairs], np.mean)
