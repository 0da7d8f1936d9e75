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
"""Most row groups, and most column groups, mining is cut into.

Up to 16 x 16 programs fill a device of about 130 multiprocessors with two programs each, and the
workspace holds 16 states per row and per column. A constant, so that results do not depend on the
device.
"""

KIND_CODES = {"none": 0, "linear": 1, "exponential": 2}
"""Relative-similarity kinds as the kernels know them (`states.LINEAR`; 0 sums nothing)."""

STATE_FIELDS = {"none": 2, "linear": 5, "exponential": 5}
"""32-bit words of one mining state: key, index and, with sums, total, count, top."""

DOT_PRECISION = {"highest": "ieee", "high": "tf32x3", "medium": "tf32"}
"""torch's words for the precision of float32 products, and those of `tl.dot`."""

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
"""Embedding dtypes the kernels are compiled for."""

WARPS = 4
"""Warps of the kernels that move vectors: merging states, summing gradient rows."""

COLLAPSE_BLOCK = 128
"""Rows or columns whose partial states one program merges."""

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


def mine_tile(dtype: torch.dtype, precision: str, kind: str) -> MineTile:
    """The tile for embeddings of `dtype` at `precision` (which only float32 looks at).

    Relative sums (`kind` other than "none") keep more values per element alive, hence smaller
    tiles: every shape compiles without spilling more than `STACK_LIMIT`.
    """
    if dtype == torch.float32 and precision == "highest":
        return MineTile(rows=64, columns=64, width=32, warps=8, stages=2)
    if dtype == torch.float32 and precision == "high":
        return MineTile(rows=64, columns=32, width=32, warps=4, stages=2)
    width = 128 // dtype.itemsize
    if kind == "none":
        return MineTile(rows=128, columns=128, width=width, warps=8, stages=2)
    return MineTile(rows=64, columns=128, width=width, warps=8, stages=3)


def mine_constants(
    dtype: torch.dtype, precision: str, kind: str, upcast: bool
) -> dict[str, object]:
    """Compile-time arguments of `mine_kernel`; `upcast` widens operands before the product."""
    tile = mine_tile(dtype, precision, kind)
    return {
        "KIND": KIND_CODES[kind],
        "PRECISION": DOT_PRECISION[precision] if dtype == torch.float32 else "ieee",
        "UPCAST": upcast,
        "BLOCK_ROWS": tile.rows,
        "BLOCK_COLUMNS": tile.columns,
        "BLOCK_WIDTH": tile.width,
    }
