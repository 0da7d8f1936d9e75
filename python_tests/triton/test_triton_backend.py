"""What the Triton backend says it can do, and that it is imported only when it is used."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from goal_kernels.backends.base import Call, Pairing, SearchQuery
from goal_kernels.backends.gpu import TritonBackend
from goal_kernels.backends.gpu.runtime import interpreting

FRESH_PROCESS = """
import sys, torch, goal_kernels
from goal_kernels.backends.base import Call
from goal_kernels.backends.gpu import TritonBackend
backend = TritonBackend()
print(backend.availability(), backend.supports(Call("cpu", torch.float32, 8)), sep="|", end="|")
print("triton" in sys.modules)
"""


def fresh_process(**variables: str) -> list[str]:
    """availability, supports(cpu) and whether triton got imported, in a process of its own."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    run = subprocess.run(
        [sys.executable, "-c", FRESH_PROCESS],
        env={**environment, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout.strip().split("|")


def test_without_a_gpu_it_says_why_and_imports_nothing() -> None:
    available, supports, imported = fresh_process(CUDA_VISIBLE_DEVICES="")
    assert "ok=False" in available
    assert "no CUDA device" in available
    assert "ok=False" in supports
    assert "TRITON_INTERPRET=1" in supports
    assert imported == "False"


def test_the_interpreter_makes_it_available() -> None:
    available, supports, imported = fresh_process(CUDA_VISIBLE_DEVICES="", TRITON_INTERPRET="1")
    assert "ok=True" in available
    assert "ok=True" in supports
    assert imported == "False"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_supported_dtypes(backend, device, dtype: torch.dtype) -> None:
    assert backend.supports(Call(device.type, dtype, 8)).ok


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (Call("cuda", torch.float64, 8), "no Triton kernel for torch.float64"),
        (Call("cuda", torch.float8_e4m3fn, 8), "no Triton kernel"),
        (Call("mps", torch.float32, 8), "device mps"),
    ],
)
def test_refusals_give_the_reason(call: Call, reason: str) -> None:
    verdict = TritonBackend().supports(call)
    assert not verdict.ok
    assert reason in verdict.reason


def test_the_interpreter_is_never_chosen_automatically(backend) -> None:
    if not interpreting():
        pytest.skip("the kernels are compiled here")
    assert backend.supports(Call("cpu", torch.float32, 8)).ok
    verdict = backend.supports(Call("cpu", torch.float32, 8, automatic=True))
    assert not verdict.ok
    assert "interpreter" in verdict.reason


def test_too_many_rows_are_refused_before_anything_runs(backend, device) -> None:
    endless = torch.zeros(1, 1, device=device).expand(2**31, 1)
    query = SearchQuery("none", 0.0, 0.0, False, "highest")
    with pytest.raises(ValueError, match=r"image: expected fewer than 2147482624 rows"):
        backend.search(endless, endless[:2], Pairing(), query)


def test_switching_the_interpreter_too_late_is_an_error() -> None:
    """Triton's own functions are compiled by then and cannot be called by interpreted kernels."""
    code = (
        "import triton.language, os; os.environ['TRITON_INTERPRET'] = '1'\n"
        "from goal_kernels.backends.gpu.runtime import load_step\n"
        "load_step()"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert "TRITON_INTERPRET changed after triton was imported" in run.stderr
