"""Counting ranks in plain torch: float64 blocks of the score matrix, on any device."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from goal_kernels.backends.scores import RankCounts, best_positives, comparable
from goal_kernels.constants import RESCORE_ELEMENTS
from goal_kernels.pairs import cut

IMAGE_BLOCK = 512
TEXT_BLOCK = 4096
"""A block holds 16 MiB of float64 scores: large enough for the product, small beside the inputs."""

MANY = 2.0**-6
"""Share of a block's scores above which a second product, of magnitudes, decides more cheaply."""

UNIT = 2.0**-53
"""Relative error of a rounding in float64."""


def rank_blocks(image: Tensor, text: Tensor, text_to_image: Tensor) -> RankCounts:
    """`Backend.rank` by blocks: O(N + M) memory and one block.

    How a matrix product sums depends on where a block ends, so its last bits say nothing about
    ties. Scores that they decide, because they cancel or lie in the middle of two float32 numbers,
    are summed again in an order that depends on nothing but D.
    """
    # Any order of D products and additions stays this close to the true sum, relative to the sum of
    # the magnitudes; two sums differ twice.
    slack = 2 * (image.shape[1] + 2) * UNIT
    longest = text.double().norm(dim=1).nan_to_num(0.0, posinf=0.0).amax()

    def block(rows: slice, columns: slice) -> Tensor:
        left, right = image[rows].double(), text[columns].double()
        score = left @ right.T
        undecided = _undecided(score, slack * longest * left.norm(dim=1, keepdim=True))
        if undecided.sum() > MANY * score.numel():  # zeros: of two rows that have no term in common
            undecided = _undecided(score, slack * (left.abs() @ right.abs().T))
        i, j = undecided.nonzero(as_tuple=True)
        step = max(1, RESCORE_ELEMENTS // image.shape[1])
        for first, second in zip(i.split(step), j.split(step), strict=True):
            score[first, second] = row_dots(left[first], right[second])
        return score.float()

    return count_blocks(block, text_to_image, len(image))


def _undecided(score: Tensor, error: Tensor) -> Tensor:
    """Where a finite float64 score could round to another float32 number within its error."""
    return ((score - error).float() != (score + error).float()) & score.isfinite()


def row_dots(left: Tensor, right: Tensor) -> Tensor:
    """<left[p], right[p]> of two [P, D], summed in an order that depends on D alone. [P]"""
    terms = left * right
    width = terms.shape[1]
    while width > 1:
        half = (width + 1) // 2
        terms[:, : width - half] += terms[:, half:width]
        width = half
    return terms[:, 0].contiguous()


def count_blocks(
    block: Callable[[slice, slice], Tensor], text_to_image: Tensor, images: int
) -> RankCounts:
    """Count what stands before the positives in a score matrix that is given block by block.

    Args:
        block: scores [rows, columns] of a block, float32 or float64; the same each time it is
            asked. Positives are read from these blocks too, so that equal scores tie.
        text_to_image: [M] int64 in [0, images).
    """
    texts, device = len(text_to_image), text_to_image.device
    parts = cut(texts, TEXT_BLOCK)
    positive = torch.cat([_own_scores(block, text_to_image, images, part) for part in parts])
    text_best = comparable(positive)
    image_best = best_positives(text_best, text_to_image, images)
    better = torch.zeros(images + texts, dtype=torch.int64, device=device)
    ties = torch.zeros_like(better)
    for rows in cut(images, IMAGE_BLOCK):
        number = torch.arange(rows.start, rows.stop, device=device)
        for columns in parts:
            score = comparable(block(rows, columns))
            wrong = number[:, None] != text_to_image[None, columns]
            for axis, offset, part, best in (
                (1, 0, rows, image_best[rows, None]),
                (0, images, columns, text_best[None, columns]),
            ):
                span = slice(offset + part.start, offset + part.stop)
                better[span] += ((score > best) & wrong).sum(dim=axis)
                ties[span] += ((score == best) & wrong).sum(dim=axis)
    return RankCounts(positive, better[:images], ties[:images], better[images:], ties[images:])


def _own_scores(
    block: Callable[[slice, slice], Tensor], text_to_image: Tensor, images: int, columns: slice
) -> Tensor:
    """Score of every text of these columns with its own image, from the blocks that hold one."""
    own = text_to_image[columns]
    place = torch.arange(len(own), device=own.device)
    score = None
    for rows in cut(images, IMAGE_BLOCK):
        here = (own >= rows.start) & (own < rows.stop)
        if here.any():
            found = block(rows, columns)[
                (own - rows.start).clamp(0, rows.stop - rows.start - 1), place
            ]
            score = found if score is None else torch.where(here, found, score)
    assert score is not None
    return score
