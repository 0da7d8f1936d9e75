"""Normalised rows as raw rows with scales, and gradients through them (derivation, section 8).

The scale of a row x is s = 1 / max(|x|, SHORTEST_LENGTH), so that s x is what F.normalize returns.
Rows shorter than that get no gradient, where F.normalize multiplies theirs by 10^12.
"""

from __future__ import annotations

import torch
from torch import Tensor

from goal_kernels.backends.base import accumulate_dtype
from goal_kernels.constants import SHORTEST_LENGTH


def row_scale(matrix: Tensor) -> Tensor:
    """s of every row of [rows, D]: [rows], accumulate dtype."""
    length = matrix.to(accumulate_dtype(matrix.dtype)).norm(dim=1)
    return 1.0 / length.clamp(min=SHORTEST_LENGTH)


def scaled_rows(matrix: Tensor, scale: Tensor | None) -> Tensor:
    """s x for every row x of [rows, D], in its dtype; the matrix itself without scales."""
    return matrix if scale is None else (matrix * scale[:, None]).to(matrix.dtype)


def wide_rows(matrix: Tensor, scale: Tensor | None) -> Tensor:
    """s x for every row x of [rows, D], in the accumulate dtype; x itself without scales."""
    wide = matrix.to(accumulate_dtype(matrix.dtype))
    return wide if scale is None else wide * scale[:, None]


def raw_gradient(gradient: Tensor, matrix: Tensor, scale: Tensor | None) -> Tensor:
    """The gradient of raw rows [rows, D] from that of the scaled rows, whose dtype it keeps.

    s (g - u <u, g>) with u = s x; g itself without scales. 0 for rows too short to normalise: they
    have no direction, and s is so large there that s g would be no step to take, and beyond
    float16.
    """
    if scale is None:
        return gradient
    wide, unit = gradient.to(scale.dtype), wide_rows(matrix, scale)
    along = (unit * wide).sum(dim=1, keepdim=True)
    long = (scale < 1.0 / SHORTEST_LENGTH)[:, None]
    return torch.where(long, scale[:, None] * (wide - along * unit), 0.0).to(gradient.dtype)
