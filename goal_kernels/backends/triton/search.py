"""Positives and hardest negatives of a batch: prepare, mine, finish, three launches."""

from __future__ import annotations

import torch
from torch import Tensor

from goal_kernels.backends.answers import Found
from goal_kernels.backends.base import Pairing, SearchQuery
from goal_kernels.backends.triton.configs import LAUNCH_OPTIONS, WARPS, finish_constants
from goal_kernels.backends.triton.harvest import Harvest, MiningQuery
from goal_kernels.backends.triton.mine import mine, rescores
from goal_kernels.backends.triton.prepared import Prepared
from goal_kernels.backends.triton.runtime import load_kernels


def search(image: Tensor, text: Tensor, pairing: Pairing, query: SearchQuery) -> Found:
    """See `Backend.search`; image and text have unit inner stride."""
    found = _allocate(image, text, query.relative, query.normalize)
    scales = found.scales_of_rows if query.normalize else None
    mining = MiningQuery.build(query.relative, query.epsilon, query.beta, query.precision)
    prepared, harvest = mine(image, text, pairing, mining, found.values, scales)
    finish(prepared, harvest, mining, found)
    return found


def finish(prepared: Prepared, harvest: Harvest, query: MiningQuery, found: Found) -> None:
    """Run `finish_kernel`, which fills `found` but for positives and scales."""
    image, text = prepared.image, prepared.text
    (rows, width), columns = image.shape, text.shape[0]
    constants = finish_constants(query.kind, harvest.form, rescores(prepared, query), width)
    block = constants["BLOCK"]
    load_kernels().finish_kernel[(-(-rows // block) - (-columns // block),)](
        found.values,
        found.indices,
        *((None, None) if query.kind == "none" else (found.sums, found.counts)),
        prepared.facts,
        *(harvest.rows.keys, harvest.columns.keys),
        *(harvest.rows.sums, harvest.columns.sums),
        *(harvest.rows.counts, harvest.columns.counts),
        *(harvest.rows.tops, harvest.columns.tops),
        *(image, text, prepared.scales),
        *(rows, columns, width),
        *(image.stride(0), text.stride(0)),
        *(harvest.rows.parts, harvest.columns.parts),
        prepared.facts.shape[1],
        query.slope,
        query.epsilon,
        **constants,
        num_warps=WARPS,
        **LAUNCH_OPTIONS,
    )


def _allocate(image: Tensor, text: Tensor, kind: str, normalize: bool) -> Found:
    """Uninitialised results."""
    anchors = image.shape[0] + text.shape[0]
    summed = 0 if kind == "none" else anchors
    return Found(
        image.new_empty(image.shape[0] + anchors, dtype=torch.float32),
        image.new_empty(anchors, dtype=torch.int64),
        image.new_empty(summed, dtype=torch.float32),
        image.new_empty(summed, dtype=torch.int64),
        image.new_empty(anchors if normalize else 0, dtype=torch.float32),
    )
