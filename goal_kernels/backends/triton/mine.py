"""Launch of the mining kernels: packed keys of all anchors, and their relative sums."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from goal_kernels.backends.base import Pairing
from goal_kernels.backends.triton.configs import (
    LAUNCH_OPTIONS,
    NO_SUMS,
    STATE_FIELDS,
    STATES,
    mine_tile,
    tile_constants,
)
from goal_kernels.backends.triton.prepared import Prepared, Wants, prepare
from goal_kernels.backends.triton.runtime import load_kernels

LOG2_E = 1.0 / math.log(2.0)
FLOAT32_MAX = torch.finfo(torch.float32).max


class MiningQuery(NamedTuple):
    """What to mine. kind, precision: as in `SearchQuery`.

    epsilon: the threshold of the sums is the first fact minus this. slope: beta log2(e).
    """

    kind: str
    epsilon: float
    slope: float
    precision: str

    @classmethod
    def build(cls, kind: str, epsilon: float, beta: float, precision: str) -> MiningQuery:
        """A finite slope keeps slope * 0 = 0 for every beta a float64 can hold."""
        return cls(kind, epsilon, min(float(beta) * LOG2_E, FLOAT32_MAX), precision)


class Side(NamedTuple):
    """What a mining kernel left of the rows, or of the columns; see `finish.py`.

    parts: how many partial sums there are of every anchor.
    """

    keys: Tensor
    sums: Tensor | None = None
    counts: Tensor | None = None
    tops: Tensor | None = None
    parts: int = 0


class Harvest(NamedTuple):
    """What a mining kernel left. form: NO_SUMS, STATES or FIXED."""

    rows: Side
    columns: Side
    form: int


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
    prepared = prepare(image, text, pairing, Wants(), positive, scales, threshold)
    return prepared, mine_tiles(prepared, pairing, query)


def rescores(prepared: Prepared, query: MiningQuery) -> bool:
    """Whether similarities are mined from rounded rows, so that mined ones are recomputed."""
    if prepared.image.dtype == torch.float32:
        return query.precision != "highest"
    return prepared.scales is not None


def mine_tiles(prepared: Prepared, pairing: Pairing, query: MiningQuery) -> Harvest:
    """Run `tile_kernel`. The workspace of relative sums is at most 32 states per anchor."""
    image, text, width = prepared.operands
    rows, columns = image.shape[0], text.shape[0]
    tile = mine_tile(image.dtype, query.precision, query.kind, max(rows, columns))
    row_groups, column_groups = tile.groups(rows, columns)
    harvest = Harvest(Side(prepared.row_keys), Side(prepared.column_keys), NO_SUMS)
    if query.kind != "none":
        harvest = Harvest(
            Side(prepared.row_keys, _states(image, column_groups, rows), parts=column_groups),
            Side(prepared.column_keys, _states(text, row_groups, columns), parts=row_groups),
            STATES,
        )
    kernels = load_kernels()
    kernels.tile_kernel[(column_groups, row_groups)](
        image,
        text,
        pairing.target,
        pairing.image_ids,
        pairing.text_ids,
        None if query.kind == "none" else prepared.facts,
        *(prepared.row_keys, prepared.column_keys),
        *(harvest.rows.sums, harvest.columns.sums),
        *(rows, columns, width),
        *(image.stride(0), text.stride(0)),
        prepared.facts.shape[1],
        query.slope,
        query.epsilon,
        **tile_constants(tile, image.dtype, query.precision, query.kind, kernels.INTERPRETED),
        num_warps=tile.warps,
        num_stages=tile.stages,
        **LAUNCH_OPTIONS,
    )
    return harvest


def _states(like: Tensor, slots: int, length: int) -> Tensor:
    """Uninitialised workspace of partial states, int32 [STATE_FIELDS, slots, length]."""
    return like.new_empty((STATE_FIELDS, slots, length), dtype=torch.int32)
