"""What the Triton backend says it can do, and that it is imported only when it is used."""

from __future__ import annotations

import pytest
import torch
from fresh_process import run_fresh

from goal_kernels.backends.base import Call, Pairing, SearchQuery, Verdict
from goal_kernels.backends.gpu import CudaBackend, TritonBackend, runtime
from goal_kernels.backends.gpu import backend as backend_module
from goal_kernels.backends.gpu.runtime import interpreting

FRESH_PROCESS = """
import sys, torch, goal_kernels
from goal_kernels.backends.base import Call
from goal_kernels.backends.gpu import CudaBackend, TritonBackend, runtime
from goal_kernels.backends.gpu import backend as backend_module
backend = TritonBackend()
print(backend.availability(), backend.supports(Call("cpu", torch.float32)), sep="|", end="|")
print("triton" in sys.modules)
"""


def fresh_process(**variables: str) -> list[str]:
    """availability, supports(cpu) and whether triton got imported, in a process of its own."""
    done = run_fresh(FRESH_PROCESS, environment={"TRITON_INTERPRET": None, **variables})
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().split("|")


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
    assert backend.supports(Call(device.type, dtype)).ok


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (Call("cuda", torch.float64), "no Triton kernel for torch.float64"),
        (Call("cuda", torch.float8_e4m3fn), "no Triton kernel"),
        (Call("mps", torch.float32), "device mps"),
    ],
)
def test_refusals_give_the_reason(call: Call, reason: str) -> None:
    verdict = TritonBackend().supports(call)
    assert not verdict.ok
    assert reason in verdict.reason


def test_the_interpreter_is_never_chosen_automatically(backend) -> None:
    if not interpreting():
        pytest.skip("the kernels are compiled here")
    assert backend.supports(Call("cpu", torch.float32)).ok
    verdict = backend.supports(Call("cpu", torch.float32, automatic=True))
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
    run = run_fresh(code, environment={"TRITON_INTERPRET": None})
    assert run.returncode == 1
    assert "TRITON_INTERPRET changed after triton was imported" in run.stderr


@pytest.mark.parametrize(
    ("kind", "serving"), [(TritonBackend, {0: True, 1: False}), (CudaBackend, {0: True, 1: False})]
)
def test_each_gpu_is_judged_by_itself(monkeypatch, kind, serving: dict[int, bool]) -> None:
    """An old card beside a new one: calls on the new one are served."""
    capabilities = [(9, 0), (7, 5)]
    monkeypatch.setattr(backend_module, "interpreting", lambda: False)
    monkeypatch.setattr(backend_module, "_built", lambda emulated: Verdict(True))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capabilities[index])
    for cached in (backend_module._device_verdict, runtime._capability):
        cached.cache_clear()
    try:
        assert kind().availability().ok
        for current, served in serving.items():
            monkeypatch.setattr(torch.cuda, "current_device", lambda current=current: current)
            verdict = kind().supports(Call("cuda", torch.bfloat16, 8))
            assert verdict.ok == served
            assert served or "cuda:1 has compute capability 7.5" in verdict.reason
        capabilities[0] = (8, 9)
        backend_module._device_verdict.cache_clear()
        runtime._capability.cache_clear()
        assert kind().availability().ok == (kind is TritonBackend)
    finally:
        for cached in (backend_module._device_verdict, runtime._capability):
            cached.cache_clear()
