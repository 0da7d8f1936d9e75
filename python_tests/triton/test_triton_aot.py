"""Ahead-of-time compilation: a few cases in processes without the interpreter, and the verdicts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from goal_kernels import Objective
from goal_kernels.backends.base import PRECISIONS, RELATIVE_KINDS
from goal_kernels.backends.gpu.configs import (
    DENSE_LIMIT,
    DIRECTION_CODES,
    DTYPES,
    PAIR_CODES,
    SMALL_LENGTH,
    TRIPLET_CODES,
    mine_tile,
)
from tools.aot import cases, sass
from tools.aot.compile import Outcome
from tools.aot.variant import Limits, Variant

pytest.importorskip("triton")

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

COMMANDS = """
import contextlib, io, json, os, runpy, sys
from dataclasses import replace

import torch

answers = {}


def command(name, *arguments):
    sys.argv = ["aot", *arguments]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        with contextlib.redirect_stderr(io.StringIO()) as err:
            try:
                runpy.run_module("tools.aot", run_name="__main__")
            except SystemExit as end:
                answers[name] = end.code, out.getvalue() + err.getvalue()


os.environ["TRITON_INTERPRET"] = "1"
command("interpreted", "--quick")
del os.environ["TRITON_INTERPRET"]
command("quick", "--quick", "--jobs", "2", "--arch", "90")
"""
"""`python -m tools.aot`, in a process that has imported nothing of it."""

READ_BACK = """
from sample_kernels import walk_kernel
from triton.tools.tensor_descriptor import TensorDescriptor

from tools.aot import compile, sass
from tools.aot.record import DEVICE, Launch
from tools.aot.variant import Limits, Variant

block = TensorDescriptor.from_tensor(
    torch.empty(64, 64, dtype=torch.bfloat16, device=DEVICE), [64, 64]
)
arguments = block, block, torch.empty(64, dtype=torch.int32, device=DEVICE), 16, 64
answers["read back"] = []
for arch, matrix in ((80, "mma"), (90, "wgmma"), (100, "tcgen05")):
    for inside in (True, False):
        options = dict(INSIDE=inside, BLOCK=64, BLOCK_WIDTH=64, num_warps=4, num_stages=3)
        launch = Launch("walk_kernel", (1,), walk_kernel, arguments, options)
        variant = Variant.of_launch(launch, arch)
        outcome = compile.compile_variant(
            replace(variant, matrix=matrix, limits=Limits(shuffles=4))
        )
        cubin = compile.triton_compile(variant).asm["cubin"]
        whole = compile.machine_code(cubin).instructions
        found = [arch, inside, outcome.problems(), outcome.loop, sass.count(whole, matrix)]
        answers["read back"].append(found)
"""
"""A kernel whose loops are known."""

CHANGED = """
from tools.aot import __main__ as aot, cases, compile


def check(name, changed=None, arguments=("--quick", "--arch", "90", "--jobs", "1")):
    aot.variants = lambda arch, chosen: [changed] if changed else cases.variants(arch, chosen)
    aot.kernel_names = lambda: {changed.kernel} if changed else cases.kernel_names()
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        status = aot.main(list(arguments))
    answers[name] = status, printed.getvalue()


mine = cases.Case((), "1000x512", "bf16", "mine")
variant = next(v for v in cases.variants(90, [mine]) if v.matrix)
disassembler, compile_all = compile.disassembler, aot.compile_all
check("not compilable", replace(variant, signature={**variant.signature, "image": "i32"}))
check("nothing", arguments=["--only", "no_such_kernel"])
aot.CASES = [mine]
check("not launched", arguments=["--only", "finish", "--arch", "90", "--jobs", "1"])
aot.disassembler = compile.disassembler = lambda: None
check("no cuobjdump", variant)
aot.disassembler = disassembler
check("no cuobjdump, wrong", replace(variant, matrix="fma"))
aot.compile_variant = os._exit
aot.compile_all = lambda listed, jobs: compile_all([1, 1], 2)
check("crash", variant)
for arch in (80, 90):
    for batch in (16384, 10001):
        case = cases.Case((), f"{batch}x512", "bf16", "hinge/linear_ms")
        strip = next(v for v in cases.variants(arch, [case]) if v.kernel == "strip_kernel")
        names, known = list(strip.signature), strip.attributes | strip.constants
        answers[f"{arch} {batch}"] = {names[place]: x for (place,), x in known.items() if x}
