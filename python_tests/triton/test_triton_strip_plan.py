"""How the work of the strip kernel is cut: everything once, evenly, and in strips that are long."""

from __future__ import annotations

import pytest
import torch

from goal_kernels.backends.base import RELATIVE_KINDS
from goal_kernels.backends.gpu import configs
from goal_kernels.backends.gpu.configs import (
    LENGTH_LIMIT,
    LONGEST_STRIP,
    SHARED_LIMIT,
    StripPlan,
    StripTile,
    strip_plan,
    strip_tile,
)

SHAPES = [(1, 1), (2, 5000), (4096, 4096), (16384, 16384), (65536, 1000), (2**20, 2**20)]
ARCHITECTURES = (80, 86, 90, 100, 120)
ITEMS = 2048
"""Work items that are enough to balance; more are there where strips cannot be longer."""

SHARES = {
    2304: (61, 81),
    3072: (72, 87),
    5000: (86, 86),
    5120: (86, 86),
    6144: (96, 96),
    8192: (96, 96),
    16384: (96, 96),
    65536: (97, 97),
}
"""Percent of 132 multiprocessors that is used at least, by batch size: with tiles of 256 x 128, of
which 2304 pairs are 162, and with those of half of that or less."""


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
    assert plan.segments <= max(ITEMS // plan.blocks + 1, 1.5 * longest)


def share(plan: StripPlan, tiles: int, multiprocessors: int) -> float:
    """Tiles over the turns of all multiprocessors, each as long as the longest strip."""
    turns = -(-plan.segments * plan.blocks // multiprocessors)
    return tiles * plan.blocks / (turns * plan.segment_tiles * multiprocessors)


@pytest.mark.parametrize("size", SHARES)
@pytest.mark.parametrize("ids", [False, True], ids=["", "ids"])
@pytest.mark.parametrize("kind", RELATIVE_KINDS)
def test_an_h100_is_used(kind: str, ids: bool, size: int) -> None:
    tile = strip_tile(90, torch.bfloat16, kind, ids)
    plan = strip_plan(tile, size, size, 1024)
    least = SHARES[size][tile.rows * tile.columns < 256 * 128]
    assert 100 * share(plan, -(-size // tile.rows), 132) >= least


def slowest(tile: StripTile, shape: tuple[int, int], length: int, programs: int) -> float:
    """Tiles of the program that has most to do, and 0.4 for the end of each of its strips."""
    tiles, blocks = -(-shape[0] // tile.rows), -(-shape[1] // tile.columns)
    work = [0.0] * programs
    strips = [min(length, tiles - first) for first in range(0, tiles, length)] * blocks
    for item, strip in enumerate(strips):
        work[item % programs] += strip + 0.4
    return max(work)


@pytest.mark.parametrize("shape", [(2304, 2304), (3000, 15000), (7000, 7000), (9000, 2100)])
@pytest.mark.parametrize(("arch", "programs"), [(80, 108), (90, 132), (100, 148)])
def test_hardly_any_other_length_is_faster(
    arch: int, programs: int, shape: tuple[int, int]
) -> None:
    """By a tenth at most, which `DELAY` gives away for grids of another size."""
    for kind in RELATIVE_KINDS:
        tile = strip_tile(arch, torch.bfloat16, kind, ids=False)
        lengths = range(1, LONGEST_STRIP + 1)
        fastest = min(slowest(tile, shape, length, programs) for length in lengths)
        chosen = strip_plan(tile, *shape, 1024).segment_tiles
        assert slowest(tile, shape, chosen, programs) <= 1.1 * fastest


@pytest.mark.parametrize("shape", [(LENGTH_LIMIT, 1), (LENGTH_LIMIT, 1000), (2**24, 10)], ids=str)
def test_sums_of_columns_have_room(shape: tuple[int, int]) -> None:
    """A column adds up one total a segment, and 2^21 fit (`kernels/fixed_sums.py`)."""
    for arch in ARCHITECTURES:
        tile = strip_tile(arch, torch.bfloat16, "exponential", ids=False)
        assert strip_plan(tile, *shape, 1024).segments <= 2**21


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
