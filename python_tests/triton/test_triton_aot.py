"""Ahead-of-time compilation: a few variants in a process without the interpreter, and the verdicts.

The full matrix is `python -m tools.aot`.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
import torch

from goal_kernels.backends.base import PRECISIONS, RELATIVE_KINDS
from goal_kernels.backends.gpu.configs import DTYPES, SMALL_LENGTH, mine_tile
from tools.aot import __main__ as aot
from tools.aot.compile import Outcome
from tools.aot.mine import tile_variant
from tools.aot.sass import Counts
from tools.aot.variant import Limits, Variant

pytest.importorskip("triton")

ROOT = Path(__file__).parent.parent.parent
KERNELS = ROOT / "goal_kernels" / "backends" / "gpu" / "kernels"

CHANGED = """
import contextlib, io, json, os
from dataclasses import replace
from tools.aot import __main__ as aot, compile

variant = next(v for v in aot.variants(90) if v.quick and v.matrix == "wgmma")
pointer = next(name for name, kind in variant.arguments.items() if "*" in (kind or ""))
disassembler, compile_all = compile.disassembler, aot.compile_all
answers = {}


def check(name, changed=variant, arguments=("--arch", "90", "--jobs", "1")):
    aot.VARIANT_SOURCES = (lambda arch: iter([changed]),)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        status = aot.main(list(arguments))
    answers[name] = status, printed.getvalue()


check("not compilable", replace(variant, arguments={**variant.arguments, pointer: "i32"}))
check("unknown argument", replace(variant, constants={**variant.constants, "BLOCK_ROW": 1}))
check("nothing", arguments=["--only", "no_such_kernel"])
aot.disassembler = compile.disassembler = lambda: None
check("no cuobjdump")
aot.disassembler = disassembler
check("no cuobjdump, wrong", replace(variant, matrix="fma"))
aot.compile_variant = os._exit
aot.compile_all = lambda listed, jobs: compile_all([1, 1], 2)
check("crash")
print(json.dumps(answers))
"""
"""What the check says of one variant, `variant`, after some changes."""


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    return subprocess.run(
        [sys.executable, *arguments],
        env={**environment, **variables},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def verdicts() -> dict[str, tuple[int, str]]:
    """Exit status and output of every check of CHANGED, which share a process."""
    done = run("-c", CHANGED)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_kernel_compiles_for_two_architectures_in_two_processes() -> None:
    """One that multiplies on tensor cores; `make aot` compiles all of them."""
    quick = [v for a in (90, 120) for v in aot.variants(a) if v.quick and v.kernel == "rank_kernel"]
    assert len(quick) == 2
    options = ("--quick", "--only", "rank_kernel", "--jobs", "2", "--arch", "90", "120")
    done = run("-m", "tools.aot", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(quick)} compiled, 0 failed" in done.stdout
    assert done.stdout.count("\nsm_") == len(quick)
    # The bf16 lines: registers within what one thread can have, and the tensor cores at work.
    for arch, matrix in (("90", "wgmma"), ("120", "mma")):
        pattern = rf"sm_{arch} .* bf16 .* even +(\d+) +\d+ +\d+ +{matrix} +(\d+) "
        line = re.search(pattern, done.stdout)
        assert line is not None, done.stdout
        assert 0 < int(line[1]) <= 255
        assert int(line[2]) > 100


def test_a_kernel_that_does_not_compile_fails_the_check(verdicts) -> None:
    status, output = verdicts["not compilable"]
    assert status == 1
    assert "FAILED: " in output
    assert "1 compiled, 1 failed" in output


def test_an_argument_that_the_kernel_does_not_have_fails_the_check(verdicts) -> None:
    status, output = verdicts["unknown argument"]
    assert status == 1
    assert re.search("FAILED: TypeError: [a-z]+_kernel has no argument BLOCK_ROW\n", output)


def test_without_cuobjdump_it_compiles_and_says_what_it_cannot_check(verdicts) -> None:
    status, output = verdicts["no cuobjdump"]
    assert status == 0, output
    assert "cuobjdump is missing" in output
    assert re.search(r" even +\? +\? +\d+ +wgmma ", output)
    status, output = verdicts["no cuobjdump, wrong"]
    assert status == 1
    assert "FAILED: multiplies by 'wgmma', expected 'fma'" in output


def test_a_compiler_that_crashes_fails_the_check(verdicts) -> None:
    status, output = verdicts["crash"]
    assert status == 1
    assert "the compiler itself crashed" in output
    assert "0 compiled, 1 failed" in output


def test_nothing_to_compile_fails_the_check(verdicts) -> None:
    status, output = verdicts["nothing"]
    assert status == 1
    assert "0 compiled" in output


def test_interpreted_kernels_are_refused() -> None:
    done = run("-m", "tools.aot", "--quick", TRITON_INTERPRET="1")
    assert done.returncode == 2
    assert "unset it" in done.stderr


def test_limits_are_enforced() -> None:
    limits = Limits(registers=128, stack=8, shared=4096, shuffles=24, local=0)
    variant = replace(aot.variants(90)[0], limits=limits, matrix="wgmma")
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
    listed = aot.variants(arch)
    assert len(set(map(repr, listed))) == len(listed)
    assert {variant.arch for variant in listed} == {arch}
    kernels = jit_kernels()
    assert kernels
    for part in (listed, [variant for variant in listed if variant.quick]):
        assert {variant.kernel for variant in part} == kernels


def test_the_matrix_holds_every_shipped_configuration_of_mining() -> None:
    every, listed = aot.every_variant(90), aot.variants(90)
    for dtype in DTYPES:
        for kind in RELATIVE_KINDS:
            for precision in PRECISIONS if dtype == torch.float32 else ("highest",):
                for pairing in ("", "target+ids"):
                    variant = tile_variant(90, dtype, precision, kind, pairing, "even")
                    assert variant in every
                    assert dtype == torch.float16 or variant in listed


def groups(listed: list[Variant], strength: int) -> set[tuple[str, ...]]:
    return {
        (variant.kernel, *found)
        for variant in listed
        for found in combinations(aot.words(variant), strength)
    }


@pytest.mark.parametrize("arch", aot.COVERED)
def test_what_is_left_out_tells_nothing_new(arch: int) -> None:
    """All but float16, which compiles to what bfloat16 does, meets whatever it meets elsewhere."""
    every, listed = aot.every_variant(arch), aot.variants(arch)
    assert set(map(repr, listed)) < set(map(repr, every))
    left_out = [variant for variant in every if variant not in listed]
    unlike = [variant for variant in left_out if not variant.label.startswith("fp16")]
    assert groups(unlike, aot.COVERED[arch]) <= groups(listed, aot.COVERED[arch])
    assert arch != 90 or not any(variant.matrix for variant in unlike)
    assert all(variant in listed for variant in every if variant.quick)
    half = [variant for variant in every if variant.label.startswith("fp16")]
    if arch == 90:
        assert {v.kernel for v in half} == {v.kernel for v in listed if v.label.startswith("fp16")}


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
