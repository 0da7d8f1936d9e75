"""Tile shapes, grid sizes and limits of every kernel: the one configuration table.

Needs no Triton, so dispatch can read it. Shapes are the largest that keep the loop over tiles free
of spilled registers and, but for tables of one architecture, within `SHARED_LIMIT`: `tools.aot`
compiles what is launched and counts. That they are the fastest is not measured on a GPU.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import torch

from goal_kernels.backends.base import WeightStage

DTYPES = {torch.bfloat16: "bfloat16", torch.float16: "float16", torch.float32: "float32"}
"""Embedding dtypes the kernels are compiled for."""

MINIMUM_CAPABILITY = (8, 0)
"""First compute capability with bf16 and tf32 tensor cores and asynchronous copies."""

SHARED_LIMIT = 99 * 1024
"""Shared memory one program may use, bytes: what compute capability 8.6, 8.9 and 12.0 grant."""

STACK_LIMIT = 128
"""Spilled registers one thread may have, bytes: a few words outside the inner loop."""

LENGTH_LIMIT = 2**31 - 2**10
"""Rows or columns one call may have: positions are int32 in the kernels, with room for one tile."""

LAUNCH_OPTIONS = {"enable_fp_fusion": True}
"""Compiler options of every kernel; the default of fusion varies with the version."""

WARPS = 4
"""Warps of the kernels that move vectors."""

KIND_CODES = {"none": 0, "linear": 1, "exponential": 2}
"""Relative-similarity kinds as the kernels know them (`common.LINEAR`; 0 sums nothing)."""

TRIPLET_CODES = {"constant": 0, "nca": 1, "circle": 2, "hinge": 3}
PAIR_CODES = {"constant": 0, "linear": 1, "sigmoid": 2, "linear_ms": 3, "sigmoid_ms": 4}
DIRECTION_CODES = {"both": 0, "i2t": 1, "t2i": 2}
"""Elements and directions as `weigh_kernel` knows them."""

NO_SUMS, RUNNING_MAXIMA, FIXED = 0, 1, 2
"""Forms in which a mining kernel leaves relative sums, see `kernels/results.py`."""

SUM_BITS = 19
SUM_FIELDS = {"none": 0, "linear": 1, "exponential": 6}
"""FIXED sums, see `kernels/fixed_sums.py`: exponents that share a field; fields of an anchor."""

RUNNING_FIELDS = 5
"""32-bit words of one running maximum: key, index, total, count, top."""


def has_fused_weights(stage: WeightStage) -> bool:
    """Whether `weigh_kernel` has the formulas of this stage."""
    return stage.triplet in TRIPLET_CODES and stage.pair in PAIR_CODES


PARTS = 512
"""Most programs of `prepare_kernel`, hence columns of the batch statistics: a power of two."""

PREPARE_ELEMENTS = 2048
"""Elements of the embedding rows that one program of `prepare_kernel` has in flight at once."""

ALIGNMENT = 16
"""Bytes that the start of every operand row is a multiple of where tensor descriptors read it."""

PADDING = 8
"""Copied rows have a multiple of this many elements: at least `ALIGNMENT` bytes in every dtype."""

MASK_ROWS = 128
"""Rows, and columns, that share a bit of `kernels/masks.py`: a tile of the Hopper kernel."""

MASK_WORDS = 256
"""Most words of bits of MASK_ROWS rows, 8 bytes a row; of more columns, some share bits."""

FINISH_BLOCK = 128
"""Rows or columns whose mined pairs one program reads; fewer where it recomputes similarities."""

DENSE_LIMIT = 4096
"""Largest batch whose anchors `weigh_kernel` compares with one another, pair by pair: no sort, no
further launch, about 30 instructions a pair. Less than 32768: the kernel compares positions in
inverse lists as int32 `index * B + position` and adds counters as halves of an int32."""

DENSE_BLOCK = 8
"""Anchors of one program when pairs are compared, all in every thread: 128 programs for 1024."""

DENSE_CHUNK = 128
"""Anchors they are compared with at a time: one per thread, so that loads are shared by a block."""

SORTED_BLOCK = 128
"""Anchors of one program when nothing is compared pair by pair: one per thread."""

PREFIX_CHUNK = 1024
"""Positives that the program of `prefix_kernel` adds up at a time."""


def row_block(width: int) -> dict[str, int]:
    """Rows and width of the slices in which whole embedding rows are read."""
    slice_width = min(max(16, 1 << (width - 1).bit_length()), 512)
    return {"ROWS": min(PREPARE_ELEMENTS // slice_width, 128), "WIDTH": slice_width}


SLOTS = 16
"""Row groups, and column groups, that tile by tile mining is cut into where tiles are many: two
programs for each of 130 multiprocessors, and 16 running maxima per row and column in the workspace.
A constant, so that results do not depend on the device."""

SMALL_SLOTS = 32
"""Up to this many rows or columns of tiles, each is a group of its own: one tile per program."""

SMALL_LENGTH = 2048
"""Up to this many rows and columns the tiles are small, so that there is one for every program."""

DOT_PRECISION = {"highest": "ieee", "high": "tf32x3", "medium": "tf32"}
"""torch's words for the precision of float32 products, and those of `tl.dot`."""


