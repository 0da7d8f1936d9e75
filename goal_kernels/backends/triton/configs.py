"""Tile shapes and grid sizes of the Triton kernels; needs no Triton, so dispatch can read it.

The launcher and the ahead-of-time check take their compile-time constants from here, so what is
checked is what is launched. Every shape keeps within the shared memory of the smallest device of
compute capability 8.0 or newer (`SHARED_LIMIT`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

SHARED_LIMIT = 99 * 1024
"""Shared memory one program may use, bytes: what compute capability 8.6, 8.9 and 12.0 grant."""

STACK_LIMIT = 128
"""Spilled registers one thread may have, bytes: a few words outside the inner loop."""

MINIMUM_CAPABILITY = (8, 0)
"""First compute capability with bf16 and tf32 tensor cores and asynchronous copies."""

LENGTH_LIMIT = 2**31 - 2**10
"""Rows or columns one call may have: positions are int32 in the kernels, with room for one tile."""

SLOTS = 16
"""Row groups, and column groups, that tile by tile mining is cut into where tiles are many.

16 x 16 programs fill a device of about 130 multiprocessors with two programs each, and the
workspace of relative sums holds 16 states per row and per column. A constant, so that results do
not depend on the device.
"""

SMALL_SLOTS = 32
"""Up to this many rows or columns of tiles, each is a group of its own: one tile per program."""

SMALL_LENGTH = 2048
"""Up to this many rows and columns the tiles are small, so that there is one for every program."""

PARTS = 512
"""Most programs of `prepare_kernel`, hence columns of the facts: a power of two."""

PREPARE_ELEMENTS = 2048
"""Elements of the embedding rows that one program of `prepare_kernel` has in flight at once."""

ALIGNMENT = 16
"""Bytes that the start of every operand row is a multiple of where tensor descriptors read it."""

RANK_ALIGNMENT = 16
"""Elements that rows are padded to a multiple of where they are ranked: loads are wide then."""

KIND_CODES = {"none": 0, "linear": 1, "exponential": 2}
"""Relative-similarity kinds as the kernels know them (`states.LINEAR`; 0 sums nothing)."""

NO_SUMS, STATES, FIXED = 0, 1, 2
"""Forms in which a mining kernel leaves relative sums, see `finish.py`."""

RANGE_ROWS = 128
"""Rows whose ids, or whose targets, one range spans."""

STATE_FIELDS = 5
"""32-bit words of one mining state: key, index, total, count, top."""

DOT_PRECISION = {"highest": "ieee", "high": "tf32x3", "medium": "tf32"}
"""torch's words for the precision of float32 products, and those of `tl.dot`."""

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
"""Embedding dtypes the kernels are compiled for."""

WARPS = 4
"""Warps of the kernels that move vectors: merging states, summing gradient rows."""

FINISH_BLOCK = 128
"""Rows or columns whose mined pairs one program reads; fewer where it recomputes similarities."""

LAUNCH_OPTIONS = {"enable_fp_fusion": True}
"""Compiler options of every kernel; the default of fusion varies with the version."""


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
    tiles: every shape compiles without spilling more than `STACK_LIMIT`. length: the larger of the
    numbers of rows and columns.
    """
    if dtype == torch.float32 and precision == "highest":
        return MineTile(rows=64, columns=64, width=32, warps=8, stages=2)
    if dtype == torch.float32 and precision == "high":
        return MineTile(rows=64, columns=32, width=32, warps=4, stages=2)
    width = 128 // dtype.itemsize
    if kind == "none" and length > SMALL_LENGTH:
        return MineTile(rows=128, columns=128, width=width, warps=8, stages=2)
    return MineTile(rows=64, columns=64, width=width, warps=8, stages=4)


def tile_constants(
    tile: MineTile, dtype: torch.dtype, precision: str, kind: str, upcast: bool
) -> dict[str, object]:
    """Compile-time arguments of `tile_kernel`; `upcast` widens operands before the product."""
    return {
        "KIND": KIND_CODES[kind],
        "PARTS": PARTS,
        "PRECISION": DOT_PRECISION[precision] if dtype == torch.float32 else "ieee",
        "UPCAST": upcast,
        "BLOCK_ROWS": tile.rows,
        "BLOCK_COLUMNS": tile.columns,
        "BLOCK_WIDTH": tile.width,
    }


def row_block(width: int) -> dict[str, int]:
    """Rows and width of the slices in which whole embedding rows are read."""
    slice_width = min(max(16, 1 << (width - 1).bit_length()), 512)
    return {"ROWS": min(PREPARE_ELEMENTS // slice_width, 128), "WIDTH": slice_width}


def finish_constants(kind: str, sums: int, rescore: bool, width: int) -> dict[str, int]:
    """Compile-time arguments of `finish_kernel`; sums: the form of the relative sums."""
    rows = row_block(width)
    return {
        "KIND": KIND_CODES[kind],
        "SUMS": sums,
        "RESCORE": rescore,
        "PARTS": PARTS,
        "BLOCK": rows["ROWS"] if rescore else FINISH_BLOCK,
        "WIDTH": rows["WIDTH"],
    }
