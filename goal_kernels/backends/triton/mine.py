"""From embeddings to what a mining kernel left, by the strategy that suits the batch."""

from __future__ import annotations

import torch
from torch import Tensor

from goal_kernels.backends.base import Pairing
from goal_kernels.backends.triton.harvest import Harvest, MiningQuery
from goal_kernels.backends.triton.plan import STRIP, choose_strategy
from goal_kernels.backends.triton.prepared import Prepared, Wants, prepare
from goal_kernels.backends.triton.strip_mine import mine_strips, strip_wants
from goal_kernels.backends.triton.tile_mine import mine_tiles


def mine(
    image: Tensor,
    text: Tensor,
    pairing: Pairing,
    query: MiningQuery,
    positive: Tensor | None,
    scales: Tensor | None = None,
    threshold: Tensor | None = None,
) -> tuple[Prepared, Harvest]:
    """Prepare a batch and run the mining kernel that suits it; arguments as of `prepare`."""
    strips = choose_strategy(image, text.shape[0], query.precision) == STRIP
    wants = strip_wants(image, query) if strips else Wants()
    prepared = prepare(image, text, pairing, wants, positive, scales, threshold)
    run = mine_strips if strips else mine_tiles
    return prepared, run(prepared, pairing, query)


def rescores(prepared: Prepared, query: MiningQuery) -> bool:
    """Whether similarities are mined from rounded rows, so that mined ones are recomputed."""
    if prepared.image.dtype == torch.float32:
        return query.precision != "highest"
    return prepared.scales is not None
