"""Ahead-of-time compilation: a few variants in a process without the interpreter, and the verdicts.

The full matrix is `python -m goal_kernels.backends.triton.aot`.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from goal_kernels.backends.base import PRECISIONS, RELATIVE_KINDS
from goal_kernels.backends.triton import aot
from goal_kernels.backends.triton.aot_mine import tile_variant
from goal_kernels.backends.triton.compile import Outcome
from goal_kernels.backends.triton.configs import DTYPES, SMALL_LENGTH, mine_tile
from goal_kernels.backends.triton.sass import Counts
from goal_kernels.backends.triton.variant import Limits

pytest.importorskip("triton")

KERNELS = Path(aot.__file__).parent

ONE_VARIANT = """
from dataclasses import replace
from goal_kernels.backends.triton import aot, compile
variant = next(v for v in aot.variants(90) if v.quick and v.matrix == "wgmma")
{change}
aot.VARIANT_SOURCES = (lambda arch: iter([variant]),)
raise SystemExit(aot.main(["--arch", "90", "--jobs", "1"]))
"""


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    return subprocess.run(
        [sys.executable, *arguments],
        env={**environment, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def run_with(change: str) -> subprocess.CompletedProcess[str]:
    """Check one variant, `variant`, after some change."""
    return run("-c", ONE_VARIANT.format(change=change))


def test_quick_matrix_compiles_in_several_processes() -> None:
    quick = [v for arch in (80, 90, 100) for v in aot.variants(arch) if v.quick]
    done = run("-m", "goal_kernels.backends.triton.aot", "--quick", "--jobs", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(quick)} compiled, 0 failed" in done.stdout
    assert done.stdout.count("\nsm_") == len(quick)
    # The bf16 lines: registers within what one thread can have, and the tensor cores at work.
    for arch, matrix in (("80", "mma"), ("90", "wgmma"), ("100", "tcgen05")):
        pattern = rf"sm_{arch} .* bf16 .* even +(\d+) +\d+ +\d+ +{matrix} +(\d+) "
        line = re.search(pattern, done.stdout)
        assert line is not None, done.stdout
        assert 0 < int(line[1]) <= 255
        assert int(line[2]) > 100


def test_a_kernel_that_does_not_compile_fails_the_check() -> None:
    done = run_with(
        'first = next(name for name, kind in variant.arguments.items() if "*" in (kind or ""))\n'
        'variant = replace(variant, arguments={**variant.arguments, first: "i32"})'
    )
    assert done.returncode == 1
    assert "FAILED: " in done.stdout
    assert "1 compiled, 1 failed" in done.stdout


def test_an_argument_that_the_kernel_does_not_have_fails_the_check() -> None:
    done = run_with('variant = replace(variant, constants={**variant.constants, "BLOCK_ROW": 1})')
    assert done.returncode == 1
    assert re.search("FAILED: TypeError: [a-z]+_kernel has no argument BLOCK_ROW\n", done.stdout)


def test_without_cuobjdump_it_compiles_and_says_what_it_cannot_check() -> None:
    done = run_with("aot.disassembler = compile.disassembler = lambda: None")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "cuobjdump is missing" in done.stdout
    assert re.search(r" even +\? +\? +\d+ +wgmma ", done.stdout)
    wrong = run_with(
        "compile.disassembler = lambda: None\nvariant = replace(variant, matrix='fma')"
    )
    assert wrong.returncode == 1
    assert "FAILED: multiplies by 'wgmma', expected 'fma'" in wrong.stdout


def test_a_compiler_that_crashes_fails_the_check() -> None:
    code = (
        "import os\nfrom goal_kernels.backends.triton import aot\n"
        "compile_all, aot.compile_variant = aot.compile_all, os._exit\n"
        "aot.compile_all = lambda listed, jobs: compile_all([1, 1], jobs)\n"
        'raise SystemExit(aot.main(["--quick", "--arch", "90", "--jobs", "2"]))'
    )
    done = run("-c", code)
    assert done.returncode == 1
    assert "the compiler itself crashed" in done.stdout
    assert "0 compiled, 1 failed" in done.stdout


def test_nothing_to_compile_fails_the_check() -> None:
    done = run("-m", "goal_kernels.backends.triton.aot", "--only", "no_such_kernel")
    assert done.returncode == 1
    assert "0 compiled" in done.stdout


def test_interpreted_kernels_are_refused() -> None:
    done = run("-m", "goal_kernels.backends.triton.aot", "--quick", TRITON_INTERPRET="1")
    assert done.returncode == 2
    assert "unset it" in done.stderr


def test_limits_are_enforced() -> None:
    limits = Limits(registers=128, stack=8, shared=4096, shuffles=24, local=0)
    variant = replace(next(aot.variants(90)), limits=limits, matrix="wgmma")
    loop = Counts(total=1000, shuffles=24, local=0, barriers=9, atomics=0, matrix=4)
    met = Outcome(variant, 1.0, 128, 8, 4096, "wgmma", loop)
    assert met.problems() == []
    for change, reason in (
        ({"registers": 129}, "129 registers per thread, at most 128 allowed"),
        ({"stack": 9}, "9 spilled bytes per thread, at most 8 allowed"),
        ({"shared": 4097}, "4097 bytes of shared memory, at most 4096 allowed"),
        ({"matrix": "fma"}, "multiplies by 'fma', expected 'wgmma'"),
        ({"loop": loop._replace(shuffles=25)}, "25 shuffles in the tile loop, at most 24 allowed"),
        (
            {"loop": loop._replace(local=1)},
            "1 local memory accesses in the tile loop, at most 0 allowed",
        ),
    ):
        assert replace(met, **change).problems() == [reason]
    free = replace(variant, limits=Limits(registers=128, stack=8, shared=4096))
    assert replace(met, variant=free, loop=loop._replace(shuffles=999, local=99)).problems() == []
    assert replace(met, error="it broke").problems() == ["it broke"]


def jit_kernels() -> set[str]:
    """Every jit function that is launched, by the convention of its name."""
    found = set()
    for path in KERNELS.glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if not isinstance(node, ast.FunctionDef) or not node.name.endswith("_kernel"):
                continue
            if any("triton.jit" in ast.unparse(mark) for mark in node.decorator_list):
                found.add(node.name)
    return found


@pytest.mark.parametrize("arch", aot.ARCHITECTURES)
def test_the_matrix_holds_every_kernel(arch: int) -> None:
    listed = list(aot.variants(arch))
    assert len(set(map(repr, listed))) == len(listed)
    assert {variant.arch for variant in listed} == {arch}
    kernels = jit_kernels()
    assert kernels
    for part in (listed, [variant for variant in listed if variant.quick]):
        assert {variant.kernel for variant in part} == kernels


def test_the_matrix_holds_every_shipped_configuration_of_mining() -> None:
    listed = list(aot.variants(90))
    for dtype in DTYPES:
        for kind in RELATIVE_KINDS:
            for precision in PRECISIONS if dtype == torch.float32 else ("highest",):
                for pairing in ("", "target+ids"):
                    assert tile_variant(90, dtype, precision, kind, pairing, "even") in listed


@pytest.mark.parametrize("kind", RELATIVE_KINDS)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("length", [SMALL_LENGTH, SMALL_LENGTH + 1])
def test_tiles_are_powers_of_two_that_tensor_cores_take(
    precision: str, kind: str, length: int
) -> None:
    for dtype in DTYPES:
        tile = mine_tile(dtype, precision, kind, length)
        for size in (tile.rows, tile.columns, tile.width):
            assert size >= 16
            assert size & (size - 1) == 0
