"""How scores compare when candidates are ranked, and what ranking counts."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

LOWEST_SCORE = float("-inf")
"""What a NaN score compares as: below every number, so a broken item never scores."""


class RankCounts(NamedTuple):
    """How the positives fare among all candidates. Scores are defined in `Backend.rank`.

    positive [M] float32 (float64 for given float64 scores): score of every text with its own image,
        NaN and infinities as they are.
    image_better, image_ties int64 [N]: texts of other images that score better than the image's
        best own text, or the same. An image without texts has the best score -inf.
    text_better, text_ties int64 [M]: other images that score better than the text's own, the same.
    """

    positive: Tensor
    image_better: Tensor
    image_ties: Tensor
    text_better: Tensor
    text_ties: Tensor


def comparable(score: Tensor) -> Tensor:
    """Scores as they compare: NaN is `LOWEST_SCORE`, infinity the largest finite number."""
    return torch.nan_to_num(score, LOWEST_SCORE, None, LOWEST_SCORE)


def best_positives(score: Tensor, text_to_image: Tensor, images: int) -> Tensor:
    """Best score among the texts of every image, [N]; `LOWEST_SCORE` for an image without any.

    score: [M], comparable, of every text with its own image.
    """
    best = score.new_full((images,), LOWEST_SCORE)
    return best.scatter_reduce(0, text_to_image, score, "amax")
