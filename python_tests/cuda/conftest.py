"""Fixtures of the CUDA tests: emulated, on the GPU where there is one."""

from __future__ import annotations

import pytest
import torch

from goal_kernels import native
from goal_kernels.backends.gpu import CudaBackend


@pytest.fixture
def emulation() -> None:
    """Skips where the kernels cannot be emulated."""
    verdict = CudaBackend(emulated=True).availability()
    if not verdict.ok:
        pytest.skip(verdict.reason)


@pytest.fixture(params=["emulated", pytest.param("cuda", marks=pytest.mark.gpu)])
def mining_device(request: pytest.FixtureRequest) -> str:
    """Where the Hopper tile kernels run: "cpu" emulates them, and a GPU needs no emulation."""
    if request.param == "emulated":
        request.getfixturevalue("emulation")
        return "cpu"
    ok, reason = native.status()
    if not ok:
        pytest.skip(reason)
    if not hasattr(native.load().cuda, "mine"):
        pytest.skip("built without CUDA")
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("needs a GPU of compute capability 9.0")
    return "cuda"
