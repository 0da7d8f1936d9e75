"""Variants of the gradient kernel for the ahead-of-time check."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import torch

from goal_kernels.backends.triton.configs import DTYPES, WARPS, gather_constants
from goal_kernels.backends.triton.variant import POINTERS, Variant


def gather_variant(arch: int, dtype: torch.dtype, positive: str, width: int) -> Variant:
    """`gather_kernel` with positives looked up ("indexed"), implied ("own") or "listed"."""
    arguments = {
        "out": POINTERS[dtype],
        "source": POINTERS[dtype],
        "grad_loss": "*fp32",
        "mined": "*i64",
        "mined_weight": "*fp32",
        "positive": "*i64" if positive == "indexed" else None,
        "positive_weight": None if positive == "listed" else "*fp32",
        "entry_source": "*i64",
        "entry_weight": "*fp32",
        "entry_starts": "*i64",
        **dict.fromkeys(("source_rows", "width", "source_stride"), "i32"),
    }
    return Variant(
        "gather_kernel",
        f"{POINTERS[dtype][1:]} {positive} width {width}",
        arch,
        "one" if width == 1 else "odd" if width % 16 else "even",
        arguments,
        gather_constants(width),
        {"num_warps": WARPS},
        quick=(dtype, positive, width) == (torch.bfloat16, "indexed", 1024),
    )


def gather_variants(arch: int) -> Iterator[Variant]:
    """Every dtype and kind of positives at a usual width; odd widths by example."""
    for dtype, positive in product(DTYPES, ("indexed", "own", "listed")):
        yield gather_variant(arch, dtype, positive, 1024)
    for width in (1, 65):
        yield gather_variant(arch, torch.bfloat16, "indexed", width)
