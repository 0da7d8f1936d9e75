"""How the work of the strip kernel is cut: everything once, and workspaces that stay small."""

from __future__ import annotations

import pytest
import torch

from goal_kernels.backends.base import RELATIVE_KINDS
from goal_kernels.backends.gpu import configs
from goal_kernels.backends.gpu.configs import (
    LONGEST_STRIP,
    SHARED_LIMIT,
    STRIP_ITEMS,
    strip_plan,
    strip_tile,
)

SHAPES = [(1, 1), (2, 5000), (4096, 4096), (16384, 16384), (65536, 1000), (2**20, 2**20)]
ARCHITECTURES = (80, 86, 90, 100, 120)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", RELATIVE_KINDS)
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_plans(arch: int, kind: str, shape: tuple[int, int]) -> None:
    rows, columns = shape
    tile = strip_tile(arch, torch.bfloat16, kind, ids=False)
    plan = strip_plan(tile, rows, columns, 1024)
    assert min(plan) >= 1
    covered = plan.segments * plan.segment_tiles * tile.rows
    assert rows <= covered < rows + plan.segment_tiles * tile.rows
    assert columns <= plan.blocks * tile.columns < columns + tile.columns
    longest = -(-rows // (LONGEST_STRIP * tile.rows))
    assert plan.segments <= max(2 * STRIP_ITEMS // plan.blocks + 1, longest)


def test_enough_items_to_balance() -> None:
    """At 16384 pairs every multiprocessor has several items."""
    for kind in RELATIVE_KINDS:
        tile = strip_tile(90, torch.bfloat16, kind, ids=False)
        plan = strip_plan(tile, 16384, 16384, 1024)
        assert plan.segments * plan.blocks >= 1000


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "tf32"])
def test_shipped_tiles(arch: int, dtype: torch.dtype) -> None:
    """Slices that can be counted, slices of 128 bytes, shared memory that is there."""
    for kind in RELATIVE_KINDS:
        for ids in (False, True):
            tile = strip_tile(arch, dtype, kind, ids)
            assert tile.width * dtype.itemsize == 128
            shared = tile.stages * (tile.rows + tile.columns) * 128
            assert shared <= (227 * 1024 if arch == 90 else SHARED_LIMIT)
            if tile.fragments:
                slices = tile.rows // tile.lanes
                assert slices in (2, 4)
                assert slices * LONGEST_STRIP <= 511, "what `columns` counts in 9 bits"


def test_rows_of_a_chunk_stay_in_the_cache() -> None:
    tile = strip_tile(90, torch.bfloat16, "none", ids=False)
    plan = strip_plan(tile, 16384, 16384, 1024)
    segment = plan.segment_tiles * tile.rows * 1024
    assert segment <= plan.chunk * segment <= configs.CHUNK_BYTES
