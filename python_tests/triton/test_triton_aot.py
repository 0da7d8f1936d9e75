"""Ahead-of-time compilation: a few variants in a process without the interpreter, and the verdicts.

The full matrix is `python -m goal_kernels.backends.triton.aot`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
import torch

from goal_kernels.backends.base import PRECISIONS, RELATIVE_KINDS
from goal_kernels.backends.triton.aot import Outcome, full_variants, mine_variant, quick_variants
from goal_kernels.backends.triton.configs import DTYPES, SHARED_LIMIT, STACK_LIMIT, mine_tile

pytest.importorskip("triton")

BROKEN = """
from dataclasses import replace
from goal_kernels.backends.triton import aot
variant = next(aot.quick_variants(80))
broken = replace(variant, arguments={**variant.arguments, "image": "i32"})
aot.quick_variants = lambda arch: iter([broken])
raise SystemExit(aot.main(["--quick", "--arch", "80"]))
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


@pytest.mark.parametrize(("arch", "matrix"), [("80", "mma"), ("90", "wgmma")])
def test_quick_matrix_compiles(arch: str, matrix: str) -> None:
    done = run("-m", "goal_kernels.backends.triton.aot", "--quick", "--arch", arch)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 compiled, 0 failed" in done.stdout
    # The bf16 line: registers within what one thread can have, and the tensor cores at work.
    line = re.search(rf"bf16 linear target\+ids +even +(\d+) +\d+ +\d+ +{matrix} ", done.stdout)
    assert line is not None, done.stdout
    assert 0 < int(line[1]) <= 255


def test_a_kernel_that_does_not_compile_fails_the_check() -> None:
    done = run("-c", BROKEN)
    assert done.returncode == 1
    assert "FAILED: " in done.stdout
    assert "1 compiled, 1 failed" in done.stdout


def test_interpreted_kernels_are_refused() -> None:
    done = run("-m", "goal_kernels.backends.triton.aot", "--quick", TRITON_INTERPRET="1")
    assert done.returncode == 2
    assert "unset it" in done.stderr


def test_limits_are_enforced() -> None:
    variant = next(quick_variants(90))
    assert Outcome(variant, 1.0, 255, STACK_LIMIT, SHARED_LIMIT, "wgmma").problems() == []
    over = Outcome(variant, 1.0, 255, STACK_LIMIT + 1, SHARED_LIMIT + 1, "fma").problems()
    assert len(over) == 3
    assert Outcome(variant, 1.0, error="it broke").problems() == ["it broke"]


def test_the_full_matrix_holds_every_shipped_configuration() -> None:
    listed = list(full_variants(90))
    assert len(set(map(repr, listed))) == len(listed)
    for dtype in DTYPES:
        for kind in RELATIVE_KINDS:
            for precision in PRECISIONS if dtype == torch.float32 else ("highest",):
                for pairing in ("", "target+ids"):
                    assert mine_variant(90, dtype, precision, kind, pairing, "even") in listed


@pytest.mark.parametrize("kind", RELATIVE_KINDS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_tiles_are_powers_of_two_that_tensor_cores_take(precision: str, kind: str) -> None:
    for dtype in DTYPES:
        tile = mine_tile(dtype, precision, kind)
        for size in (tile.rows, tile.columns, tile.width):
            assert size >= 16
            assert size & (size - 1) == 0
