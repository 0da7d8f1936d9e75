"""Counting ranks in plain torch: float64 blocks of the score matrix, on any device."""

from __future__ import annotations

import torch
from torch import Tensor

from goal_kernels.backends.scores import RankCounts, best_positives, comparable

IMAGE_BLOCK = 512
TEXT_BLOCK = 4096
"""A block holds 16 MiB of float64 scores: large enough for the product, small beside the inputs."""


def rank_blocks(image: Tensor, text: Tensor, text_to_image: Tensor) -> RankCounts:
    """`Backend.rank` by blocks: O(N + M) memory and one block."""
    positive = _positive_scores(image, text, text_to_image)
    text_best = comparable(positive)
    image_best = best_positives(text_best, text_to_image, image.shape[0])
    images, texts = image.shape[0], text.shape[0]
    better = torch.zeros(images + texts, dtype=torch.int64, device=image.device)
    ties = torch.zeros_like(better)
    for top in range(0, images, IMAGE_BLOCK):
        rows = slice(top, min(top + IMAGE_BLOCK, images))
        for left in range(0, texts, TEXT_BLOCK):
            columns = slice(left, min(left + TEXT_BLOCK, texts))
            score = comparable((image[rows].double() @ text[columns].double().T).float())
            number = torch.arange(rows.start, rows.stop, device=image.device)
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
