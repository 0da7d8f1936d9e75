"""From embeddings to what a mining kernel left, by the strategy that suits the batch."""

from __future__ import annotations

import torch
from torch import Tensor

from goal_kernels.backends.base import Pairing
from goal_kernels.backends.triton.harvest import Harvest, MiningQuery
from goal_kernels.backends.triton.plan import STRIP, TILE, choose_strategy
from goal_kernels.backends.triton.prepared import Prepared, Wants, prepare
from goal_kernels.backends.triton.strip_mine import mine_strips, strip_wants
from goal_kernels.backends.triton.tile_mine import mine_tiles

MINERS = {TILE: mine_tiles, STRIP: mine_strips}
"""The mining kernels by strategy."""


def mine(
    image: Tensor,
    text: Tensor,
    pairing: Pairing,
    query: MiningQuery,
    positive: Tensor,
    scales: Tensor | None,
) -> tuple[Prepared, Harvest]:
    """Prepare a batch and run the mining kernel that suits it; arguments as of `prepare`."""
    strategy = choose_strategy(image, text.shape[0], query.precision)
    wants = Wants() if strategy == TILE else strip_wants(image, query)
    prepared = prepare(image, text, pairing, wants, positive, scales)
    return prepared, MINERS[strategy](prepared, pairing, query)


def rescores(prepared: Prepared, query: MiningQuery) -> bool:
    """Whether similarities are mined from rounded rows, so that mined ones are recomputed."""
    if prepared.image.dtype == torch.float32:
        return query.precision != "highest"
    return prepared.scales is not None
