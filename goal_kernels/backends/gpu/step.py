"""A whole step on a GPU, from embeddings to gradients. Importing this imports Triton.

    forward     prepare   positives, lengths, what is true of the batch, empty keys
                mine      every tile of S: hardest negatives, relative sums
                weigh     weights of both directions, R+, the value, inverse lists
    backward    gather    both gradients

`search` stops after mining and writes what was found. Each function here runs a few kernels one
after the other; nothing waits for the device and no size depends on data, so a step can be captured
in a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from goal_kernels.backends.answers import VECTORS, Forward, Found
from goal_kernels.backends.base import Pairing, SearchQuery, WeightStage
from goal_kernels.backends.gpu.configs import FIXED, LIST_ROWS, has_fused_weights
from goal_kernels.backends.gpu.hopper import hopper_wants, mine_hopper
from goal_kernels.backends.gpu.kernels.gather import gather, with_lists
from goal_kernels.backends.gpu.kernels.prepare import prepare
from goal_kernels.backends.gpu.kernels.rank import count_ranks
from goal_kernels.backends.gpu.kernels.results import finish
from goal_kernels.backends.gpu.kernels.resum import resum
from goal_kernels.backends.gpu.kernels.screen import mine_screened, screen_wants
from goal_kernels.backends.gpu.kernels.strip import mine_strips, strip_wants
from goal_kernels.backends.gpu.kernels.tile import mine_tiles, tile_wants
from goal_kernels.backends.gpu.kernels.weigh import weigh
from goal_kernels.backends.gpu.plan import HOPPER, SCREEN, STRIP, TILE, choose_strategy
from goal_kernels.backends.gpu.records import MiningQuery, MiningResult, Prepared, Wants

__all__ = ["backward", "count_ranks", "forward", "search"]

Miner = Callable[[Prepared, Pairing, MiningQuery], tuple[Prepared, MiningResult]]

MINERS: dict[str, tuple[Callable[[Tensor, MiningQuery], Wants], Miner]] = {
    TILE: (tile_wants, mine_tiles),
    STRIP: (strip_wants, mine_strips),
    SCREEN: (screen_wants, mine_screened),
    HOPPER: (hopper_wants, mine_hopper),
}
"""What each strategy needs of a prepared batch, and its mining kernel."""


def mine(
    image: Tensor,
    text: Tensor,
    pairing: Pairing,
    query: MiningQuery,
    strategy: str,
    positive: Tensor,
    scales: Tensor | None,
) -> tuple[Prepared, MiningResult]:
    """Prepare a batch and run the mining kernel of a strategy; other arguments as of `prepare`."""
    wants, miner = MINERS[choose_strategy(image, len(text), query, strategy)]
    prepared = prepare(image, text, pairing, wants(image, query), positive, scales)
    prepared, result = miner(prepared, pairing, query)
    if result.form == FIXED:
        resum(prepared, pairing, result, query)
    return prepared, result


def search(
    image: Tensor, text: Tensor, pairing: Pairing, query: SearchQuery, strategy: str
) -> Found:
    """See `Backend.search`; image and text have unit inner stride. strategy: AUTO or one."""
    sizes = image.shape[0], text.shape[0]
    found = Found.empty(image, sizes, torch.float32, query.relative, query.normalize)
    scales = found.scales_of_rows if query.normalize else None
    what = MiningQuery.build(query.relative, query.epsilon, query.beta, query.precision)
    prepared, result = mine(image, text, pairing, what, strategy, found.values, scales)
    finish(prepared, result, what, found)
    return found


def forward(
    image: Tensor,
    text: Tensor,
    pairing: Pairing,
    query: SearchQuery,
    stage: WeightStage,
    strategy: str,
) -> Forward:
    """See `Backend.forward`; otherwise as `search`.

    An element that `weigh_kernel` does not have is weighed in torch.
    """
    if not has_fused_weights(stage):
        found = search(image, text, pairing, query, strategy)
        packed = Forward.pack(found, stage.weigh(found.positive, found.mined))
        return packed._replace(hardest=with_lists(packed.hardest))
    result = Forward.empty(image, torch.float32, query.normalize, LIST_ROWS)
    scales = result.vectors[VECTORS:].view(-1) if query.normalize else None
    what = MiningQuery.build(query.relative, query.epsilon, query.beta, query.precision)
    prepared, mined = mine(image, text, pairing, what, strategy, result.vectors[0], scales)
    weigh(prepared, mined, what, stage, result)
    return result


def backward(
    grad_loss: Tensor,
    image: Tensor,
    text: Tensor,
    vectors: Tensor,
    hardest: Tensor,
    need: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    """See `Backend.backward`. Normalised rows are not made; inverse lists are, where missing."""
    state = vectors.contiguous(), with_lists(hardest)
    return gather(grad_loss, (image, text), *state, need)
