"""Fixtures of the native tests: every instruction set this machine can run, the thread count."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from goal_kernels import native
from goal_kernels.backends.cpu import CpuBackend

INFO = native.build_info() if native.status()[0] else {}
ISAS = [*INFO.get("usable_isas", ["baseline"]), *INFO.get("emulated_isas", [])]


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
