"""The ranking kernels as `aot` compiles them: one variant per dtype, and sizes by example."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from goal_kernels.backends.gpu.configs import DTYPES, RANK_WARPS, rank_tile
from goal_kernels.backends.gpu.kernels.rank import batch_constants, rank_constants
from tools.aot.variant import POINTERS, Variant, matrix_instruction


def rank_variant(arch: int, dtype: torch.dtype, size: str) -> Variant:
    """`rank_kernel` as it is launched."""
    major = arch // 10
    constants = rank_constants(dtype, major, upcast=False)
    arguments: dict[str, str | None] = {
        **dict.fromkeys(("image", "text"), POINTERS[dtype]),
        "owner": "*i64",
        **dict.fromkeys(("image_bounds", "text_bounds"), "*fp32"),
        **dict.fromkeys(("broken", "image_counts", "text_counts", "lists"), "*i32"),
        "flags": "*i8",
        **dict.fromkeys(("rows", "columns", "width", "image_stride", "text_stride"), "i32"),
        "segments": "i32",
    }
    options = {"num_warps": RANK_WARPS, "num_stages": rank_tile(dtype, major).stages}
    matrix = matrix_instruction(
        arch, str(constants["PRECISION"]) if dtype == torch.float32 else "native"
    )
    label = POINTERS[dtype][1:]
    return Variant(
        "rank_kernel",
        label,
        arch,
        size,
        arguments,
        constants,
        options,
        matrix,
        quick=(dtype, size) == (torch.bfloat16, "even"),
    )


def dots_variant(arch: int, dtype: torch.dtype, index: str, size: str) -> Variant:
    """`dots_kernel` with pairs looked up ("indexed") or row by row ("own")."""
    arguments = {
        "out": "*fp64",
        **dict.fromkeys(("left", "right"), POINTERS[dtype]),
        "index": "*i64" if index == "indexed" else None,
        **dict.fromkeys(("pairs", "width", "left_stride", "right_stride"), "i32"),
    }
    options = {"num_warps": RANK_WARPS}
    label = f"{POINTERS[dtype][1:]} {index}"
    constants = dict(batch_constants(dtype))
    quick = index == "own"
    return Variant("dots_kernel", label, arch, size, arguments, constants, options, quick=quick)


def rank_variants(arch: int) -> Iterator[Variant]:
    """Every dtype with the sizes of most data sets; other sizes by example."""
    for dtype in DTYPES:
        yield rank_variant(arch, dtype, "even")
        yield dots_variant(arch, dtype, "indexed", "even")
    for size in ("odd", "one"):
        yield rank_variant(arch, torch.bfloat16, size)
        yield rank_variant(arch, torch.float32, size)
    yield dots_variant(arch, torch.float32, "own", "odd")
