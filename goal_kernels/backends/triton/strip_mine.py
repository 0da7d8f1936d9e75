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
        aligned=strip_tile(_capability(image.device), image.dtype, query.kind, False).descriptors,
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
    operands = prepared.operands
    ids = pairing.image_ids is not None
    tile = tile or strip_tile(
        _capability(operands.image.device), operands.image.dtype, query.kind, ids
    )
    row_bytes = operands.image.shape[1] * operands.image.element_size()
    sizes = operands.image.shape[0], operands.text.shape[0]
    plan = strip_plan(tile, *sizes, row_bytes, query.kind)
    programs = (
        programs or forced_programs() or tile.programs * _multiprocessors(operands.image.device)
    )
    harvest = _allocate(prepared, plan, query.kind)
    _launch_strip(prepared, pairing, harvest, (tile, plan), query, programs)
    if query.kind != "none":
        _launch_resum(prepared, pairing, harvest, tile, query, programs)
    return harvest


def _allocate(prepared: Prepared, plan: StripPlan, kind: str) -> Harvest:
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


def _sizes(prepared: Prepared) -> tuple[int, ...]:
    image, text, width = prepared.operands
    strides = image.stride(0), text.stride(0)
    return image.shape[0], text.shape[0], width, *strides, prepared.facts.shape[1]


def _split(prepared: Prepared) -> bool:
    """Whether the operands are pairs of bfloat16 numbers."""
    return prepared.operands.image.dtype != prepared.image.dtype


def _launch_strip(
    prepared: Prepared,
    pairing: Pairing,
    harvest: Harvest,
    cut: tuple[StripTile, StripPlan],
    query: MiningQuery,
    programs: int,
) -> None:
    kernels = load_kernels()
    tile, plan = cut
    dtype, split = prepared.operands.image.dtype, _split(prepared)
    kernels.strip_kernel[(min(programs, plan.segments * plan.groups),)](
        *_operands(prepared, tile),
        *pairing,
        *(prepared.target_ranges, prepared.row_ranges, prepared.column_ranges),
        prepared.facts,
        *(harvest.rows.keys, harvest.columns.keys),
        *(harvest.rows.sums, harvest.columns.sums),
        *(harvest.rows.counts, harvest.columns.counts),
        *(harvest.rows.tops, harvest.columns.tops),
        *_sizes(prepared),
        *(plan.segment_tiles, plan.group_blocks, plan.chunk),
        query.epsilon,
        max(query.slope, LEAST_SLOPE),
        **strip_constants(tile, dtype, query.kind, split, kernels.INTERPRETED),
        num_warps=tile.warps,
        num_stages=tile.stages,
        **LAUNCH_OPTIONS,
    )


def _launch_resum(
    prepared: Prepared,
    pairing: Pairing,
    harvest: Harvest,
    tile: StripTile,
    query: MiningQuery,
    programs: int,
) -> None:
    kernels = load_kernels()
    dtype, split = prepared.operands.image.dtype, _split(prepared)
    rows, columns = len(harvest.rows.keys), len(harvest.columns.keys)
    anchor_tiles = -(-rows // tile.rows) - (-columns // tile.columns)
    kernels.resum_kernel[(min(programs, anchor_tiles),)](
        *_operands(prepared, tile),
        *pairing,
        prepared.facts,
        *(harvest.rows.keys, harvest.columns.keys),
        *(harvest.rows.sums, harvest.columns.sums),
        *(harvest.rows.counts, harvest.columns.counts),
        *_sizes(prepared),
        query.epsilon,
        query.slope,
        **resum_constants(tile, dtype, query.kind, split, kernels.INTERPRETED),
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
