"""Variants of the mining kernels for the ahead-of-time check."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from goal_kernels.backends.base import PRECISIONS, RELATIVE_KINDS
from goal_kernels.backends.gpu.configs import (
    DTYPES,
    FIXED,
    NO_SUMS,
    RUNNING_MAXIMA,
    SMALL_LENGTH,
    STACK_LIMIT,
    WARPS,
    mine_tile,
    row_block,
)
from goal_kernels.backends.gpu.kernels.results import finish_constants
from goal_kernels.backends.gpu.kernels.tile import tile_constants
from tools.aot.variant import POINTERS, Limits, Variant, matrix_instruction

ROW_ACCUMULATOR_STACK = 1088
"""Spilled bytes per thread on 10.0, where a thread holds whole rows of the accumulator: the tiles
were shaped for 8.0 and 9.0, where it holds fragments of rows and columns."""

QUICK = {
    (torch.bfloat16, "highest", "linear", "target+ids", "even"),
    (torch.float32, "high", "exponential", "", "even"),
    (torch.float32, "highest", "none", "", "even"),
}
"""The heaviest flavour of each kind of product."""


def tile_variant(
    arch: int,
    dtype: torch.dtype,
    precision: str,
    kind: str,
    pairing: str,
    size: str,
    length: int = SMALL_LENGTH + 1,
) -> Variant:
    """`tile_kernel` as mining launches it; pairing names the tensors it gets."""
    tile = mine_tile(dtype, precision, kind, length)
    constants = tile_constants(tile, dtype, precision, kind, upcast=False)
    ids = "*i64" if "ids" in pairing else None
    arguments = {
        "image": POINTERS[dtype],
        "text": POINTERS[dtype],
        "target": "*i64" if "target" in pairing else None,
        "image_ids": ids,
        "text_ids": ids,
        "batch_stats": None if kind == "none" else "*fp32",
        **dict.fromkeys(("row_keys", "column_keys"), "*i64"),
        **dict.fromkeys(("row_states", "column_states"), None if kind == "none" else "*i32"),
        **dict.fromkeys(("rows", "columns", "width", "image_stride", "text_stride"), "i32"),
        "parts": "i32",
        "slope": "fp32",
        "epsilon": "fp32",
    }
    used = precision if dtype == torch.float32 else ""
    few = "small" if length <= SMALL_LENGTH else ""
    label = " ".join(filter(None, (POINTERS[dtype][1:], used, kind, pairing, few)))
    options = {"num_warps": tile.warps, "num_stages": tile.stages}
    dot = str(constants["PRECISION"]) if dtype == torch.float32 else "native"
    return Variant(
        "tile_kernel",
        label,
        arch,
        size,
        arguments,
        constants,
        options,
        matrix_instruction(arch, dot),
        Limits(stack=ROW_ACCUMULATOR_STACK if 100 <= arch < 120 else STACK_LIMIT),
        quick=(dtype, precision, kind, pairing, size) in QUICK,
    )


def prepare_variant(
    arch: int, dtype: torch.dtype, asked: str, width: int, size: str = "even"
) -> Variant:
    """`prepare_kernel`; asked: words of normalize, split, ranges, counts."""
    copied = "*bf16" if "split" in asked else POINTERS[dtype] if "normalize" in asked else None
    ids = "*i64" if "ranges" in asked else None
    arguments = {
        **dict.fromkeys(("image", "text"), POINTERS[dtype]),
        **dict.fromkeys(("target", "image_ids", "text_ids"), ids),
        "positive": "*fp32",
        "scales": "*fp32" if "normalize" in asked else None,
        "batch_stats": "*fp32",
        **dict.fromkeys(("row_keys", "column_keys"), "*i64"),
        **dict.fromkeys(("row_counts", "column_counts"), "*i32" if "counts" in asked else None),
        "ticket": "*i32",
        **dict.fromkeys(("image_operand", "text_operand"), copied),
        **dict.fromkeys(("row_ranges", "column_ranges", "target_ranges"), ids),
        **dict.fromkeys(("rows", "columns", "width", "padded", "pitch"), "i32"),
        **dict.fromkeys(("image_stride", "text_stride"), "i32"),
        "shortest": "fp32",
    }
    label = f"{POINTERS[dtype][1:]} {asked} width {width}"
    options = {"num_warps": WARPS}
    quick = asked == "normalize split counts"
    constants = row_block(width)
    return Variant("prepare_kernel", label, arch, size, arguments, constants, options, quick=quick)


def finish_variant(
    arch: int, kind: str, sums: int, rescore: str = "", width: int = 512, size: str = "even"
) -> Variant:
    """`finish_kernel`; sums: form of the sums; rescore: "", "raw" or "scaled" rows."""
    summed = kind != "none"
    counted = "*i32" if sums == FIXED else None
    arguments = {
        **dict.fromkeys(("values", "batch_stats"), "*fp32"),
        **dict.fromkeys(("indices", "row_keys", "column_keys"), "*i64"),
        "out_sums": "*fp32" if summed else None,
        "out_counts": "*i64" if summed else None,
        **dict.fromkeys(
            ("row_sums", "column_sums"),
            {NO_SUMS: None, RUNNING_MAXIMA: "*i32", FIXED: "*fp32"}[sums],
        ),
        **dict.fromkeys(("row_counts", "column_counts"), counted),
        **dict.fromkeys(
            ("row_tops", "column_tops"), "*i64" if counted and kind == "linear" else None
        ),
        **dict.fromkeys(("image", "text"), "*fp32" if rescore == "raw" else "*bf16"),
        "scales": "*fp32" if rescore == "scaled" else None,
        **dict.fromkeys(("rows", "columns", "width", "image_stride", "text_stride"), "i32"),
        **dict.fromkeys(("row_parts", "column_parts", "parts"), "i32"),
        **dict.fromkeys(("slope", "epsilon"), "fp32"),
    }
    label = " ".join(filter(None, (kind, ("", "states", "fixed")[sums], rescore)))
    constants = finish_constants(kind, sums, bool(rescore), width)
    options = {"num_warps": WARPS}
    quick = label == "exponential fixed raw"
    return Variant("finish_kernel", label, arch, size, arguments, constants, options, quick=quick)


def tile_variants(arch: int) -> Iterator[Variant]:
    """Every dtype, precision and kind with and without a full pairing; other cases by example."""
    flavours = [(dtype, "highest") for dtype in DTYPES if dtype != torch.float32]
    flavours += [(torch.float32, precision) for precision in PRECISIONS]
    for dtype, precision in flavours:
        for kind in RELATIVE_KINDS:
            for pairing in ("", "target+ids"):
                yield tile_variant(arch, dtype, precision, kind, pairing, "even")
            if mine_tile(dtype, precision, kind, 1) != mine_tile(dtype, precision, kind, 1 << 30):
                yield tile_variant(arch, dtype, precision, kind, "ids", "even", SMALL_LENGTH)
    for size in ("odd", "one"):
        yield tile_variant(arch, torch.bfloat16, "highest", "linear", "target+ids", size)
        yield tile_variant(arch, torch.float32, "highest", "exponential", "target+ids", size)
    yield tile_variant(arch, torch.bfloat16, "highest", "none", "target", "even")
    yield tile_variant(arch, torch.bfloat16, "highest", "none", "ids", "even")


def prepare_variants(arch: int) -> Iterator[Variant]:
    """What each mining kernel asks for, by example."""
    for dtype in DTYPES:
        yield prepare_variant(arch, dtype, "plain", 512)
        yield prepare_variant(arch, dtype, "normalize ranges counts", 1024)
    yield prepare_variant(arch, torch.float32, "split ranges counts", 512)
    yield prepare_variant(arch, torch.float32, "normalize split counts", 65, "odd")
    yield prepare_variant(arch, torch.bfloat16, "plain", 1, "one")


def finish_variants(arch: int) -> Iterator[Variant]:
    """Every kind and form of sums, and similarities recomputed."""
    yield finish_variant(arch, "none", NO_SUMS)
    for kind in ("linear", "exponential"):
        for sums in (RUNNING_MAXIMA, FIXED):
            yield finish_variant(arch, kind, sums)
            yield finish_variant(arch, kind, sums, "scaled", 1024)
    yield finish_variant(arch, "none", NO_SUMS, "raw", 1, "one")
    yield finish_variant(arch, "exponential", FIXED, "raw", 65, "odd")


def mine_variants(arch: int) -> Iterator[Variant]:
    """Everything from embeddings to what was mined."""
    yield from tile_variants(arch)
    yield from prepare_variants(arch)
    yield from finish_variants(arch)
