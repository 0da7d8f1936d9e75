"""`i2t` and `t2i` of VSE-infinity and SCAN: their arguments, their tuples, their ranks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from goal_kernels.constants import ARGSORT
from goal_kernels.retrieval import (
    MatrixScores,
    RetrievalRanks,
    retrieval_metrics,
    similarity_ranks,
)

COCO_CAPTIONS = 5
"""Captions of an image in mode "coco", which Flickr30K is evaluated in as well."""

Figures = tuple[float, ...]
"""R@1, R@5, R@10 in percent, median and mean rank counted from 1."""


def i2t(
    npts: int,
    sims: NDArray[np.floating] | Tensor,
    return_ranks: bool = False,
    mode: str = "coco",
    *,
    ties: str = ARGSORT,
) -> Figures | tuple[Figures, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Images ask for texts.

    Args:
        npts: N, number of images.
        sims: [N, 5 N] similarities, captions of an image side by side; [N, N] in another mode than
            "coco".
        return_ranks: also return (ranks [N], from 0, of the best caption; top1 [N], the text that
            comes first), float64.
        ties: as in `gk.similarity_ranks`; "argsort" gives their figures to the last bit, "expected"
            gives a collapsed model what chance gives.

    Returns: (R@1, R@5, R@10, median rank, mean rank), or that and (ranks, top1).
    Raises: ValueError when `sims` does not fit `npts`; as `gk.similarity_ranks`.
    """
    return _evaluate("i2t", npts, sims, return_ranks, mode, ties)


def t2i(
    npts: int,
    sims: NDArray[np.floating] | Tensor,
    return_ranks: bool = False,
    mode: str = "coco",
    *,
    ties: str = ARGSORT,
) -> Figures | tuple[Figures, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Texts ask for images; as `i2t`, with ranks and top1 [5 N] of the texts."""
    return _evaluate("t2i", npts, sims, return_ranks, mode, ties)


def _evaluate(
    direction: str, npts: int, sims: Any, return_ranks: bool, mode: str, ties: str
) -> Any:
    captions = COCO_CAPTIONS if mode == "coco" else 1
    scores = MatrixScores(sims)
    if scores.shape != (npts, captions * npts):
        raise ValueError(
            f"sims: expected shape [{npts}, {captions * npts}], npts images by {captions} captions "
            f"each (mode {mode!r}), got {list(scores.shape)}; gk.similarity_ranks takes any number "
            "of captions."
        )
    ranks = _rank(scores, np.repeat(np.arange(npts), captions), ties)
    figures = tuple(retrieval_metrics(ranks)[direction].values())
    if not return_ranks:
        return figures
    matrix = scores.matrix if direction == "i2t" else scores.matrix.T
    return figures, (getattr(ranks, direction).numpy(), _first_of_each(matrix))


def _rank(scores: MatrixScores, text_to_image: NDArray[np.integer], ties: str) -> RetrievalRanks:
    """Counted where no score ties, which is faster and the same; sorted otherwise."""
    if ties == ARGSORT and not np.isnan(scores.matrix).any():
        counted = similarity_ranks(scores, text_to_image, ties="optimistic")
        if counted.tie_fraction == 0:
            return counted
    return similarity_ranks(scores, text_to_image, ties=ties)


def _first_of_each(rows: NDArray[np.floating]) -> NDArray[np.float64]:
    """Candidate that `numpy.argsort(row)[::-1]` puts first, ties and NaN as it has them. [rows]"""
    first = rows.argmax(axis=1)
    best = np.take_along_axis(rows, first[:, None], axis=1)
    unclear = ((rows == best).sum(axis=1) != 1).nonzero()[0]  # NaN equals nothing
    first[unclear] = [np.argsort(rows[row])[-1] for row in unclear]
    return first.astype(np.float64)
