"""Fixtures of the native tests: every instruction set this machine can run, the thread count."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from native_calls import ISAS

from goal_kernels import native
from goal_kernels.backends.cpu import CpuBackend


@pytest.fixture(params=ISAS)
def backend(request: pytest.FixtureRequest) -> CpuBackend:
    ok, reason = native.status()
    if not ok:
        pytest.skip(reason)
    return CpuBackend(isa=request.param)


@pytest.fixture
def fastest() -> CpuBackend:
    ok, reason = native.status()
    if not ok:
        pytest.skip(reason)
    return CpuBackend()


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
