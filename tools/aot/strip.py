"""Variants of the strip kernel for the ahead-of-time check."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from goal_kernels.backends.base import RELATIVE_KINDS
from goal_kernels.backends.gpu.configs import (
    StripTile,
    strip_tile,
)
from goal_kernels.backends.gpu.kernels.resum import resum_constants
from goal_kernels.backends.gpu.kernels.strip import strip_constants
from tools.aot.variant import (
    POINTERS,
    SHARED_LIMIT,
    SHARED_OF_ONE_ARCH,
    Limits,
    Variant,
    matrix_instruction,
)

OPERANDS = {
    "bf16": (torch.bfloat16, False),
    "fp16": (torch.float16, False),
    "fp32 high": (torch.bfloat16, True),
    "fp32 medium": (torch.float32, False),
}
"""What is multiplied, and whether it is split, for embeddings of a dtype at a precision."""

SHUFFLES = {
    (80, "none"): 40,
    (80, "exponential"): 84,
    (80, "linear"): 60,
    (90, "none"): 24,
    (90, "exponential"): 40,
    (90, "linear"): 48,
}
"""Most shuffles in the loop over tiles where columns lie in fragments: more, and a reshape moves
data between lanes."""

SIZES_OF_LAUNCH = (
    "rows",
    "columns",
    "width",
    "image_stride",
    "text_stride",
    "parts",
)


def _common(tile: StripTile, dtype: torch.dtype, pairing: str, kind: str) -> dict[str, str | None]:
    """Arguments of both kernels, but for floats; pairing names the tensors there are."""
    ids = "*i64" if "ids" in pairing else None
    element = POINTERS[dtype][1:]
    operands = ("*" + element, "*" + element)
    if tile.descriptors:
        operands = (
            f"tensordesc<{element}[{tile.rows}, {tile.width}]>",
            f"tensordesc<{element}[{tile.columns}, {tile.width}]>",
        )
    return {
        "image": operands[0],
        "text": operands[1],
        "target": "*i64" if "target" in pairing else None,
        "image_ids": ids,
        "text_ids": ids,
        "batch_stats": "*fp32",
        **dict.fromkeys(("row_keys", "column_keys"), "*i64"),
        **dict.fromkeys(("row_sums", "column_sums"), None if kind == "none" else "*fp32"),
        **dict.fromkeys(("row_counts", "column_counts"), None if kind == "none" else "*i32"),
        **dict.fromkeys(SIZES_OF_LAUNCH, "i32"),
        **dict.fromkeys(("epsilon", "slope"), "fp32"),
    }


def strip_variant(
    arch: int,
    operand: str,
    kind: str,
    pairing: str,
    quick: bool = False,
) -> Variant:
    """`strip_kernel` as `mine_strips` launches it."""
    dtype, split = OPERANDS[operand]
    shipped = strip_tile(arch, dtype, kind, "ids" in pairing)
    common = _common(shipped, dtype, pairing, kind)
    arguments = {
        **common,
        "target_ranges": common["target"],
        **dict.fromkeys(("row_ranges", "column_ranges"), common["image_ids"]),
        **dict.fromkeys(("row_tops", "column_tops"), "*i64" if kind == "linear" else None),
        **dict.fromkeys(("segment_tiles", "group_blocks", "chunk"), "i32"),
    }
    label = " ".join(filter(None, (operand, kind, pairing)))
    return Variant(
        "strip_kernel",
        label,
        arch,
        "even",
        arguments,
        strip_constants(shipped, dtype, kind, split, upcast=False),
        {"num_warps": shipped.warps, "num_stages": shipped.stages},
        matrix_instruction(arch, "tf32"),
        Limits(
            shared=SHARED_OF_ONE_ARCH[90] if arch == 90 else SHARED_LIMIT,
            shuffles=SHUFFLES.get((arch, kind)),
            local=16,
        ),
        quick=quick,
    )


def resum_variant(arch: int, operand: str, kind: str, pairing: str) -> Variant:
    """`resum_kernel` as `mine_strips` launches it: speed does not matter, spilling may."""
    dtype, split = OPERANDS[operand]
    tile = strip_tile(arch, dtype, kind, "ids" in pairing)
    return Variant(
        "resum_kernel",
        " ".join(filter(None, (operand, kind, pairing))),
        arch,
        "even",
        _common(tile, dtype, pairing, kind),
        resum_constants(tile, dtype, kind, split, upcast=False),
        {"num_warps": tile.warps, "num_stages": tile.stages},
        matrix_instruction(arch, "tf32"),
        Limits(stack=2048, shared=SHARED_OF_ONE_ARCH[90] if arch == 90 else SHARED_LIMIT),
        quick=kind == "linear",
    )


def strip_variants(arch: int) -> Iterator[Variant]:
    """Every operand and kind; pairings by example."""
    for operand in OPERANDS:
        for kind in RELATIVE_KINDS:
            yield strip_variant(arch, operand, kind, "", quick=operand == "bf16")
    for kind in RELATIVE_KINDS:
        yield strip_variant(arch, "bf16", kind, "target+ids")
        yield strip_variant(arch, "bf16", kind, "ids")
    yield strip_variant(arch, "bf16", "none", "target")
    for kind in ("linear", "exponential"):
        yield resum_variant(arch, "bf16", kind, "target+ids")
    yield resum_variant(arch, "fp32 medium", "exponential", "")