"""
"""What the check says after changes, most of them of a variant; what is known of some launches."""


@pytest.fixture(scope="module")
def answers() -> dict[str, Any]:
    """By name what the scripts find, in one process: exit status and output of the checks."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    path = os.pathsep.join([str(HERE), str(ROOT), environment.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", f"{COMMANDS}{READ_BACK}{CHANGED}print(json.dumps(answers))"],
        env={**environment, "PYTHONPATH": path},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_quick_cases_compile_in_several_processes(answers) -> None:
    """On one architecture; `make aot` compiles for all of them."""
    status, output = answers["quick"]
    assert status == 0, output
    lines = re.findall("^sm_90 .*", output, re.M)
    assert f"{len(lines)} compiled, 0 failed" in output
    # Tensor cores at work, in a loop over tiles.
    for kernel in ("strip", "resum", "tile", "rank"):
        pattern = rf"sm_90 +{kernel}_kernel .* bf16 .* wgmma +(\d+) "
        (line,) = filter(None, (re.match(pattern, line) for line in lines))
        assert int(line[1]) > 100


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("not compilable", r"    FAILED: \w+Error: (.|\n)*1 compiled, 1 failed"),
        ("no cuobjdump, wrong", "FAILED: multiplies by 'wgmma', expected 'fma'"),
        ("crash", "the compiler itself crashed(.|\n)*0 compiled, 1 failed"),
        ("nothing", "0 compiled"),
    ],
)
def test_what_fails_the_check(answers, change: str, said: str) -> None:
    status, output = answers[change]
    assert status == 1
    assert re.search(said, output)


def test_a_kernel_that_no_case_launches_fails_the_check(answers) -> None:
    status, output = answers["not launched"]
    assert status == 1
    missing = re.findall(r"sm_90 +(\w+)_kernel\n    FAILED: no case launches it", output)
    assert {"prepare", "tile", "finish"}.isdisjoint(missing)
    assert "strip" in missing
    assert f"1 compiled, {len(missing)} failed" in output


def test_launches_are_specialised_as_triton_does_it(answers) -> None:
    """By what is a multiple of 16; the tile is the one of the architecture."""
    for arch in (80, 90):
        even, odd = answers[f"{arch} 16384"], answers[f"{arch} 10001"]
        sixteen = [["tt.divisibility", 16]]
        assert even["columns"] == even["column_keys"] == even["width"] == odd["width"] == sixteen
        assert "columns" not in odd
        # Sizes of grids are never specialised.
        assert not {"parts", "group_blocks"}.intersection({**even, **odd})
        assert even.get("DESCRIPTORS", False) == (arch == 90)
    assert answers["80 16384"]["BLOCK_ROWS"] != answers["90 16384"]["BLOCK_ROWS"]


def test_without_cuobjdump_it_compiles_and_says_what_it_cannot_check(answers) -> None:
    status, output = answers["no cuobjdump"]
    assert status == 0, output
    assert "cuobjdump is missing" in output
    assert re.search(r"mine +\? +\? +\d+ +wgmma ", output)


def test_interpreted_kernels_are_refused(answers) -> None:
    status, output = answers["interpreted"]
    assert status == 2
    assert "unset it" in output


def test_a_compiled_kernel_is_read_back(answers) -> None:
    """Shuffles that the source has in the loop over tiles are found there, and only those."""
    results = answers["read back"]
    assert len(results) == 6
    for arch, inside, problems, loop, everything in results:
        where = f"sm_{arch}, reduced {'in' if inside else 'after'} the loop"
        assert loop is not None, f"{where}: cuobjdump is missing; Triton's packages hold it"
        loop, everything = sass.Counts(*loop), sass.Counts(*everything)
        assert loop.matrix > 0, where
        assert loop.total < everything.total, where
        assert (loop.atomics, everything.atomics > 0) == (0, True), where
        assert everything.shuffles >= 25, where
        # 10.0 broadcasts the number of a warp by one more.
        assert abs(loop.shuffles - (everything.shuffles if inside else 0)) <= 1, where
        limited = [p for p in problems if "shuffles in the tile loop, at most 4" in p]
        assert len(limited) == (1 if inside else 0), problems


def test_limits_are_enforced() -> None:
    limits = Limits(registers=128, stack=8, shared=4096, shuffles=24, local=0)
    variant = Variant("mine_kernel", "", 90, {}, {}, {}, {}, "wgmma", limits)
    loop = sass.Counts(total=1000, shuffles=24, local=0, barriers=9, atomics=0, matrix=4)
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
    free = replace(variant, limits=replace(limits, shuffles=None, local=None))
    assert replace(met, variant=free, loop=loop._replace(shuffles=999, local=99)).problems() == []
    assert replace(met, error="it broke").problems() == ["it broke"]


def test_cases_name_whatever_is_compiled_apart() -> None:
    """Every element, direction, kind of product, and relative sums of both; on sm_90."""
    listed = [case for case in cases.CASES if case.on(90)]
    assert len({case.label for case in listed}) == len(cases.CASES)
    elements = [case.call.split("/") for case in listed if "/" in case.call]
    assert {triplet for triplet, _ in elements} == set(TRIPLET_CODES)
    assert {pair for _, pair in elements} == set(PAIR_CODES)
    options = {word for case in listed for word in case.options.split()}
    assert set(DIRECTION_CODES) - {"both"} < options
    assert set(cases.DTYPES.values()) == set(DTYPES)
    found = {
        (Objective.parse(case.call).pair_element.relative, large, case.dtype)
        for case in listed
        if "/" in case.call
        for large in [int(case.shape.split("x")[0]) > DENSE_LIMIT]
    }
    products = {"bf16", *(f"fp32 {word}" for word in PRECISIONS)} - {"fp32 highest"}
    assert found >= set(product(RELATIVE_KINDS, (False, True), products))
    assert found >= set(product(RELATIVE_KINDS, (False,), ("fp32",)))


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
