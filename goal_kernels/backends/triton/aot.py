"""Compile the Triton kernels ahead of time, without a GPU, and check what came out.

    python -m goal_kernels.backends.triton.aot [--quick] [--arch 80 90]

Prints one line per compiled variant (registers and spilled bytes per thread, shared memory per
program, kind of matrix instruction) and exits with status 1 if a variant does not compile, spills
more than `STACK_LIMIT`, wants more shared memory than `SHARED_LIMIT`, or misses its tensor cores.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from goal_kernels.backends.triton.aot_mine import (
    finish_variant,
    mine_variants,
    prepare_variant,
    tile_variant,
)
from goal_kernels.backends.triton.configs import (
    DTYPES,
    LAUNCH_OPTIONS,
    SHARED_LIMIT,
    STACK_LIMIT,
    STATES,
    WARPS,
    gather_constants,
)
from goal_kernels.backends.triton.variant import POINTERS, Variant

ARCHITECTURES = (80, 90)
DIVISIBLE = [["tt.divisibility", 16]]


@dataclass(frozen=True)
class Outcome:
    """What became of a variant; registers and stack are None when cuobjdump cannot be run."""

    variant: Variant
    seconds: float
    registers: int | None = None
    stack: int | None = None
    shared: int = 0
    matrix: str = ""
    error: str = ""

    def problems(self) -> list[str]:
        """Why this outcome fails the check; empty if it passes."""
        found = [self.error] if self.error else []
        if self.shared > SHARED_LIMIT:
            found.append(f"shared memory {self.shared} B exceeds {SHARED_LIMIT} B")
        if self.stack is not None and self.stack > STACK_LIMIT:
            found.append(f"spills {self.stack} B per thread, at most {STACK_LIMIT} B are allowed")
        if not self.error and self.matrix != self.variant.matrix:
            found.append(f"multiplies by {self.matrix!r}, expected {self.variant.matrix!r}")
        return found


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
    label = f"{POINTERS[dtype][1:]} {positive} width {width}"
    size = "one" if width == 1 else "odd" if width % 16 else "even"
    options = {"num_warps": WARPS}
    constants = gather_constants(width)
    return Variant("gather_kernel", label, arch, size, arguments, constants, options)


def quick_variants(arch: int) -> Iterator[Variant]:
    """The heaviest variant of each kind of kernel."""
    yield tile_variant(arch, torch.bfloat16, "highest", "linear", "target+ids", "even")
    yield tile_variant(arch, torch.float32, "high", "exponential", "", "odd")
    yield tile_variant(arch, torch.float32, "highest", "none", "target", "one")
    yield prepare_variant(arch, torch.bfloat16, "positive normalize ranges counts", 1024)
    yield finish_variant(arch, "exponential", STATES, "scaled", 1024)
    yield gather_variant(arch, torch.bfloat16, "indexed", 1024)


def full_variants(arch: int) -> Iterator[Variant]:
    """Everything that is launched."""
    yield from mine_variants(arch)
    for dtype in DTYPES:
        for positive in ("indexed", "own", "listed"):
            yield gather_variant(arch, dtype, positive, 1024)
    for width in (1, 65):
        yield gather_variant(arch, torch.bfloat16, "indexed", width)


def compile_variant(variant: Variant) -> Outcome:
    """Compile one variant for its architecture and read back what it uses."""
    import triton
    from triton.backends.compiler import GPUTarget

    started = time.perf_counter()
    target = GPUTarget("cuda", variant.arch, 32)
    options = {**variant.options, **LAUNCH_OPTIONS}
    try:
        kernel = triton.compile(source_of(variant), target=target, options=options)
    except Exception as error:  # Any failure of the compiler is a finding, to be listed.
        text = f"{type(error).__name__}: {error}"
        return Outcome(variant, time.perf_counter() - started, error=text)
    seconds = time.perf_counter() - started
    registers, stack = resource_usage(kernel.asm["cubin"])
    matrix = used_matrix_instruction(kernel.asm["ptx"]) if variant.matrix else ""
    return Outcome(variant, seconds, registers, stack, kernel.metadata.shared, matrix)


def source_of(variant: Variant) -> Any:
    """The `ASTSource` a launch with these arguments would compile."""
    from triton.compiler import ASTSource

    from goal_kernels.backends.triton.runtime import load_kernels

    function = getattr(load_kernels(), variant.kernel)
    constants = dict(variant.constants)
    signature = {}
    for name in function.arg_names:
        kind = variant.arguments.get(name)
        if kind == "i32" and variant.size == "one":
            kind, constants[name] = None, 1
        elif kind is None:
            constants.setdefault(name, None)
        signature[name] = kind or "constexpr"
    attributes = {
        (position,): DIVISIBLE
        for position, name in enumerate(function.arg_names)
        if signature[name].startswith("*") or (signature[name] == "i32" and variant.size == "even")
    }
    return ASTSource(function, signature, constants, attributes)


def used_matrix_instruction(ptx: str) -> str:
    """Which instruction multiplies in this PTX: wgmma, mma or fma."""
    if "wgmma.mma_async" in ptx:
        return "wgmma"
    return "mma" if "mma.sync" in ptx else "fma"


def resource_usage(cubin: bytes) -> tuple[int | None, int | None]:
    """Registers and stack bytes per thread by cuobjdump; None where it is missing."""
    import triton

    try:
        tool = triton.knobs.nvidia.cuobjdump.path
    except RuntimeError:  # Triton's way of saying that the tool is nowhere to be found.
        return None, None
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        run = subprocess.run(
            [tool, "-res-usage", file.name], capture_output=True, text=True, check=True
        )
    usage = re.search(r"REG:(\d+) STACK:(\d+)", run.stdout)
    if usage is None:
        raise RuntimeError(f"cuobjdump -res-usage printed no REG and STACK: {run.stdout!r}")
    return int(usage[1]), int(usage[2])


def describe(outcome: Outcome) -> str:
    """One line of the table."""
    variant = outcome.variant
    registers = "?" if outcome.registers is None else outcome.registers
    stack = "?" if outcome.stack is None else outcome.stack
    line = (
        f"sm_{variant.arch}  {variant.kernel:15}  {variant.label:36}  {variant.size:4}  "
        f"{registers:>4}  {stack:>5}  {outcome.shared:>6}  {outcome.matrix:6}  "
        f"{outcome.seconds:5.1f}"
    )
    return "\n".join([line, *(f"    FAILED: {problem}" for problem in outcome.problems())])


def main(arguments: list[str] | None = None) -> int:
    """Compile, print the table, return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one variant per kind of kernel")
    parser.add_argument("--arch", type=int, nargs="+", default=ARCHITECTURES, metavar="N")
    options = parser.parse_args(arguments)

    from goal_kernels.backends.triton.runtime import load_kernels

    if load_kernels().INTERPRETED:
        parser.error("TRITON_INTERPRET is set, so there is nothing to compile; unset it")
    variants = quick_variants if options.quick else full_variants
    print(
        f"arch   {'kernel':15}  {'variant':36}  size  regs  stack  shared  matrix  secs", flush=True
    )
    failures = compiled = 0
    for arch in options.arch:
        for variant in variants(arch):
            outcome = compile_variant(variant)
            print(describe(outcome), flush=True)
            compiled += 1
            failures += bool(outcome.problems())
    print(f"{compiled} compiled, {failures} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
