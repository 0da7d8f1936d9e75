"""Ranks of the positives in both directions, streamed over blocks of the score matrix."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from goal_kernels import checks
from goal_kernels.backends import AUTO, BackendUnavailableError, find_backend

TIE_RULES = ("expected", "optimistic", "pessimistic")

_IMAGE_BLOCK = 512
_TEXT_BLOCK = 4096
"""A block holds 16 MiB of float64 scores: large enough for the product, small beside the inputs."""

_NAN_RANK = float("-inf")
"""What a NaN score compares as: below every number, so a broken item never scores."""


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
        rank = rank + standing.ties / (standing.positives + 1.0)
    elif ties == "pessimistic":
        rank = rank + standing.ties
    return rank.masked_fill(standing.positives == 0, float("nan"))


def _scores(image: Tensor, text: Tensor) -> Tensor:
    """Scores of a block, [n, m] float32: the float64 product, rounded once.

    Rounding makes the tie rule meaningful: scores that differ by less than float32 resolves tie,
    whatever order a product was summed in.
    """
    return torch.nan_to_num((image.double() @ text.double().T).float(), _NAN_RANK, None, _NAN_RANK)


def _positive_scores(image: Tensor, text: Tensor, text_to_image: Tensor) -> tuple[Tensor, Tensor]:
    """Score of every text with its own image [M] float32, and which of them are NaN (bool [M])."""
    parts = []
    for start in range(0, text.shape[0], _TEXT_BLOCK):
        part = slice(start, start + _TEXT_BLOCK)
        own = image[text_to_image[part]].double()
        parts.append((own * text[part].double()).sum(dim=1).float())
    score = torch.cat(parts)
    broken = score.isnan()
    return torch.nan_to_num(score, _NAN_RANK, None, _NAN_RANK), broken


def _best_per_image(score: Tensor, text_to_image: Tensor, images: int) -> tuple[Tensor, Tensor]:
    """Best positive score of every image and how many of its texts share it: [N], int64 [N]."""
    best = score.new_full((images,), _NAN_RANK)
    best = best.scatter_reduce(0, text_to_image, score, "amax")
    shared = (score == best[text_to_image]).long()
    return best, torch.zeros_like(best, dtype=torch.int64).scatter_add(0, text_to_image, shared)


def _count(
    image: Tensor, text: Tensor, text_to_image: Tensor, image_best: Tensor, text_best: Tensor
) -> tuple[Tensor, Tensor]:
    """Better and tying wrong candidates of all queries: two int64 [N + M], images first."""
    images, texts = image.shape[0], text.shape[0]
    better = torch.zeros(images + texts, dtype=torch.int64, device=image.device)
    ties = torch.zeros_like(better)
    for top in range(0, images, _IMAGE_BLOCK):
        rows = slice(top, min(top + _IMAGE_BLOCK, images))
        for left in range(0, texts, _TEXT_BLOCK):
            columns = slice(left, min(left + _TEXT_BLOCK, texts))
            score = _scores(image[rows], text[columns])
            number = torch.arange(rows.start, rows.stop, device=image.device)
            wrong = number[:, None] != text_to_image[None, columns]
            for axis, offset, part, best in (
                (1, 0, rows, image_best[rows, None]),
                (0, images, columns, text_best[None, columns]),
            ):
                span = slice(offset + part.start, offset + part.stop)
                better[span] += ((score > best) & wrong).sum(dim=axis)
                ties[span] += ((score == best) & wrong).sum(dim=axis)
    return better, ties


def _check_index(text_to_image: Tensor, texts: int, images: int, device: torch.device) -> Tensor:
    index = checks.check_index_vector("text_to_image", text_to_image, texts, device)
    low, high = int(index.min()), int(index.max())
    if low < 0 or high >= images:
        raise ValueError(
            f"text_to_image: expected image rows in [0, {images - 1}], got values in "
            f"[{low}, {high}]; it holds one row number per text, not an image id."
        )
    return index


def _check_backend(backend: str) -> None:
    if backend not in (AUTO, "reference"):
        raise BackendUnavailableError(
            f"backend {find_backend(backend).name!r} does not rank; use 'auto' or 'reference'."
        )


@torch.no_grad()
def retrieval_ranks(
    image_embeddings: Tensor,
    text_embeddings: Tensor,
    text_to_image: Tensor,
    *,
    ties: str = "expected",
    backend: str = "auto",
) -> RetrievalRanks:
    """Rank every image against all texts and every text against all images.

    The rank of an image is that of its best text; its other texts never count against it. Scores
    are float64 products rounded to float32 and equal scores tie. NaN ranks last, and a NaN among
    the positives is warned about. The [N, M] matrix is never stored: memory is O(N + M) and one
    block.

    Args:
        image_embeddings: [N, D] float, N >= 1; text_embeddings: [M, D], M >= 1, same dtype.
        text_to_image: [M] integers in [0, N), row of the image that each text describes; any number
            of texts per image, none included.
        ties: "expected" (mean over random orders of the tie), "optimistic" or "pessimistic".
        backend: "auto" or "reference" (torch on the device of the embeddings).

    Returns: `RetrievalRanks`.

    Raises: TypeError, ValueError naming the argument; BackendUnavailableError.
    """
    checks.check_embeddings(image_embeddings, text_embeddings)
    checks.check_choice("ties", ties, TIE_RULES)
    _check_backend(backend)
    images, texts = image_embeddings.shape[0], text_embeddings.shape[0]
    if images == 0 or texts == 0:
        raise ValueError(f"image_embeddings: expected N, M >= 1, got N = {images}, M = {texts}.")
    index = _check_index(text_to_image, texts, images, image_embeddings.device)
    text_best, broken = _positive_scores(image_embeddings, text_embeddings, index)
    image_best, shared = _best_per_image(text_best, index, images)
    better, tied = _count(image_embeddings, text_embeddings, index, image_best, text_best)
    i2t = Standing(better[:images], tied[:images], shared)
    t2i = Standing(better[images:], tied[images:], torch.ones_like(text_best, dtype=torch.int64))
    nan_scores = _count_nan_queries(broken, index, images)
    if nan_scores:
        warnings.warn(
            f"retrieval_ranks: {nan_scores} of {images + texts} queries have a NaN score for their "
            "own positive; they rank last. Look for NaN in the embeddings.",
            RuntimeWarning,
            stacklevel=3,
        )
    return RetrievalRanks(settle(i2t, ties), settle(t2i, ties), ties, i2t, t2i, nan_scores)


def _count_nan_queries(broken: Tensor, text_to_image: Tensor, images: int) -> int:
    """Texts with a NaN positive, and images all of whose texts have one. broken: bool [M]."""
    texts = torch.zeros(images, dtype=torch.int64, device=broken.device)
    sound = texts.scatter_add(0, text_to_image, (~broken).long())
    texts = texts.scatter_add(0, text_to_image, torch.ones_like(text_to_image))
    return int(broken.sum() + ((texts > 0) & (sound == 0)).sum())
