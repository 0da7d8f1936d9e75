"""Tile shapes of the strip kernel and how its work is cut; needs no Triton.

Shapes are the largest that keep the loop over tiles free of spilled registers. That they are the
fastest is not measured on a GPU.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from goal_kernels.backends.triton.configs import KIND_CODES, PARTS

ROW_PARTS = 64
"""Most partial sums of a row: 4 bytes each, 12 of the linear kind."""

ITEMS = 1024
"""Work items aimed at: a few for every multiprocessor, so that the last round costs little."""

SHORTEST_STRIP = 2
"""Row tiles of a segment, if there are that many: columns are published once a strip."""

LONGEST_STRIP = 64
"""Row tiles of a segment; with 4 slices each, 256 of the 511 that `columns` can count."""

CHUNK_BYTES = 8 * 2**20
"""Rows that concurrent programs read together: they stay in the L2 cache."""


class StripTile(NamedTuple):
    """Shape of a similarity tile, the warps and pipeline stages that compute it, and how.

    descriptors: read by TMA; by pointers and asynchronous copies otherwise. fragments: a column is
    spread over the lanes of all warps, as `slices.py` says.
    """

    rows: int
    columns: int
    width: int
    warps: int
    stages: int
    descriptors: bool = True
    fragments: bool = True

    @property
    def lanes(self) -> int:
        """LANES of `slices.py`."""
        return 8 * self.warps if self.fragments else 1


HOPPER = {
    ("none", False): StripTile(256, 128, 64, warps=8, stages=4),
    ("none", True): StripTile(128, 128, 64, warps=8, stages=4),
    ("exponential", False): StripTile(128, 128, 64, warps=8, stages=4),
    ("exponential", True): StripTile(256, 64, 64, warps=8, stages=4),
    ("linear", False): StripTile(256, 64, 64, warps=8, stages=4),
    ("linear", True): StripTile(128, 64, 64, warps=8, stages=4),
}
"""9.0, by kind of sums and whether there are ids: comparing them takes registers too."""

AMPERE = {
    ("none", False): StripTile(128, 128, 64, warps=8, stages=3, descriptors=False),
    ("none", True): StripTile(128, 128, 64, warps=8, stages=3, descriptors=False),
    ("exponential", False): StripTile(128, 64, 64, warps=4, stages=3, descriptors=False),
    ("exponential", True): StripTile(128, 64, 64, warps=4, stages=3, descriptors=False),
    ("linear", False): StripTile(128, 64, 64, warps=8, stages=3, descriptors=False),
    ("linear", True): StripTile(128, 64, 64, warps=8, stages=3, descriptors=False),
}
"""8.x; within the shared memory of 8.6 and 8.9."""

BLACKWELL = {
    ("none", False): StripTile(128, 64, 64, warps=8, stages=3, fragments=False),
    ("none", True): StripTile(64, 64, 64, warps=8, stages=3, fragments=False),
    ("exponential", False): StripTile(64, 64, 64, warps=8, stages=3, fragments=False),
    ("exponential", True): StripTile(64, 64, 64, warps=8, stages=3, fragments=False),
    ("linear", False): StripTile(128, 32, 64, warps=8, stages=3, fragments=False),
    ("linear", True): StripTile(128, 32, 64, warps=8, stages=3, fragments=False),
}
"""10.0, where a thread holds rows of the accumulator and columns are the expensive direction."""


def strip_tile(capability: int, dtype: torch.dtype, kind: str, ids: bool) -> StripTile:
    """The tile for a compute capability (times ten) and operands of `dtype`, float32 for tf32."""
    # 12.x multiplies by the instructions of 8.x, whose fragments its accumulators have.
    table = {9: HOPPER, 10: BLACKWELL, 11: BLACKWELL}.get(capability // 10, AMPERE)
    tile = table[kind, ids]
    return tile._replace(width=tile.width * 2 // dtype.itemsize)


def strip_constants(
    tile: StripTile, dtype: torch.dtype, kind: str, split: bool, upcast: bool
) -> dict[str, object]:
    """Compile-time arguments of `strip_kernel`. upcast: widen operands before the product."""
    constants = resum_constants(tile, dtype, kind, split, upcast)
    return {"LANES": tile.lanes, **constants}


def resum_constants(
    tile: StripTile, dtype: torch.dtype, kind: str, split: bool, upcast: bool
) -> dict[str, object]:
    """Compile-time arguments of `resum_kernel`."""
    return {
        "KIND": KIND_CODES[kind],
        "DESCRIPTORS": tile.descriptors,
        "SPLIT": split,
        "PRECISION": "tf32" if dtype == torch.float32 else "ieee",
        "UPCAST": upcast,
        "PARTS": PARTS,
        "BLOCK_ROWS": tile.rows,
        "BLOCK_COLUMNS": tile.columns,
        "BLOCK_WIDTH": tile.width,
    }


class StripPlan(NamedTuple):
    """How the similarity matrix is cut; see `strip_kernel`.

    segment_tiles: row tiles of a segment. group_blocks: column blocks of a group. chunk: segments
    that are walked together. segments, groups: how many there are.
    """

    segment_tiles: int
    group_blocks: int
    chunk: int
    segments: int
    groups: int


def strip_plan(tile: StripTile, rows: int, columns: int, row_bytes: int, kind: str) -> StripPlan:
    """Cut by shape alone, so that sums do not depend on the device.

    Partial sums take 4 bytes (linear 12) * (groups * rows + segments * columns), groups at most
    ROW_PARTS, segments at most max(ITEMS / groups, rows / LONGEST_STRIP tiles).
    """
    tiles, blocks = -(-rows // tile.rows), -(-columns // tile.columns)
    group_blocks = 1 if kind == "none" else -(-blocks // ROW_PARTS)
    groups = -(-blocks // group_blocks)
    cached = max(1, CHUNK_BYTES // (tile.rows * row_bytes))
    wanted = tiles * groups // ITEMS
    segment_tiles = min(max(wanted, SHORTEST_STRIP), LONGEST_STRIP, tiles)
    segments = -(-tiles // segment_tiles)
    return StripPlan(segment_tiles, group_blocks, max(1, cached // segment_tiles), segments, groups)
