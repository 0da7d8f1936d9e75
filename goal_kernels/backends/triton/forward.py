"""The forward of a built-in objective on Triton: prepare, mine, weigh."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from goal_kernels.backends.answers import VECTORS, Forward
from goal_kernels.backends.base import Pairing, Scalars, SearchQuery, WeightStage
from goal_kernels.backends.triton import weigh_configs
from goal_kernels.backends.triton.configs import LAUNCH_OPTIONS
from goal_kernels.backends.triton.harvest import FLOAT32_MAX, Harvest, MiningQuery
from goal_kernels.backends.triton.invert import LIST_ROWS, fill_lists
from goal_kernels.backends.triton.mine import mine, rescores
from goal_kernels.backends.triton.prepared import Prepared
from goal_kernels.backends.triton.runtime import load_kernels
from goal_kernels.backends.triton.weigh_configs import WEIGH_WARPS, weigh_constants


class Pool(NamedTuple):
    """The positives of a batch as `relative.sorted_relative` looks them up, float64 [B] each.

    steps: binary digits of B.
    """

    ascending: Tensor | None = None
    prefix: Tensor | None = None
    steps: int = 0


def forward(
    image: Tensor, text: Tensor, pairing: Pairing, query: SearchQuery, stage: WeightStage
) -> Forward:
    """See `Backend.forward`; image and text have unit inner stride, stage is one that `weighs`.

    Three launches; beyond DENSE_LIMIT sorts come on top.
    """
    batch = image.shape[0]
    result = Forward(
        image.new_empty((), dtype=torch.float32),
        image.new_empty((VECTORS + 2 * query.normalize, batch), dtype=torch.float32),
        image.new_empty((2 + LIST_ROWS, batch), dtype=torch.int64),
    )
    mining = MiningQuery.build(query.relative, query.epsilon, query.beta, query.precision)
    scales = result.vectors[VECTORS:].view(-1) if query.normalize else None
    prepared, harvest = mine(image, text, pairing, mining, result.vectors[0], scales)
    weigh(prepared, harvest, mining, stage, result)
    return result


def weigh(
    prepared: Prepared, harvest: Harvest, query: MiningQuery, stage: WeightStage, result: Forward
) -> None:
    """Run `weigh_kernel`, which fills `result` but for positives and scales, then the lists."""
    image, text = prepared.image, prepared.text
    batch, width = image.shape
    dense = batch <= weigh_configs.DENSE_LIMIT
    rescore = rescores(prepared, query)
    constants = weigh_constants(
        (stage.triplet, stage.pair, stage.direction),
        (query.kind, harvest.form, rescore),
        len(result.vectors) > VECTORS,
        dense,
        width,
    )
    programs = -(-batch // constants["BLOCK"])
    pool = Pool()
    if not dense and query.kind != "none":
        pool = _pool(result.vectors[0], query.kind, stage.scalars.alpha)
    load_kernels().weigh_kernel[(programs,)](
        prepared.facts,
        *(harvest.rows.keys, harvest.columns.keys),
        *(harvest.rows.sums, harvest.columns.sums),
        *(harvest.rows.counts, harvest.columns.counts),
        *(harvest.rows.tops, harvest.columns.tops),
        *(image, text),
        *(pool.ascending, pool.prefix),
        *(result.vectors, result.hardest, result.value),
        image.new_empty(programs, dtype=torch.float64),
        prepared.ticket,
        *(batch, width, image.stride(0), text.stride(0)),
        *(harvest.rows.parts, harvest.columns.parts, prepared.facts.shape[1]),
        pool.steps,
        query.slope,
        *_finite(stage.scalars),
        **constants,
        num_warps=WEIGH_WARPS,
        **LAUNCH_OPTIONS,
    )
    if not dense:
        fill_lists(result.hardest)


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
