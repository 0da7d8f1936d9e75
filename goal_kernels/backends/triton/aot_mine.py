"""Variants of the mining kernels for the ahead-of-time check."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import torch

from goal_kernels.backends.base import PRECISIONS, RELATIVE_KINDS
from goal_kernels.backends.triton.configs import (
    COLLAPSE_BLOCK,
    DTYPES,
    KIND_CODES,
    STACK_LIMIT,
    WARPS,
    mine_constants,
    mine_tile,
)
from goal_kernels.backends.triton.variant import (
    POINTERS,
    SIZES,
    Limits,
    Variant,
    matrix_instruction,
)

ROW_ACCUMULATOR_STACK = 1088
"""Spilled bytes per thread on 10.0, where a thread holds whole rows of the accumulator: the tiles
were shaped for 8.0 and 9.0, where it holds fragments of rows and columns."""

QUICK = {
    (torch.bfloat16, "highest", "linear", "target+ids", "even"),
    (torch.float32, "high", "exponential", "", "even"),
    (torch.float32, "highest", "none", "", "even"),
}
"""The heaviest flavour of each kind of product."""


def mine_variant(
    arch: int, dtype: torch.dtype, precision: str, kind: str, pairing: str, size: str
) -> Variant:
    """`mine_kernel` as `TritonBackend.mine` launches it; pairing names the tensors it gets."""
    tile = mine_tile(dtype, precision, kind)
    constants = mine_constants(dtype, precision, kind, upcast=False)
    ids = "*i64" if "ids" in pairing else None
    arguments = {
        "image": POINTERS[dtype],
        "text": POINTERS[dtype],
        "target": "*i64" if "target" in pairing else None,
        "image_ids": ids,
        "text_ids": ids,
        "threshold": None if kind == "none" else "*fp32",
        "row_states": "*i32",
        "column_states": "*i32",
        **dict.fromkeys(("rows", "columns", "width", "image_stride", "text_stride"), "i32"),
        "slope": "fp32",
    }
    used = precision if dtype == torch.float32 else ""
    dot = str(constants["PRECISION"]) if dtype == torch.float32 else "native"
    return Variant(
        "mine_kernel",
        " ".join(filter(None, (POINTERS[dtype][1:], used, kind, pairing))),
        arch,
        size,
        arguments,
        constants,
        {"num_warps": tile.warps, "num_stages": tile.stages},
        matrix_instruction(arch, dot),
        Limits(stack=ROW_ACCUMULATOR_STACK if arch >= 100 else STACK_LIMIT),
        quick=(dtype, precision, kind, pairing, size) in QUICK,
    )


def collapse_variant(arch: int, kind: str, size: str) -> Variant:
    """`collapse_kernel` as the backend launches it."""
    summed = kind != "none"
    arguments = {
        "states": "*i32",
        "value": "*fp32",
        "index": "*i64",
        "total": "*fp32" if summed else None,
        "count": "*i64" if summed else None,
        "slots": "i32",
        "length": "i32",
        "slope": "fp32",
    }
    constants = {"KIND": KIND_CODES[kind], "BLOCK": COLLAPSE_BLOCK}
    options = {"num_warps": WARPS}
    quick = (kind, size) == ("exponential", "one")
    return Variant("collapse_kernel", kind, arch, size, arguments, constants, options, quick=quick)


def mine_variants(arch: int) -> Iterator[Variant]:
    """Every dtype, precision and kind with and without a full pairing; other cases by example."""
    flavours = [(dtype, "highest") for dtype in DTYPES if dtype != torch.float32]
    flavours += [(torch.float32, precision) for precision in PRECISIONS]
    for (dtype, precision), kind in product(flavours, RELATIVE_KINDS):
        for pairing in ("", "target+ids"):
            yield mine_variant(arch, dtype, precision, kind, pairing, "even")
    for size in ("odd", "one"):
        yield mine_variant(arch, torch.bfloat16, "highest", "linear", "target+ids", size)
        yield mine_variant(arch, torch.float32, "highest", "exponential", "target+ids", size)
    yield mine_variant(arch, torch.bfloat16, "highest", "none", "target", "even")
    yield mine_variant(arch, torch.bfloat16, "highest", "none", "ids", "even")
    for kind, size in product(RELATIVE_KINDS, SIZES):
        yield collapse_variant(arch, kind, size)
