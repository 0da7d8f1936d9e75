"""Ahead-of-time compilation: a few cases in processes without the interpreter, and the verdicts.

All of them are `python -m tools.aot`.
"""

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
from tools.aot import cases
from tools.aot.compile import Outcome
from tools.aot.sass import Counts
from tools.aot.variant import Limits, Variant

pytest.importorskip("triton")

ROOT = Path(__file__).parent.parent.parent

CHANGED = """
import contextlib, io, json, os
from dataclasses import replace
from tools.aot import __main__ as aot, cases, compile


def check(name, changed=None, arguments=("--quick", "--arch", "90", "--jobs", "1")):
    aot.variants = lambda arch, chosen: [changed] if changed else cases.variants(arch, chosen)
    aot.kernel_names = lambda: {changed.kernel} if changed else cases.kernel_names()
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        status = aot.main(list(arguments))
    answers[name] = status, printed.getvalue()


answers = {}
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
print(json.dumps(answers))
"""
"""What the check says after changes, most of them of a variant; what is known of some launches."""


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
def answers() -> dict[str, Any]:
    """By name what CHANGED finds, in one process: exit status and output of the checks."""
    done = run("-c", CHANGED)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_quick_cases_compile_in_several_processes() -> None:
    """On one architecture; `make aot` compiles for all of them."""
    done = run("-m", "tools.aot", "--quick", "--jobs", "2", "--arch", "90")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = re.findall("^sm_90 .*", done.stdout, re.M)
    assert f"{len(lines)} compiled, 0 failed" in done.stdout
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


def test_interpreted_kernels_are_refused() -> None:
    done = run("-m", "tools.aot", "--quick", TRITON_INTERPRET="1")
    assert done.returncode == 2
    assert "unset it" in done.stderr


def test_limits_are_enforced() -> None:
    limits = Limits(registers=128, stack=8, shared=4096, shuffles=24, local=0)
    variant = Variant("mine_kernel", "", 90, {}, {}, {}, {}, "wgmma", limits)
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
