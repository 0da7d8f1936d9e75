"""Launch of the mining kernel that works tile by tile."""

from __future__ import annotations

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
from goal_kernels.backends.triton.harvest import Harvest, MiningQuery, Side
from goal_kernels.backends.triton.prepared import Prepared
from goal_kernels.backends.triton.runtime import load_kernels


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
