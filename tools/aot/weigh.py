"""The variants of weighing and of gradients that the ahead-of-time check compiles."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from goal_kernels.backends.base import RELATIVE_KINDS
from goal_kernels.backends.gpu.configs import (
    DTYPES,
    FIXED,
    KIND_CODES,
    LIST_BLOCK,
    NO_SUMS,
    PAIR_CODES,
    PIECE,
    PREFIX_CHUNK,
    RUNNING_MAXIMA,
    TRIPLET_CODES,
    WARPS,
    gather_shape,
)
from goal_kernels.backends.gpu.kernels.weigh import weigh_constants
from tools.aot.variant import FULL_ARCHITECTURE, POINTERS, Variant

PAIR_KINDS = dict.fromkeys(PAIR_CODES, "none") | {
    "linear_ms": "linear",
    "sigmoid_ms": "exponential",
}
SCALARS = ("tau", "alpha", "beta", "lam", "epsilon", "margin")


def weigh_variant(
    arch: int,
    objective: tuple[str, str],
    direction: str,
    dense: bool,
    size: str,
    form: int = RUNNING_MAXIMA,
    rescore: str = "",
) -> Variant:
    """`weigh_kernel`; form: of relative sums, where there are any; rescore: "raw", "scaled"."""
    triplet, pair = objective
    kind = PAIR_KINDS[pair]
    form = NO_SUMS if kind == "none" else form
    looked_up = kind != "none" and not dense
    fixed = form == FIXED
    arguments = {
        "batch_stats": "*fp32",
        **dict.fromkeys(("row_keys", "column_keys"), "*i64"),
        **dict.fromkeys(
            ("row_sums", "column_sums"),
            {NO_SUMS: None, RUNNING_MAXIMA: "*i32", FIXED: "*fp32"}[form],
        ),
        **dict.fromkeys(("row_counts", "column_counts"), "*i32" if fixed else None),
        **dict.fromkeys(
            ("row_tops", "column_tops"), "*i64" if fixed and kind == "linear" else None
        ),
        **dict.fromkeys(("image", "text"), "*fp32" if rescore == "raw" else "*bf16"),
        **dict.fromkeys(("pool",), "*fp32" if looked_up else None),
        **dict.fromkeys(("prefix",), "*fp64" if looked_up else None),
        "vectors": "*fp32",
        "hardest": "*i64",
        "value": "*fp32",
        "partials": "*fp64",
        "ticket": "*i32",
        **dict.fromkeys(("batch", "width", "image_stride", "text_stride"), "i32"),
        **dict.fromkeys(("row_parts", "column_parts", "parts", "steps"), "i32"),
        **dict.fromkeys(("slope", *SCALARS), "fp32"),
    }
    words = (f"{triplet}/{pair}", direction, "dense" if dense else "sorted")
    label = " ".join(filter(None, (*words, "fixed" * fixed, rescore)))
    constants = weigh_constants(
        (triplet, pair, direction), (kind, form, bool(rescore)), rescore == "scaled", dense, 1024
    )
    options = {"num_warps": WARPS}
    quick = label == "circle/sigmoid_ms both dense"
    return Variant("weigh_kernel", label, arch, size, arguments, constants, options, quick=quick)


def prefix_variant(arch: int, kind: str) -> Variant:
    """`prefix_kernel` for a kind of relative sums."""
    arguments: dict[str, str | None] = {
        "pool": "*fp32",
        "prefix": "*fp64",
        "length": "i32",
        "alpha": "fp32",
    }
    constants: dict[str, object] = {"KIND": KIND_CODES[kind], "CHUNK": PREFIX_CHUNK}
    options = {"num_warps": WARPS}
    quick = kind == "exponential"
    return Variant("prefix_kernel", kind, arch, "odd", arguments, constants, options, quick=quick)


def list_variant(arch: int) -> Variant:
    """`list_kernel`."""
    arguments: dict[str, str | None] = {
        **dict.fromkeys(("hardest", "order"), "*i64"),
        "ordered": "*i32",
        **dict.fromkeys(("batch", "steps"), "i32"),
    }
    constants: dict[str, object] = {"BLOCK": LIST_BLOCK}
    options = {"num_warps": WARPS}
    return Variant("list_kernel", "", arch, "odd", arguments, constants, options, quick=True)


def gather_variant(
    arch: int, kernel: str, dtype: torch.dtype, width: int, small: bool, flags: str = ""
) -> Variant:
    """`gather_kernel` or `long_list_kernel`; flags: "normalize" or none."""
    normalize, pieces = "normalize" in flags, not small
    pointer = POINTERS[dtype]
    arguments: dict[str, str | None] = dict.fromkeys(
        ("grad_image", "grad_text", "image", "text"), pointer
    )
    arguments |= {
        **dict.fromkeys(("grad_loss", "vectors"), "*fp32"),
        "hardest": "*i64",
        "piece_sums": "*fp32" if pieces else None,
        "piece_projections": "*fp32" if pieces and normalize else None,
        **dict.fromkeys(("skipped", "batch", "width"), "i32"),
        **dict.fromkeys(("image_stride", "text_stride"), "i32"),
    }
    if kernel == "long_list_kernel":
        for name in ("grad_image", "grad_text", "grad_loss", "skipped", "batch"):
            del arguments[name]
        arguments["length"] = "i32"
    shape = gather_shape(width, dtype.itemsize, small)
    constants: dict[str, object] = {
        "NORMALIZE": normalize,
        "PIECE": PIECE if pieces else 0,
        "COUNT": shape.count,
        "BLOCK_WIDTH": shape.width,
    }
    if kernel == "gather_kernel":
        constants["FIRST"] = shape.first
    size = "one" if width == 1 else "odd" if width % 16 else "even"
    label = f"{pointer[1:]} width {width} {'small' if small else 'large'} {flags}".strip()
    options = {"num_warps": shape.warps}
    quick = label == "bf16 width 1024 large normalize"
    return Variant(kernel, label, arch, size, arguments, constants, options, quick=quick)


def weigh_variants(arch: int) -> Iterator[Variant]:
    """Every objective compared pair by pair; the other paths by example.

    Triplet elements are a few instructions of plain arithmetic: one architecture compiles them all.
    """
    for triplet in TRIPLET_CODES if arch == FULL_ARCHITECTURE else ("circle",):
        for pair in PAIR_CODES:
            yield weigh_variant(arch, (triplet, pair), "both", True, "even")
    for kind in RELATIVE_KINDS[1:]:
        yield prefix_variant(arch, kind)
    for direction in ("i2t", "t2i"):
        yield weigh_variant(arch, ("nca", "sigmoid_ms"), direction, True, "odd")
    for pair, kind in PAIR_KINDS.items():
        if kind in RELATIVE_KINDS[1:] or pair == "constant":
            yield weigh_variant(arch, ("circle", pair), "both", False, "odd")
            yield weigh_variant(arch, ("nca", pair), "both", False, "even", FIXED, "raw")
    yield weigh_variant(arch, ("nca", "sigmoid_ms"), "both", True, "even", FIXED, "scaled")
    yield weigh_variant(arch, ("hinge", "constant"), "both", True, "even", RUNNING_MAXIMA, "scaled")


def gather_variants(arch: int) -> Iterator[Variant]:
    """Every dtype, small and large, raw and normalised; widths by example."""
    for dtype in DTYPES:
        for flags in ("", "normalize"):
            for width in (512, 1024):
                yield gather_variant(arch, "gather_kernel", dtype, width, True, flags)
                yield gather_variant(arch, "gather_kernel", dtype, width, False, flags)
                yield gather_variant(arch, "long_list_kernel", dtype, width, False, flags)
    yield list_variant(arch)
    for width in (1, 65):
        yield gather_variant(arch, "gather_kernel", torch.bfloat16, width, True, "normalize")
