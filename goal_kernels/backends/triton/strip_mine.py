"""Launch of the mining kernel for large batches."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from goal_kernels.backends.base import Pairing
from goal_kernels.backends.triton.configs import FIXED, LAUNCH_OPTIONS, NO_SUMS
from goal_kernels.backends.triton.harvest import Harvest, MiningQuery, Side
from goal_kernels.backends.triton.plan import device_capability, forced_programs
from goal_kernels.backends.triton.prepared import Prepared, Wants
from goal_kernels.backends.triton.runtime import load_kernels
from goal_kernels.backends.triton.strip_configs import (
    StripPlan,
    StripTile,
    resum_constants,
    strip_constants,
    strip_plan,
    strip_tile,
)

LEAST_SLOPE = float(torch.finfo(torch.float32).tiny)
"""Stands for slope 0 in the strip kernel, where it multiplies -inf: 2^(slope * x) rounds to 1 for
every x below 1e30."""


def strip_wants(image: Tensor, query: MiningQuery) -> Wants:
    """What `mine_strips` needs of a prepared batch; image: as given to `prepare`."""
    return Wants(
        aligned=True,
        split=image.dtype == torch.float32 and query.precision == "high",
        ranges=True,
        counts=query.kind != "none",
    )


def mine_strips(
    prepared: Prepared,
    pairing: Pairing,
    query: MiningQuery,
    tile: StripTile | None = None,
    programs: int | None = None,
) -> Harvest:
    """Run `strip_kernel` and, with sums, `resum_kernel`.

    The workspace of relative sums is at most 64 partial sums per row, of 4 bytes (linear: 12), and
    one per column and segment of rows, see `strip_plan`.

    Args:
        prepared: as `strip_wants`.
        tile, programs: other than what suits the device, which changes no key and no count; sums
            do not depend on programs either.
    """
    image, text, _ = prepared.operands
    tile = tile or usual_tile(prepared, pairing, query.kind)
    row_bytes = image.shape[1] * image.element_size()
    plan = strip_plan(tile, image.shape[0], text.shape[0], row_bytes, query.kind)
    programs = programs or usual_programs(image.device)
    harvest = allocate(prepared, plan, query.kind)
    launch_strip(prepared, pairing, harvest, (tile, plan), query, programs)
    if query.kind != "none":
        launch_resum(prepared, pairing, harvest, query, (tile, programs))
    return harvest


def usual_tile(prepared: Prepared, pairing: Pairing, kind: str) -> StripTile:
    """The tile that suits the device."""
    image, ids = prepared.operands.image, pairing.image_ids is not None
    return strip_tile(_capability(image.device), image.dtype, kind, ids)


def usual_programs(device: torch.device) -> int:
    """As many programs as the device runs at a time."""
    return forced_programs() or _multiprocessors(device)


def allocate(prepared: Prepared, plan: StripPlan, kind: str) -> Harvest:
    """Uninitialised partial sums beside the keys and counters."""
    if kind == "none":
        return Harvest(Side(prepared.row_keys), Side(prepared.column_keys), NO_SUMS)

    def side(keys: Tensor, counts: Tensor | None, parts: int) -> Side:
        shape = (parts, len(keys))
        tops = keys.new_empty(shape) if kind == "linear" else None
        return Side(keys, prepared.facts.new_empty(shape), counts, tops, parts)

    rows = side(prepared.row_keys, prepared.row_counts, plan.groups)
    return Harvest(rows, side(prepared.column_keys, prepared.column_counts, plan.segments), FIXED)


def _operands(prepared: Prepared, tile: StripTile) -> tuple[Any, Any]:
    """What the kernels load blocks from."""
    image, text, _ = prepared.operands
    if not tile.descriptors:
        return image, text
    from triton.tools.tensor_descriptor import TensorDescriptor

    return (
        TensorDescriptor.from_tensor(image, [tile.rows, tile.width]),
        TensorDescriptor.from_tensor(text, [tile.columns, tile.width]),
    )


def _split(prepared: Prepared) -> bool:
    """Whether the operands are pairs of bfloat16 numbers."""
    return prepared.operands.image.dtype != prepared.image.dtype


def launch_strip(
    prepared: Prepared,
    pairing: Pairing,
    harvest: Harvest,
    cut: tuple[StripTile, StripPlan],
    query: MiningQuery,
    programs: int,
) -> None:
    """Run `strip_kernel`."""
    kernels = load_kernels()
    tile, plan = cut
    image, text, width = prepared.operands
    sizes = image.shape[0], text.shape[0], width, image.stride(0), text.stride(0)
    constants = strip_constants(
        tile, image.dtype, query.kind, _split(prepared), kernels.INTERPRETED
    )
    kernels.strip_kernel[(min(programs, plan.segments * plan.groups),)](
        *_operands(prepared, tile),
        *pairing,
        *(prepared.target_ranges, prepared.row_ranges, prepared.column_ranges),
        prepared.facts,
        *(harvest.rows.keys, harvest.columns.keys),
        *(harvest.rows.sums, harvest.columns.sums),
        *(harvest.rows.counts, harvest.columns.counts),
        *(harvest.rows.tops, harvest.columns.tops),
        *sizes,
        prepared.facts.shape[1],
        *(plan.segment_tiles, plan.group_blocks, plan.chunk),
        query.epsilon,
        max(query.slope, LEAST_SLOPE),
        **constants,
        num_warps=tile.warps,
        num_stages=tile.stages,
        **LAUNCH_OPTIONS,
    )


def launch_resum(
    prepared: Prepared,
    pairing: Pairing,
    harvest: Harvest,
    query: MiningQuery,
    cut: tuple[StripTile, int],
) -> None:
    """Run `resum_kernel`; cut: tile and programs."""
    kernels = load_kernels()
    tile, programs = cut
    image, text, width = prepared.operands
    rows, columns = image.shape[0], text.shape[0]
    anchor_tiles = -(-rows // tile.rows) - (-columns // tile.columns)
    kernels.resum_kernel[(min(programs, anchor_tiles),)](
        *_operands(prepared, tile),
        *pairing,
        prepared.facts,
        *(harvest.rows.keys, harvest.columns.keys),
        *(harvest.rows.sums, harvest.columns.sums),
        *(harvest.rows.counts, harvest.columns.counts),
        *(rows, columns, width, image.stride(0), text.stride(0)),
        prepared.facts.shape[1],
        query.epsilon,
        query.slope,
        **resum_constants(tile, image.dtype, query.kind, _split(prepared), kernels.INTERPRETED),
        num_warps=tile.warps,
        num_stages=tile.stages,
        **LAUNCH_OPTIONS,
    )


@functools.cache
def _multiprocessors(device: torch.device) -> int:
    """Of a GPU; 1 in the interpreter, which runs programs one after another."""
    if device.type != "cuda":
        return 1
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def _capability(device: torch.device) -> int:
    """Compute capability times ten."""
    major, minor = device_capability(device)
    return 10 * major + minor
