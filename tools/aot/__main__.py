"""Compile the Triton kernels ahead of time, without a GPU, and check what came out.

    python -m tools.aot [--quick | --every] [--arch N...] [--only NAME] [--jobs N]

For sm_90 every product that ships is compiled and, of the other kernels, variants that hold every
pair of words of the labels; for sm_80 such variants of all kernels, for sm_100 variants that hold
every word, for other architectures the heaviest of each kernel. --every leaves nothing out.

Prints one line per compiled variant: registers and spilled bytes per thread, shared memory per
program, kind of matrix instruction, and of the loop over tiles the instructions, shuffles, local
memory accesses and barriers. Exits with status 1 if a variant does not compile, exceeds its
`Limits` or misses its matrix instruction.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import combinations
from typing import Any

from goal_kernels.backends.gpu.runtime import interpreting
from tools.aot.compile import Outcome, compile_variant, disassembler
from tools.aot.mine import mine_variants
from tools.aot.rank import rank_variants
from tools.aot.strip import strip_variants
from tools.aot.variant import FULL_ARCHITECTURE, Variant
from tools.aot.weigh import gather_variants, weigh_variants

ARCHITECTURES = (80, 86, 89, 90, 100, 120)

VARIANT_SOURCES: tuple[Callable[[int], Iterator[Variant]], ...] = (
    mine_variants,
    strip_variants,
    weigh_variants,
    gather_variants,
    rank_variants,
)
"""One function per family of kernels: architecture -> its variants."""

HEADER = (
    f"arch    {'kernel':15}  {'variant':36}  size  regs  stack  shared  matrix   "
    "loop  shfl  local  bar  secs"
)


COVERED = {80: 2, 90: 2, 100: 1}
"""How many words of a label have to meet in a variant of an architecture; others have the heaviest
variants alone."""


def every_variant(arch: int) -> list[Variant]:
    """All that ships for one architecture."""
    return [variant for source in VARIANT_SOURCES for variant in source(arch)]


def variants(arch: int) -> list[Variant]:
    """The matrix of one architecture: no more of `every_variant` than tells something new.

    The full architecture has all products, whose registers and loops have limits close to what they
    use. float16 compiles to what bfloat16 does: one of each kernel, for the full architecture.
    """
    listed, full = every_variant(arch), arch == FULL_ARCHITECTURE
    if arch not in COVERED:
        return [variant for variant in listed if variant.quick]
    unlike = [variant for variant in listed if not variant.label.startswith("fp16")]
    chosen = [variant for variant in unlike if variant.quick or (full and variant.matrix)]
    chosen = covering(unlike, COVERED[arch], chosen)
    return covering(listed, 1, chosen) if full else chosen


def words(variant: Variant) -> list[str]:
    """What tells a variant from others of its kernel."""
    return sorted({*variant.label.replace("/", " ").split(), variant.size})


def covering(listed: list[Variant], strength: int, chosen: list[Variant]) -> list[Variant]:
    """The chosen ones and enough others that all words which meet in a variant meet in one of them.

    strength: how many words at a time. Greedy: always the variant with the most new groups.
    """

    def groups(variant: Variant) -> set[tuple[str, ...]]:
        return {(variant.kernel, *found) for found in combinations(words(variant), strength)}

    found = {id(variant): groups(variant) for variant in listed}
    missing = set().union(*found.values())
    taken = {id(variant) for variant in chosen}
    missing.difference_update(*(found[each] for each in taken))
    while missing:
        best = max(found, key=lambda each: len(found[each] & missing))
        taken.add(best)
        missing -= found[best]
    return [variant for variant in listed if id(variant) in taken]


def compile_all(listed: list[Variant], jobs: int) -> Iterator[Outcome]:
    """The outcomes in order, as they become known; compiled by that many processes."""
    if jobs == 1:
        yield from map(compile_variant, listed)
        return
    # Not forked: torch and Triton have threads.
    context = multiprocessing.get_context("spawn")
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
    line = (
        f"sm_{variant.arch:<4} {variant.kernel:15}  {variant.label:36}  {variant.size:4}  "
        f"{'  '.join(used)}  {outcome.matrix:7}  {counts}  {outcome.seconds:4.1f}"
    )
    return "\n".join([line, *(f"    FAILED: {problem}" for problem in outcome.problems())])


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument("--quick", action="store_true", help="only the heaviest of each kernel")
    extent.add_argument("--every", action="store_true", help="all that ships, on each architecture")
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
    listed = [
        variant
        for arch in options.arch
        for variant in (every_variant if options.every else variants)(arch)
        if options.only in variant.kernel and (variant.quick or not options.quick)
    ]
    if disassembler() is None:
        print("cuobjdump is missing: registers, spills and loops are not checked")
    print(HEADER, flush=True)
    failures = compiled = 0
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
