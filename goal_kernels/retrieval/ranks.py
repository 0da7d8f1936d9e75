"""Ranks of the positives in both directions; the matrix of scores is never stored."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from goal_kernels import checks
from goal_kernels.backends.choice import AUTO, BackendUnavailableError
from goal_kernels.backends.scores import RankCounts, best_positives, comparable
from goal_kernels.constants import ARGSORT, TIE_RULES
from goal_kernels.retrieval.scores import EmbeddingScores, Scores, as_scores


class Standing(NamedTuple):
    """Where the best positive of every query stands, before ties are settled. All int64 [Q].

    better: candidates that are not positives and score higher. ties: those that score the same.
    positives: positives of the query that share its best score; 0 for a query without positive.
    """

    better: Tensor
    ties: Tensor
    positives: Tensor


class RetrievalRanks(NamedTuple):
    """0-based ranks, and what they were made of.

    i2t [N], t2i [M] float64: rank of the best positive of every image (text) under the tie rule;
        NaN for an image without texts, which is not a query.
    ties: the tie rule. i2t_standing, t2i_standing: see `Standing`.
    nan_scores: number of queries whose best positive scores NaN; they rank last.
    """

    i2t: Tensor
    t2i: Tensor
    ties: str
    i2t_standing: Standing
    t2i_standing: Standing
    nan_scores: int

    @property
    def tie_fraction(self) -> float:
        """Share of the queries whose best positive ties with a wrong candidate, in [0, 1]."""
        tied = torch.cat([self.i2t_standing.ties, self.t2i_standing.ties]) > 0
        return tied.double().mean().item()


def settle(standing: Standing, ties: str) -> Tensor:
    """0-based rank [Q] float64 under a tie rule.

    With t wrong candidates and m positives at the same score, the best positive of a random order
    stands t / (m + 1) places into the tie on average ("expected"), at its start ("optimistic") or
    behind all t ("pessimistic").
    """
    rank = standing.better.double()
    if ties == "expected":
        rank = rank + standing.ties.double() / (standing.positives + 1)
    elif ties == "pessimistic":
        rank = rank + standing.ties
    return rank.masked_fill(standing.positives == 0, float("nan"))


def _sharing_best(score: Tensor, text_to_image: Tensor, images: int) -> Tensor:
    """How many texts of every image share its best score, int64 [N]. score: comparable, [M]."""
    best = best_positives(score, text_to_image, images)
    shared = (score == best[text_to_image]).long()
    return shared.new_zeros(images).scatter_add(0, text_to_image, shared)


def check_text_to_image(
    text_to_image: checks.Index, texts: int, images: int, device: torch.device | None
) -> Tensor:
    """Require one image row in [0, images) a text; int64 [M]. device: None for any.

    Raises: TypeError, ValueError.
    """
    index = checks.check_index_vector("text_to_image", text_to_image, texts, device)
    low, high = int(index.min()), int(index.max())
    if low < 0 or high >= images:
        raise ValueError(
            f"text_to_image: expected image rows in [0, {images - 1}], got values in "
            f"[{low}, {high}]; it holds one row number per text, not an image id."
        )
    return index


@torch.no_grad()
def retrieval_ranks(
    image_embeddings: checks.Rows,
    text_embeddings: checks.Rows,
    text_to_image: checks.Index,
    *,
    ties: str = "expected",
    backend: str = "auto",
    groups: checks.Index | None = None,
) -> RetrievalRanks:
    """Rank every image against all texts and every text against all images.

    The rank of an image is that of its best text; its other texts never count against it. Scores
    are float64 products rounded to float32 and equal scores tie. NaN ranks last, and a NaN among
    the positives is warned about. The [N, M] matrix is never stored: memory is O(N + M) and a
    constant.

    Args:
        image_embeddings: [N, D] float, N >= 1; text_embeddings: [M, D], M >= 1. Tensors, or numpy
            arrays; two dtypes are promoted as torch does it.
        text_to_image: [M] integers in [0, N), row of the image that each text describes; any number
            of texts per image, none included. A tensor, an array or a list.
        ties: "expected" (mean over random orders of the tie), "optimistic", "pessimistic", or
            "argsort": the order of `numpy.argsort(row)[::-1]` on float64 products, ties in whatever
            order it leaves them and NaN first, which is what VSE++, SCAN and VSE-infinity print. It
            sorts where the others count, and so takes several times as long.
        backend: "auto"; "cpu", native, or "triton", on a GPU: fast products tell most pairs apart,
            float64 decides those too close to call; or "chunked" and "reference": float64 torch on
            the device of the embeddings. All count the same scores. They can differ where a float64
            sum, taken in another order, lies on the other side of the middle of two float32
            numbers, and where it cancels to less than its own rounding.
        groups: [N] integers of the images, where several show one thing: all images and texts of
            a query's own group are right, and the best of them ranks. Counted by torch in blocks
            on the CPU.

    Returns: `RetrievalRanks`, on the device of the embeddings.

    Raises: TypeError, ValueError naming the argument; BackendUnavailableError.
    """
    scores = EmbeddingScores(image_embeddings, text_embeddings)
    return _rank(scores, text_to_image, ties, backend, scores.image.device, groups)


@torch.no_grad()
def similarity_ranks(
    scores: Any,
    text_to_image: checks.Index,
    *,
    ties: str = "expected",
    backend: str = "auto",
    groups: checks.Index | None = None,
) -> RetrievalRanks:
    """`retrieval_ranks` of scores that need not be products of embeddings.

    Args:
        scores: a matrix [N, M] of float16, float32 or float64 scores, images by texts, array or
            tensor (a memory-mapped file is read block by block); or a pair (image_embeddings,
            text_embeddings); or `Scores`, such as the mean of several models' (`MeanScores`).
            A given matrix compares as it is: nothing is rounded.
        text_to_image, ties, groups: as in `retrieval_ranks`; "argsort" sorts a matrix in its own
            dtype.
        backend: of scores of embeddings; others are counted in blocks by torch on the CPU.

    Returns: `RetrievalRanks` on the CPU.

    Raises: TypeError, ValueError naming the argument; BackendUnavailableError.
    """
    return _rank(as_scores(scores), text_to_image, ties, backend, torch.device("cpu"), groups)


def check_groups(groups: checks.Index, images: int) -> Tensor:
    """Require an integer an image; int64 [N]. Raises: TypeError, ValueError."""
    return checks.check_index_vector("groups", groups, images, None)


def _rank(
    scores: Scores,
    text_to_image: checks.Index,
    ties: str,
    backend: str,
    device: torch.device,
    groups: checks.Index | None,
) -> RetrievalRanks:
    """Count, settle ties, report NaN."""
    checks.check_choice("ties", ties, TIE_RULES)
    images, texts = scores.shape
    index = check_text_to_image(text_to_image, texts, images, device)
    if groups is None:
        counts = RankCounts(*(part.to(device) for part in scores.count(index, backend)))
        shared = _sharing_best(comparable(counts.positive), index, images)
        i2t = Standing(counts.image_better, counts.image_ties, shared)
        t2i = Standing(counts.text_better, counts.text_ties, torch.ones_like(index))
        nan_scores = _count_nan_queries(counts.positive.isnan(), index, images)
    else:
        groups = check_groups(groups, images)
        if backend not in (AUTO, "reference"):
            raise BackendUnavailableError(
                f"backend {backend!r} does not count by groups; use 'auto'."
            )
        both = scores.count_groups(*_on_cpu(groups, index))
        i2t, t2i = (Standing(*side[:3].to(device)) for side in both)
        nan_scores = sum(int(((side[2] > 0) & (side[3] == 0)).sum()) for side in both)
    if nan_scores:
        place = "wherever the sort puts them" if ties == ARGSORT else "last"
        warnings.warn(
            f"retrieval_ranks: {nan_scores} of {images + texts} queries have a NaN score for their "
            f"own positive; they rank {place}. Look for NaN in the embeddings.",
            RuntimeWarning,
            stacklevel=4,
        )
    if ties == ARGSORT:
        own = torch.arange(images, device="cpu") if groups is None else groups
        sides = (side.numpy() for side in _on_cpu(own, index))
        image_ranks, text_ranks = sorted_ranks(scores, *sides)
    else:
        image_ranks, text_ranks = settle(i2t, ties), settle(t2i, ties)
    ranks = image_ranks.to(device), text_ranks.to(device)
    return RetrievalRanks(*ranks, ties, i2t, t2i, nan_scores)


def _on_cpu(groups: Tensor, text_to_image: Tensor) -> tuple[Tensor, Tensor]:
    """The groups of all images [N] and texts [M]; waits for the device."""
    of_images = groups.cpu()
    return of_images, of_images[text_to_image.cpu()]


def _count_nan_queries(broken: Tensor, text_to_image: Tensor, images: int) -> int:
    """Texts with a NaN positive, and images all of whose texts have one. broken: bool [M]."""
    texts = torch.zeros(images, dtype=torch.int64, device=broken.device)
    sound = texts.scatter_add(0, text_to_image, (~broken).long())
    texts = texts.scatter_add(0, text_to_image, torch.ones_like(text_to_image))
    return int(broken.sum() + ((texts > 0) & (sound == 0)).sum())


def sorted_ranks(
    scores: Scores, image_groups: NDArray[np.int64], text_groups: NDArray[np.int64]
) -> tuple[Tensor, Tensor]:
    """0-based ranks i2t [N] and t2i [M], float64, in `numpy.argsort(row)[::-1]`.

    numpy's default sort is not stable: how it orders equal scores depends on the row and on the
    processor. NaN comes first. The rows are sorted in the dtype of `Scores.block`, by blocks. i2t
    is NaN for an image without texts. What has the group [N], [M] of a query is a positive.
    """
    images, texts = scores.shape
    i2t, t2i = np.full(images, np.nan), np.empty(texts)
    every = slice(None)
    described = np.isin(image_groups, text_groups)
    for rows in scores.blocks_of_images():
        block = scores.block(rows, every)
        for image in np.flatnonzero(described[rows]):
            number = rows.start + image
            i2t[number] = _first(text_groups[_order(block[image])] == image_groups[number])
    for columns in scores.blocks_of_texts():
        block = scores.block(every, columns)
        for text in range(block.shape[1]):
            number = columns.start + text
            t2i[number] = _first(image_groups[_order(block[:, text])] == text_groups[number])
    return torch.from_numpy(i2t), torch.from_numpy(t2i)


def _order(row: NDArray[np.floating]) -> NDArray[np.intp]:
    return np.argsort(row)[::-1]


def _first(hits: NDArray[np.bool_]) -> int:
    """Position of the first True."""
    return int(np.argmax(hits))
