"""What the ahead-of-time check compiles: one kernel with its arguments, constants and limits.

Needs no Triton. Each family of kernels has a module `aot_*` with a function of the architecture
that yields its variants; `aot.VARIANT_SOURCES` lists those functions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from goal_kernels.backends.gpu.configs import SHARED_LIMIT, STACK_LIMIT

POINTERS = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}

SIZES = ("even", "odd", "one")
"""Sizes and strides that are multiples of 16, that are not, and that are 1: Triton's own cases."""

FULL_ARCHITECTURE = 90
"""What every variant is compiled for; others leave out those that only differ in arithmetic or in
the name of a 16-bit type."""

HOMES = {
    "finish": "results",
    "long_list": "gather",
    "list": "gather",
    "dots": "rank",
    "prefix": "relative",
}
"""Modules of kernels that have another name."""

SHARED_OF_ONE_ARCH = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
"""Shared memory one program may use on exactly this architecture, bytes: for variants that are
launched nowhere else, where `SHARED_LIMIT` is what every device of the major version grants."""


@dataclass(frozen=True)
class Limits:
    """What a compiled variant may use; None where nothing is asked.

    registers: per thread. stack: bytes per thread of local memory, that is, of spilled registers.
    shared: bytes per program. shuffles, local: SHFL instructions, and LDL and STL instructions, in
    the tile loop (see `sass.tile_loop`).
    """

    registers: int = 255
    stack: int = STACK_LIMIT
    shared: int = SHARED_LIMIT
    shuffles: int | None = None
    local: int | None = None


@dataclass(frozen=True)
class Variant:
    """One compilation of a kernel.

    kernel, home: name of the jit function; its module, if not one of the package.
    label: what tells this variant from the others of its kernel, for the table.
    arch: compute capability times ten.
    size: one of SIZES; the case of every argument of type "i32".
    arguments: Triton type per run-time argument, such as "*bf16", "i64" or
        "tensordesc<bf16[128, 64]>"; None for an argument that is None.
    constants, options: compile-time arguments; num_warps and the like.
    matrix: the instruction that has to multiply, see `matrix_instruction`; "" if none has to.
    quick: whether it belongs to the short matrix.
    """

    kernel: str
    label: str
    arch: int
    size: str
    arguments: dict[str, str | None]
    constants: dict[str, Any]
    options: dict[str, Any]
    matrix: str = ""
    limits: Limits = Limits()
    home: str = ""
    quick: bool = False

    @property
    def module(self) -> str:
        """The module that exports the kernel."""
        name = self.kernel.removesuffix("_kernel")
        return self.home or f"goal_kernels.backends.gpu.kernels.{HOMES.get(name, name)}"


def matrix_instruction(arch: int, precision: str) -> str:
    """The instruction that has to do the products: tcgen05, wgmma, mma or fma.

    precision: the word `tl.dot` knows; products of 16-bit operands are never "ieee" there.
    """
    if precision == "ieee":
        return "fma"
    # 12.x multiplies by the instructions of 8.x.
    return {9: "wgmma", 10: "tcgen05", 11: "tcgen05"}.get(arch // 10, "mma")
