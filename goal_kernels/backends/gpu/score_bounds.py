"""What ranking compares with, and the bound that makes a fast product safe to count by.

A fast product S of rows x and y lies within gamma |x| |y| of their float64 product. It sums n
products, D for 16-bit values, which multiply exactly, and 3 D where float32 is split in two parts.
A tensor core adds k >= 4 products and the sum so far in one step, each cut to 24 bits of the
largest of them, and cuts the result; cutting loses up to 2^-23 of a number, so a step loses up to
k + 2 <= 2 k of these, in any summation order: no sum on the way exceeds |x| |y|, by
Cauchy-Schwarz. Splitting a number leaves at most u of it to the second part and drops at most u of
that: three products of u^2 |x| |y| are missing. u is 2^-10 for parts of 11 bits that are cut
(tf32), 2^-8 for parts of 8 bits that are rounded (bfloat16). Hence

    gamma = SAFETY (2 n 2^-23 / (1 - 2 n 2^-23) + 3 u^2)

Numbers below the least normal float32, `tiny`, may be dropped: some 8 D operations lose up to tiny
each, and a value of x up to 3 tiny times one of y. Both fit into gamma (|x| + s) (|y| + s) with
s^2 = 8 D tiny / gamma. Nothing overflows where |x| |y| <= max / 4; of longer rows, and of those
that are not finite, nothing is assumed and every pair is decided in float64.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

BOUND_UNIT = 128
"""Queries that share a bound, as in the kernels: csrc/cuda/rank.h and kernels/rank.py."""

CENTRE, UNKNOWN, LONGEST = 1, 2, 3
"""Fields, see kernels/rank.py; those from LONGEST on are of all queries of a unit."""

FLOAT32 = torch.finfo(torch.float32)
LONGEST_ROW = math.sqrt(FLOAT32.max) / 2

SAFETY = 1.25
"""Over the bound, for its own roundings, those of the comparison and of the float64 products."""

CUT = 2.0**-22
"""Lost by a product on its way into the sum, of |x| |y|: two cuts."""

TF32_LOSS = 3 * 2.0**-20
BFLOAT16_LOSS = 3 * 2.0**-16
"""Products that a split of float32 into such parts leaves out, of |x| |y|."""

RESOLUTION = 2.0**-21
"""Of a score: the step to the next float32 is at most 2^-23 of it, the rest is for roundings."""


def product_error(dtype: torch.dtype, width: int, split_loss: float = TF32_LOSS) -> float:
    """gamma for embeddings [*, width]; inf where the bound says nothing.

    split_loss: what splitting float32 leaves out, of |x| |y|.
    """
    split = dtype == torch.float32
    lost = CUT * width * (3 if split else 1)
    return SAFETY * (lost / (1 - lost) + split_loss * split) if lost < 1 else math.inf


def make_bounds(best: Tensor, length: Tensor, width: int, error: float) -> Tensor:
    """Score bounds of one side, float32 [5, units, BOUND_UNIT], see kernels/rank.py.

    Args:
        best: float32 [L], comparable, score of the best positive of every query.
        length: float64 [L], Euclidean length of its row, of `width` elements.
        error: of `product_error`.
    """
    # This way round, NaN is unknown.
    known = (length <= LONGEST_ROW) & (error < math.inf)
    reach = math.sqrt(error) * (length + math.sqrt(8 * width * FLOAT32.tiny / error))
    # No known pair scores as far from 0 as this; what lies there needs no resolution.
    far = FLOAT32.max / 2
    fields = torch.stack(
        [
            best,
            best.clamp(min=-far),
            (~known).float(),
            torch.where(known, reach, 0.0).float(),
            torch.where(known & (best.abs() < far), best.abs() * RESOLUTION, 0.0),
        ]
    )
    bounds = F.pad(fields, (0, -len(best) % BOUND_UNIT)).view(len(fields), -1, BOUND_UNIT)
    bounds[LONGEST:] = bounds[LONGEST:].amax(dim=2, keepdim=True)
    return bounds


def any_unknown(image_bounds: Tensor, text_bounds: Tensor) -> Tensor:
    """Whether nothing is known of some row, int32 0-d."""
    return (image_bounds[UNKNOWN].amax() + text_bounds[UNKNOWN].amax() > 0).to(torch.int32)
