"""Similarities of given pairs, O(B D), no matrix, and the threshold that follows from them."""

from __future__ import annotations

import torch
from torch import Tensor

from goal_kernels.backends.base import RelativeQuery, accumulate_dtype
from goal_kernels.constants import CACHED_ELEMENTS, RESCORE_ELEMENTS


def cut(size: int, step: int) -> list[slice]:
    """[0, size) in slices of `step`, the last one as long as what is left."""
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]


def default_target(rows: int, columns: int, device: torch.device) -> Tensor:
    """The implicit pairing: row i belongs to column i, rows beyond the last column to none. [N]"""
    target = torch.arange(rows, device=device)
    return torch.where(target < columns, target, -1) if rows > columns else target


def owned(target: Tensor, columns: int) -> Tensor:
    """bool, the shape of `target`: which of its elements name one of the columns."""
    return (target >= 0) & (target < columns)


def value_at(similarity: Tensor, index: Tensor) -> Tensor:
    """similarity[i, index[i]] of [N, M]; -inf where the index [N] is out of range. [N]"""
    columns = similarity.shape[1]
    value = similarity.gather(1, index.clamp(0, columns - 1)[:, None])[:, 0]
    return value.masked_fill(~owned(index, columns), float("-inf"))


def pair_similarity(image: Tensor, text: Tensor, index: Tensor | None) -> Tensor:
    """<image[i], text[index[i]]> in the accumulate dtype; -inf where the index is out of range.

    Args:
        image, text: [N, D], [M, D].
        index: int64 [N], or None for index[i] = i.
    Returns: [N]. Works in slices of rows, so the temporaries stay below a constant size.
    """
    rows, width = image.shape
    dtype = accumulate_dtype(image.dtype)
    if index is None and rows > text.shape[0]:
        index = default_target(rows, text.shape[0], image.device)
    result = torch.empty(rows, dtype=dtype, device=image.device)
    step = max(1, (CACHED_ELEMENTS if image.is_cpu else RESCORE_ELEMENTS) // width)
    for part in cut(rows, step):
        if index is None:
            partner = text[part]
        else:
            partner = text[index[part].clamp(0, text.shape[0] - 1)]
        result[part] = (image[part].to(dtype) * partner.to(dtype)).sum(dim=1)
    if index is not None:
        result.masked_fill_(~owned(index, text.shape[0]), float("-inf"))
    return result


def relative_query(kind: str, positive: Tensor, epsilon: float, beta: float) -> RelativeQuery:
    """What to sum: at or above min over existing positives [N] - epsilon (eq. 6)."""
    if kind == "none":
        return RelativeQuery(kind, positive.new_zeros(()), beta)
    exists = positive != float("-inf")
    threshold = torch.where(exists, positive, float("inf")).amin() - epsilon
    return RelativeQuery(kind, threshold, beta)
