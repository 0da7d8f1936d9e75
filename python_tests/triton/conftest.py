"""Fixtures of the Triton tests: on a GPU if there is one, in the interpreter otherwise."""

from __future__ import annotations

import pytest
import torch

from goal_kernels.backends.gpu import TritonBackend


@pytest.fixture(scope="session")
def backend() -> TritonBackend:
    backend = TritonBackend()
    verdict = backend.availability()
    if not verdict.ok:
        pytest.skip(verdict.reason)
    return backend


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
