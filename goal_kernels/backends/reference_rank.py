"""Counting ranks in plain torch: float64 blocks of the score matrix, on any device."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from goal_kernels.backends.scores import RankCounts, best_positives, comparable

IMAGE_BLOCK = 512
TEXT_BLOCK = 4096
"""A block holds 16 MiB of float64 scores: large enough for the product, small beside the inputs."""


def rank_blocks(image: Tensor, text: Tensor, text_to_image: Tensor) -> RankCounts:
    """`Backend.rank` by blocks: O(N + M) memory and one block."""

    def block(rows: slice, columns: slice) -> Tensor:
        return (image[rows].double() @ text[columns].double().T).float()

    return count_blocks(
        _positive_scores(image, text, text_to_image), text_to_image, len(image), block
    )


def count_blocks(
    positive: Tensor,
    text_to_image: Tensor,
    images: int,
    block: Callable[[slice, slice], Tensor],
) -> RankCounts:
    """Count what stands before the positives in a score matrix that is given block by block.

    Args:
        positive: [M] float32 or float64, score of every text with its own image.
        text_to_image: [M] int64 in [0, images).
        block: scores [rows, columns] of a block, in the dtype of `positive`; asked for each block
            once, rows first.
    """
    text_best = comparable(positive)
    image_best = best_positives(text_best, text_to_image, images)
    texts = len(positive)
    better = torch.zeros(images + texts, dtype=torch.int64, device=positive.device)
    ties = torch.zeros_like(better)
    for top in range(0, images, IMAGE_BLOCK):
        rows = slice(top, min(top + IMAGE_BLOCK, images))
        for left in range(0, texts, TEXT_BLOCK):
            columns = slice(left, min(left + TEXT_BLOCK, texts))
            score = comparable(block(rows, columns))
            number = torch.arange(rows.start, rows.stop, device=positive.device)
            wrong = number[:, None] != text_to_image[None, columns]
            for axis, offset, part, best in (
                (1, 0, rows, image_best[rows, None]),
                (0, images, columns, text_best[None, columns]),
            ):
                span = slice(offset + part.start, offset + part.stop)
                better[span] += ((score > best) & wrong).sum(dim=axis)
                ties[span] += ((score == best) & wrong).sum(dim=axis)
    return RankCounts(positive, better[:images], ties[:images], better[images:], ties[images:])


def _positive_scores(image: Tensor, text: Tensor, text_to_image: Tensor) -> Tensor:
    """Score of every text with its own image, [M] float32."""
    parts = []
    for start in range(0, text.shape[0], TEXT_BLOCK):
        part = slice(start, start + TEXT_BLOCK)
        own = image[text_to_image[part]].double()
        parts.append((own * text[part].double()).sum(dim=1).float())
    return torch.cat(parts)
