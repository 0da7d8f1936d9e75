"""The weight stage on Triton: from what was found to what a forward leaves."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from goal_kernels.backends.answers import VECTORS, Forward, Found
from goal_kernels.backends.base import Scalars, WeightStage
from goal_kernels.backends.triton import weigh_configs
from goal_kernels.backends.triton.configs import LAUNCH_OPTIONS
from goal_kernels.backends.triton.invert import LIST_ROWS, fill_lists
from goal_kernels.backends.triton.runtime import load_kernels
from goal_kernels.backends.triton.weigh_configs import WEIGH_WARPS, weigh_constants

FLOAT32_MAX = torch.finfo(torch.float32).max


class Pool(NamedTuple):
    """The positives of a batch as `relative.sorted_relative` looks them up, float64 [B] each.

    steps: binary digits of B.
    """

    ascending: Tensor | None = None
    prefix: Tensor | None = None
    steps: int = 0


def weigh_found(
    found: Found, relative: str, stage: WeightStage, ticket: Tensor | None = None
) -> Forward:
    """Weigh a square batch in one launch; beyond DENSE_LIMIT sorts come on top.

    Args: found: float32, of B images and B texts. relative: kind of the sums in it. stage: one that
        `weigh_configs.weighs`. ticket: int32 [1], zero, and zero again when the launch is over;
        None makes one, which is a launch more.
    Returns: `Forward` with inverse lists: hardest is [2 + LIST_ROWS, B].
    """
    batch, device = found.sizes[0], found.values.device
    dense = batch <= weigh_configs.DENSE_LIMIT
    constants = weigh_constants(stage.triplet, stage.pair, stage.direction, relative, dense)
    programs = -(-batch // constants["BLOCK"])
    normalized = len(found.scales_of_rows) > 0
    summed = relative != "none"
    pool = Pool() if dense or not summed else _pool(found.positive, relative, stage.scalars.alpha)
    result = Forward(
        found.values.new_empty(()),
        found.values.new_empty((VECTORS + 2 if normalized else VECTORS, batch)),
        torch.empty((2 + LIST_ROWS, batch), dtype=torch.int64, device=device),
    )
    load_kernels().weigh_kernel[(programs,)](
        found.values,
        found.indices,
        found.sums if summed else None,
        found.counts if summed else None,
        found.scales_of_rows if normalized else None,
        pool.ascending,
        pool.prefix,
        result.vectors,
        result.hardest,
        result.value,
        torch.empty(programs, dtype=torch.float64, device=device),
        torch.zeros(1, dtype=torch.int32, device=device) if ticket is None else ticket,
        batch,
        pool.steps,
        *_finite(stage.scalars),
        **constants,
        num_warps=WEIGH_WARPS,
        **LAUNCH_OPTIONS,
    )
    if not dense:
        fill_lists(result.hardest)
    return result


def _finite(scalars: Scalars) -> tuple[float, ...]:
    """The hyper-parameters within float32, so that a product of one with 0 stays 0."""
    return tuple(max(-FLOAT32_MAX, min(x, FLOAT32_MAX)) for x in scalars)


def _pool(positive: Tensor, relative: str, alpha: float) -> Pool:
    """Sorted positives and their prefix sums; positive: float32 [B]. No synchronisation."""
    ascending = positive.double().sort().values
    terms = ascending
    if relative == "exponential":
        terms = torch.exp(alpha * (ascending[0] - ascending))
    return Pool(ascending, terms.cumsum(0), positive.shape[0].bit_length())
