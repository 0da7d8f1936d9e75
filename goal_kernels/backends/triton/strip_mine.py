"""Launch of the mining kernel for large batches."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor

from goal_kernels.backends.base import Pairing
from goal_kernels.backends.triton.configs import LAUNCH_OPTIONS
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


class StripBatch(NamedTuple):
    """A prepared batch.

    image [N, width], text [M, width]: what is multiplied; base and row stride multiples of 16
        bytes, inner stride 1. split: float32 rows as bfloat16 [high | low], [., 2 width].
    facts: float32 [3, parts], see `facts`. row_keys [N], column_keys [M]: int64, all NOTHING.
    row_counts [N], column_counts [M]: int32 zeros where sums are wanted, else None.
    target_ranges, row_ranges, column_ranges: int64 [2, blocks], smallest and largest of every 128
        existing targets of rows, image ids, text ids; None without targets, without ids.
    """

    image: Tensor
    text: Tensor
    width: int
    split: bool
    facts: Tensor
    row_keys: Tensor
    column_keys: Tensor
    row_counts: Tensor | None
    column_counts: Tensor | None
    target_ranges: Tensor | None
    row_ranges: Tensor | None
    column_ranges: Tensor | None


class StripSums(NamedTuple):
    """FIXED relative sums, see `finish.py`; None where there are none.

    row_sums float32 [groups, N], column_sums [segments, M]; row_tops, column_tops int64 likewise,
    of the linear kind. Groups and segments depend on the shape of the batch alone.
    """

    row_sums: Tensor | None = None
    column_sums: Tensor | None = None
    row_tops: Tensor | None = None
    column_tops: Tensor | None = None


def mine_strips(
    batch: StripBatch,
    pairing: Pairing,
    kind: str,
    epsilon: float,
    slope: float,
    tile: StripTile | None = None,
    programs: int | None = None,
) -> StripSums:
    """Raise the keys of all anchors, add up their sums and counts.

    Args:
        kind: one of RELATIVE_KINDS. epsilon: the threshold of the sums is the first fact minus
            this. slope: beta log2(e), finite.
        tile, programs: other than what suits the device, which changes no key and no count; sums
            do not depend on programs either.
    """
    image, text = batch.image, batch.text
    ids = pairing.image_ids is not None
    tile = tile or strip_tile(_capability(image.device), image.dtype, kind, ids)
    row_bytes = image.shape[1] * image.element_size()
    plan = strip_plan(tile, image.shape[0], text.shape[0], row_bytes, kind)
    programs = programs or tile.programs * _multiprocessors(image.device)
    sums = _allocate(batch, plan, kind)
    _launch_strip(batch, pairing, sums, tile, plan, (kind, epsilon, slope), programs)
    if kind != "none":
        _launch_resum(batch, pairing, sums, tile, (kind, epsilon, slope), programs)
    return sums


def _allocate(batch: StripBatch, plan: StripPlan, kind: str) -> StripSums:
    """Uninitialised partial sums."""
    if kind == "none":
        return StripSums()
    shapes = (plan.groups, batch.image.shape[0]), (plan.segments, batch.text.shape[0])
    row_sums, column_sums = (batch.facts.new_empty(shape) for shape in shapes)
    if kind != "linear":
        return StripSums(row_sums, column_sums)
    return StripSums(row_sums, column_sums, *(batch.row_keys.new_empty(shape) for shape in shapes))


def _operands(batch: StripBatch, tile: StripTile) -> tuple[Any, Any]:
    """What the kernels load blocks from."""
    if not tile.descriptors:
        return batch.image, batch.text
    from triton.tools.tensor_descriptor import TensorDescriptor

    return (
        TensorDescriptor.from_tensor(batch.image, [tile.rows, tile.width]),
        TensorDescriptor.from_tensor(batch.text, [tile.columns, tile.width]),
    )


def _sizes(batch: StripBatch) -> tuple[int, ...]:
    image, text = batch.image, batch.text
    strides = image.stride(0), text.stride(0)
    return image.shape[0], text.shape[0], batch.width, *strides, batch.facts.shape[1]


def _launch_strip(
    batch: StripBatch,
    pairing: Pairing,
    sums: StripSums,
    tile: StripTile,
    plan: StripPlan,
    query: tuple[str, float, float],
    programs: int,
) -> None:
    kernels = load_kernels()
    from goal_kernels.backends.triton.strip import strip_kernel

    kind, epsilon, slope = query
    strip_kernel[(min(programs, plan.segments * plan.groups),)](
        *_operands(batch, tile),
        *pairing,
        *(batch.target_ranges, batch.row_ranges, batch.column_ranges),
        batch.facts,
        *(batch.row_keys, batch.column_keys),
        *(sums.row_sums, sums.column_sums),
        *(batch.row_counts, batch.column_counts),
        *(sums.row_tops, sums.column_tops),
        *_sizes(batch),
        *(plan.segment_tiles, plan.group_blocks, plan.chunk),
        epsilon,
        max(slope, LEAST_SLOPE),
        **strip_constants(tile, batch.image.dtype, kind, batch.split, kernels.INTERPRETED),
        num_warps=tile.warps,
        num_stages=tile.stages,
        **LAUNCH_OPTIONS,
    )


def _launch_resum(
    batch: StripBatch,
    pairing: Pairing,
    sums: StripSums,
    tile: StripTile,
    query: tuple[str, float, float],
    programs: int,
) -> None:
    kernels = load_kernels()
    from goal_kernels.backends.triton.resum import resum_kernel

    kind, epsilon, slope = query
    rows, columns = batch.image.shape[0], batch.text.shape[0]
    anchor_tiles = -(-rows // tile.rows) - (-columns // tile.columns)
    resum_kernel[(min(programs, anchor_tiles),)](
        *_operands(batch, tile),
        *pairing,
        batch.facts,
        *(batch.row_keys, batch.column_keys),
        *(sums.row_sums, sums.column_sums),
        *(batch.row_counts, batch.column_counts),
        *_sizes(batch),
        epsilon,
        slope,
        **resum_constants(tile, batch.image.dtype, kind, batch.split, kernels.INTERPRETED),
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


@functools.cache
def _capability(device: torch.device) -> int:
    """Compute capability times ten; in the interpreter that of the tiles with TMA."""
    if device.type != "cuda":
        return 90
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor
