"""Compiling a variant without a GPU, and reading back what became of it."""

from __future__ import annotations

import importlib
import re
import subprocess
import tempfile
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

from goal_kernels.backends.gpu.runtime import load_step
from tools.aot import sass
from tools.aot.variant import Variant


class MachineCode(NamedTuple):
    """What cuobjdump tells: registers and stack bytes per thread, and the listing if asked for."""

    registers: int
    stack: int
    instructions: list[sass.Instruction]


@dataclass(frozen=True)
class Outcome:
    """What became of a variant.

    registers, stack, loop (what the tile loop executes) are None where cuobjdump cannot be run;
    loop also where nothing has to multiply.
    """

    variant: Variant
    seconds: float
    registers: int | None = None
    stack: int | None = None
    shared: int = 0
    matrix: str = ""
    loop: sass.Counts | None = None
    error: str = ""

    def problems(self) -> list[str]:
        """Why this outcome fails the check; empty if it passes."""
        if self.error:
            return [self.error]
        limits, loop = self.variant.limits, self.loop
        used: list[tuple[str, int | None, int | None]] = [
            ("registers per thread", self.registers, limits.registers),
            ("spilled bytes per thread", self.stack, limits.stack),
            ("bytes of shared memory", self.shared, limits.shared),
        ]
        if loop is not None:
            used.append(("shuffles in the tile loop", loop.shuffles, limits.shuffles))
            used.append(("local memory accesses in the tile loop", loop.local, limits.local))
        found = [
            f"{value} {what}, at most {limit} allowed"
            for what, value, limit in used
            if value is not None and limit is not None and value > limit
        ]
        if self.matrix != self.variant.matrix:
            found.append(f"multiplies by {self.matrix!r}, expected {self.variant.matrix!r}")
        return found


def compile_variant(variant: Variant) -> Outcome:
    """Compile one variant for its architecture and read back what it uses."""
    started = time.perf_counter()
    try:
        kernel = triton_compile(variant)
    except Exception as error:  # Any failure of the compiler is a finding, to be listed.
        text = f"{type(error).__name__}: {error}"
        return Outcome(variant, time.perf_counter() - started, error=text)
    seconds = time.perf_counter() - started
    shared = kernel.metadata.shared
    code = machine_code(kernel.asm["cubin"], listed=bool(variant.matrix))
    if code is None:
        matrix = _matrix_of_ptx(kernel.asm["ptx"]) if variant.matrix else ""
        return Outcome(variant, seconds, shared=shared, matrix=matrix)
    loop, matrix = None, ""
    if variant.matrix:
        matrix = sass.used_matrix_instruction(code.instructions)
        kind = variant.matrix
        loop = sass.count(sass.tile_loop(code.instructions, kind), kind)
    return Outcome(variant, seconds, code.registers, code.stack, shared, matrix, loop)


def triton_compile(variant: Variant) -> Any:
    """Triton's compiled kernel, from its cache if it is there; raises what the compiler raises."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    load_step()
    function = getattr(importlib.import_module(variant.module), variant.kernel)
    source = ASTSource(function, variant.signature, variant.constants, variant.attributes)
    target = GPUTarget("cuda", variant.arch, 32)
    return triton.compile(source, target=target, options=variant.options)


def machine_code(cubin: bytes, listed: bool = True) -> MachineCode | None:
    """Read a cubin by cuobjdump; None where that is missing. listed: with its instructions."""
    tool = disassembler()
    if tool is None:
        return None
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [tool, "-res-usage", *(["-sass"] if listed else []), file.name]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
    used = re.search(r"REG:(\d+) STACK:(\d+)", run.stdout)
    instructions = sass.parse(run.stdout)
    if used is None or (listed and not instructions):
        raise RuntimeError(f"{' '.join(command)} printed nothing to read: {run.stderr!r}")
    return MachineCode(int(used[1]), int(used[2]), instructions)


def disassembler() -> str | None:
    """Path of cuobjdump, which Triton's packages hold; None where it is missing."""
    import triton

    try:
        return str(triton.knobs.nvidia.cuobjdump.path)
    except RuntimeError:  # Triton's way of saying that the tool is nowhere to be found.
        return None


def _matrix_of_ptx(ptx: str) -> str:
    """Which instruction multiplies, where only PTX can be read."""
    names = {"tcgen05": "tcgen05.mma", "wgmma": "wgmma.mma_async", "mma": "mma.sync"}
    return next((kind for kind, name in names.items() if name in ptx), "fma")
