"""Ranking by the CUDA stages: score the positives, then count what beats them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from goal_kernels.backends.cuda.kernels import (
    DTYPES,
    PACK,
    Kernels,
    is_aligned,
    matrix_argument,
    vector,
)
from goal_kernels.backends.rank_bars import (
    BFLOAT16_LOSS,
    CENTRE,
    UNKNOWN,
    make_bars,
    product_error,
)
from goal_kernels.backends.scores import RankCounts, best_positives, comparable

WIDEST = 8192
"""Where no product tells, a warp computes 4096 scores while another waits for it, and a wait that
lasts too long counts as a fault."""


def count_ranks(kernels: Kernels, image: Tensor, text: Tensor, owner: Tensor) -> RankCounts:
    """`Backend.rank`. owner: int64 [M], row of each text's image."""
    image, text = (_aligned(rows) for rows in kernels.rows(image, text))
    width, device = image.shape[1], image.device
    if width > WIDEST:
        raise ValueError(
            f"image: expected at most {WIDEST} elements a row, got {width}; use backend='triton'"
        )
    images, texts = image.shape[0], text.shape[0]
    numbers = torch.empty(0, dtype=torch.int64, device=device)
    split = image.dtype == torch.float32
    operands = (image, text)
    if split:
        operands = (_operand(image), _operand(text))
    positive = torch.empty(texts, dtype=torch.float32, device=device)
    squares = [torch.empty(n, dtype=torch.float64, device=device) for n in (images, texts)]
    scored = kernels.structure(
        "Score",
        image=matrix_argument(image),
        text=matrix_argument(text),
        dtype=DTYPES[image.dtype],
        width=width,
        owner=vector(owner, "text_to_image", numbers, texts),
        image_squares=squares[0],
        text_squares=squares[1],
        positive=positive,
        image_operand=operands[0] if split else None,
        text_operand=operands[1] if split else None,
    )
    kernels.run("score", scored, device)
    text_best = comparable(positive)
    best = best_positives(text_best, owner, images), text_best
    error = product_error(image.dtype, width, BFLOAT16_LOSS)
    bars = [_bars(*side, width, error) for side in zip(best, squares, strict=True)]
    counts = [torch.zeros((2, n), dtype=torch.int32, device=device) for n in (images, texts)]
    rank = kernels.structure(
        "Rank",
        image=matrix_argument(operands[0]),
        text=matrix_argument(operands[1]),
        operand="float16" if image.dtype == torch.float16 else "bfloat16",
        width=width,
        split=split,
        programs=kernels.programs,
        scored=scored,
        image_bars=bars[0],
        text_bars=bars[1],
        image_counts=counts[0],
        text_counts=counts[1],
    )
    kernels.run("rank", rank, device)
    return RankCounts(positive, *counts[0].long(), *counts[1].long())


def _aligned(rows: Tensor) -> Tensor:
    """The rows, or a copy of them, padded with zeros, that the copy engine can read."""
    return rows if is_aligned(rows) else F.pad(rows, (0, -rows.shape[1] % PACK)).contiguous()


def _operand(rows: Tensor) -> Tensor:
    """Room for the two bfloat16 parts of every row."""
    length, width = rows.shape
    return torch.empty((length, 2 * width), dtype=torch.bfloat16, device=rows.device)


def _bars(best: Tensor, squares: Tensor, width: int, error: float) -> Tensor:
    """`make_bars` as csrc/cuda/rank.h describes them. best float32, squares float64: [L]."""
    bars = make_bars(best, squares.sqrt(), width, error)
    unknown = bars[UNKNOWN] > 0
    bars[CENTRE].masked_fill_(unknown, torch.nan)
    bars[UNKNOWN] = unknown.any(dim=1, keepdim=True).to(bars.dtype)
    return bars
