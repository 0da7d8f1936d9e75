"""Ranks as the code of the literature finds them: sort every row, look the positives up."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from goal_kernels.retrieval.scores import Scores


def sorted_ranks(scores: Scores, text_to_image: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """0-based ranks i2t [N] and t2i [M], float64, in `numpy.argsort(row)[::-1]`.

    numpy's default sort is not stable: how it orders equal scores depends on the row and on the
    processor. NaN comes first. The rows are sorted in the dtype of `Scores.block`, by blocks. i2t
    is NaN for an image without texts.
    """
    images, texts = scores.shape
    i2t, t2i = np.full(images, np.nan), np.empty(texts)
    every = slice(None)
    described = np.isin(np.arange(images), text_to_image)
    for rows in scores.blocks_of_images():
        block = scores.block(rows, every)
        for image in np.flatnonzero(described[rows]):
            number = rows.start + image
            i2t[number] = _first(text_to_image[_order(block[image])] == number)
    for columns in scores.blocks_of_texts():
        block = scores.block(every, columns)
        for text in range(block.shape[1]):
            number = columns.start + text
            t2i[number] = _first(_order(block[:, text]) == text_to_image[number])
    return torch.from_numpy(i2t), torch.from_numpy(t2i)


def _order(row: NDArray[np.floating]) -> NDArray[np.intp]:
    return np.argsort(row)[::-1]


def _first(hits: NDArray[np.bool_]) -> int:
    """Position of the first True."""
    return int(np.argmax(hits))
