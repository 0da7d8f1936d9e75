"""Compile the Triton kernels ahead of time, without a GPU, and check what came out.

    python -m tools.aot [--quick | --every] [--arch N...] [--only NAME] [--jobs N]

What is compiled is what the calls listed in `tools/aot/cases.py` launch: most of them on sm_90,
fewer on sm_80 and sm_100, a few that launch every kernel on other architectures. --quick runs these
few only, --every runs all on every architecture.

Prints one line per compiled variant: registers and spilled bytes per thread, shared memory per
program, kind of matrix instruction, and of the loop over tiles the instructions, shuffles, local
memory accesses and barriers. Exits with status 1 if a variant does not compile, exceeds its
`Limits` or misses its matrix instruction, or if there is a kernel that no case launches.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from goal_kernels.backends.gpu.runtime import interpreting
from tools.aot.cases import CASES, QUICK, kernel_names, variants
from tools.aot.compile import Outcome, compile_variant, disassembler
from tools.aot.variant import Variant

ARCHITECTURES = (80, 86, 89, 90, 100, 120)
LABEL = max(len(case.label) for case in CASES)

HEADER = (
    f"arch    {'kernel':16}  {'first case that launches it':{LABEL}}  regs  stack  shared"
    "  matrix    loop  shfl  local  bar  secs"
)


def compile_all(listed: list[Variant], jobs: int) -> Iterator[Outcome]:
    """The outcomes in order, as they become known; compiled by that many processes."""
    if jobs == 1:
        yield from map(compile_variant, listed)
        return
    # Forked from a process that has imported torch and Triton and started no thread.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tools.aot.compile"])
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        yield from pool.map(compile_variant, listed)


def describe(outcome: Outcome) -> str:
    """One line of the table, and one per problem."""
    variant, loop = outcome.variant, outcome.loop

    def cell(value: Any, width: int) -> str:
        return f"{'?' if value is None else value:>{width}}"

    used = [cell(outcome.registers, 4), cell(outcome.stack, 5), cell(outcome.shared, 6)]
    counts = " " * 22
    if loop is not None:
        counts = f"{loop.total:5}  {loop.shuffles:4}  {loop.local:5}  {loop.barriers:3}"
    name = f"sm_{variant.arch:<4} {variant.kernel:16}  {variant.label:{LABEL}}"
    line = f"{name}  {'  '.join(used)}  {outcome.matrix:7}  {counts}  {outcome.seconds:4.1f}"
    return "\n".join([line, *(f"    FAILED: {problem}" for problem in outcome.problems())])


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument("--quick", action="store_true", help="only a few cases")
    extent.add_argument("--every", action="store_true", help="all cases, on each architecture")
    parser.add_argument("--arch", type=int, nargs="+", default=ARCHITECTURES, metavar="N")
    parser.add_argument("--only", default="", metavar="NAME", help="kernels whose name has NAME")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N")
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        parser.error(f"--jobs: expected at least 1, got {options.jobs}")
    if interpreting():
        parser.error("TRITON_INTERPRET is set, so there is nothing to compile; unset it")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Compile, print the table, return the exit status."""
    options = parse_arguments(arguments)
    listed, failures, compiled = [], 0, 0
    print(HEADER, flush=True)
    cases = [case for case in CASES if case.architectures == QUICK or not options.quick]
    for arch in options.arch:
        launched = variants(arch, [case for case in cases if options.every or case.on(arch)])
        listed += [variant for variant in launched if options.only in variant.kernel]
        for kernel in sorted(kernel_names().difference(variant.kernel for variant in launched)):
            print(f"sm_{arch:<4} {kernel}\n    FAILED: no case launches it")
            failures += 1
    if disassembler() is None:
        print("cuobjdump is missing: registers, spills and loops are not checked")
    try:
        for outcome in compile_all(listed, min(options.jobs, max(len(listed), 1))):
            print(describe(outcome), flush=True)
            compiled += 1
            failures += bool(outcome.problems())
    except BrokenProcessPool:
        print("FAILED: the compiler itself crashed; --jobs 1 tells on which variant")
        failures += 1
    print(f"{compiled} compiled, {failures} failed")
    return 1 if failures or not compiled else 0


if __name__ == "__main__":
    raise SystemExit(main())