@dataclass(frozen=True)
class MineTile:
    """Shape of one similarity tile, and the warps and pipeline stages that compute it."""

    rows: int
    columns: int
    width: int
    warps: int
    stages: int

    def groups(self, rows: int, columns: int) -> tuple[int, int]:
        """Row groups and column groups of a batch: the grid of `tile_kernel`, transposed."""
        row_tiles, column_tiles = -(-rows // self.rows), -(-columns // self.columns)
        most = SMALL_SLOTS if max(row_tiles, column_tiles) <= SMALL_SLOTS else SLOTS
        return min(row_tiles, most), min(column_tiles, most)


def mine_tile(dtype: torch.dtype, precision: str, kind: str, length: int) -> MineTile:
    """The tile for embeddings of `dtype` at `precision` (which only float32 looks at).

    Relative sums (`kind` other than "none") keep more values per element alive, hence smaller
    tiles. length: the larger of the numbers of rows and columns.
    """
    if dtype == torch.float32 and precision == "highest":
        return MineTile(rows=64, columns=64, width=32, warps=8, stages=2)
    if dtype == torch.float32 and precision == "high":
        return MineTile(rows=64, columns=32, width=32, warps=4, stages=2)
    width = 128 // dtype.itemsize
    if kind == "none" and length > SMALL_LENGTH:
        return MineTile(rows=128, columns=128, width=width, warps=8, stages=2)
    return MineTile(rows=64, columns=64, width=width, warps=8, stages=4)


PUBLISHING = 0.4
"""Tiles' time that the columns of a strip take at its end. Of width 512, by counting instructions:
a fifth on 8.x, a third to all of a tile on 9.0, most of one on 10.0."""

DELAY = 0.25
"""Share of a strip lost at the end of a launch. On another number of multiprocessors than the work
is cut for, half a strip is, on average; a quarter, as if every other device were such."""

LONGEST_STRIP = 64
"""Row tiles of a segment; with 4 slices each, 256 of the 511 that column states can count."""

CHUNK_BYTES = 8 * 2**20
"""Rows that concurrent programs read together: they stay in the L2 cache."""


class StripTile(NamedTuple):
    """Shape of a similarity tile, the warps and pipeline stages that compute it, and how.

    descriptors: read by TMA; by pointers and asynchronous copies otherwise. fragments: a column is
    spread over the lanes of all warps, see `kernels/strip.py`. multiprocessors: those of the most
    usual device of the capability.
    """

    rows: int
    columns: int
    width: int
    warps: int
    stages: int
    descriptors: bool = True
    fragments: bool = True
    multiprocessors: int = 132

    @property
    def lanes(self) -> int:
        """LANES of `kernels/strip.py`."""
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
    tables = {9: (HOPPER, 132), 10: (BLACKWELL, 148), 11: (BLACKWELL, 148)}
    table, multiprocessors = tables.get(capability // 10, (AMPERE, 108))
    width = table[kind, ids].width * 2 // dtype.itemsize
    return table[kind, ids]._replace(width=width, multiprocessors=multiprocessors)


CANDIDATES = 16
"""Pairs per row and column, on average, that screening decides in float32 at most."""


class StripPlan(NamedTuple):
    """How the similarity matrix is cut; see `strip_kernel`.

    segment_tiles: row tiles of a segment. chunk: segments that are walked together. segments,
    blocks: how many segments and column blocks there are.
    """

    segment_tiles: int
    chunk: int
    segments: int
    blocks: int


@functools.lru_cache
def strip_plan(tile: StripTile, rows: int, columns: int, row_bytes: int) -> StripPlan:
    """Cut so that the slowest program has least to do; by shape alone: sums depend on the cut."""
    tiles, blocks = -(-rows // tile.rows), -(-columns // tile.columns)

    def slowest(length: int) -> float:  # in tiles
        rounds = -(-tiles // length * blocks // tile.multiprocessors)
        return rounds * (length + PUBLISHING) + DELAY * length

    segment_tiles = min(range(1, min(tiles, LONGEST_STRIP) + 1), key=slowest)
    segments = -(-tiles // segment_tiles)
    cached = CHUNK_BYTES // (tile.rows * row_bytes)
    return StripPlan(segment_tiles, max(1, cached // segment_tiles), segments, blocks)


LIST_ROWS = 4
"""Rows of `Forward.hardest` that hold inverse lists: orders of images and texts, then spans."""

LIST_BLOCK = 128
"""Entries of an inverse list that one program of `list_kernel` writes."""

SMALL = 2048
"""Largest batch whose backward is one launch; beyond, pieces of long lists are summed ahead."""

PIECE = 64
"""Entries of an inverse list that one program of `long_list_kernel` sums."""

GATHER_WIDTH_LIMIT = 1024
"""Widest slice of a gradient row that one program sums."""


@dataclass(frozen=True)
class GatherShape:
    """How one program sums a slice of a gradient row.

    width: elements of the slice, a power of two. warps: that share it. first: source rows that are
    loaded at once to begin with, two of them the row's own; count: at once from then on, and of
    the pieces of long lists.
    """

    width: int
    warps: int
    first: int
    count: int


def gather_shape(width: int, itemsize: int, small: bool) -> GatherShape:
    """The shape for rows of `width` elements of `itemsize` bytes.

    A thread loads 16 bytes of a row, so that rows are added up within it. A small batch has too few
    rows to hide how long each waits for memory: it has more source rows in flight.
    """
    block = min(max(32, 1 << (width - 1).bit_length()), GATHER_WIDTH_LIMIT)
    warps = max(1, block * itemsize // (16 * 32))
    return GatherShape(block, warps, 8 if small else 4, 16 if small else 8)


RANK_ALIGNMENT = 16
"""Elements that rows are padded to a multiple of where they are ranked: loads are wide then."""

RANK_WARPS = 8

RANK_PROGRAMS = 512
"""Most programs of a launch: a few per multiprocessor, and their lists are of constant size."""

RANK_ITEMS = 4 * RANK_PROGRAMS
"""Work items wanted at least, so that no program is left with much more work than another."""

SEGMENT_TILES = 32
"""Row tiles of a work item at most: 4096 rows that all column blocks read stay in the L2 cache."""

SEGMENTS_LIMIT = 2**15

GROUP = 1024
"""Pairs of a tile that are looked through at once for those to put on the list."""

BACKLOG = 4096
"""Pairs a program puts off before it decides them: enough to do it a full batch at a time."""


@dataclass(frozen=True)
class RankTile:
    """Shape of one similarity tile, its pipeline stages, and how many warps share its rows."""

    rows: int
    columns: int
    width: int
    stages: int
    row_warps: int


def rank_tile(dtype: torch.dtype, major: int) -> RankTile:
    """The tile for embeddings of `dtype` on a device of compute capability `major`.

    Warps stand 8 x 1 over the accumulators of 9.0 and 4 x 2 over others. 10 and 11 accumulate in
    tensor memory, from which a thread reads a row at a time: it keeps counts of fewer columns.
    """
    columns = 64 if dtype == torch.float32 or major in (10, 11) else 128
    row_warps = 8 if major == 9 else 4
    return RankTile(128, columns, 128 // dtype.itemsize, stages=3, row_warps=row_warps)
