"""What the ahead-of-time check compiles: one kernel with its arguments and constants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

POINTERS = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}
SIZES = ("even", "odd", "one")
"""Sizes and strides that are multiples of 16, that are not, and that are 1: Triton's own cases."""


@dataclass(frozen=True)
class Variant:
    """One compilation: a kernel of `kernels`, its argument types and its constants.

    arguments: Triton type per run-time argument, None for an argument that is None.
    """

    kernel: str
    label: str
    arch: int
    size: str
    arguments: dict[str, str | None]
    constants: dict[str, Any]
    options: dict[str, Any]
    matrix: str = ""


def matrix_instruction(arch: int, precision: str) -> str:
    """The instruction that has to do the products: wgmma, mma or fma."""
    if precision == "ieee":
        return "fma"
    return "wgmma" if arch >= 90 else "mma"
