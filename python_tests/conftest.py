"""Shared fixtures. Runs on a machine with only a CPU; a GPU adds cases and never removes any."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if os.environ.pop("PYTEST_XDIST_WORKER", None):  # a pytest that a test starts is no worker
    # Workers share the machine, and OpenMP reads this when torch is imported. Tests of threads ask
    # for more themselves.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from interpreter_speed import quicken

ROOT = str(Path(__file__).parent.parent)
"""Holds the package `bench`, which stands beside the library and is not installed."""

if ROOT not in sys.path:
    sys.path.insert(0, ROOT)
if not torch.cuda.is_available():
    # Read when Triton's kernels are first imported, which is later than this.
    os.environ.setdefault("TRITON_INTERPRET", "1")


SEED = 20260521


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[Any]:
    """Collect no garbage while tests are imported: a quarter of the time, and there is none.

    What was made until then stays, so no later collection looks at it again.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    # torch.manual_seed keeps a traceback for each kind of device that was never used: 1 ms a test.
    torch.default_generator.manual_seed(SEED)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(SEED)


@pytest.fixture(autouse=True)
def _quick_interpreter() -> None:
    quicken()


@pytest.fixture
def nan_filled_memory() -> Iterator[None]:
    """Fill uninitialised tensors with NaN (integers with their maximum): unwritten output shows."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)
