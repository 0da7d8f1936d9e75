"""Fixtures of the Triton tests: on a GPU if there is one, in the interpreter otherwise."""

from __future__ import annotations

import pytest
import torch

from goal_kernels.backends.gpu import TritonBackend
from goal_kernels.backends.gpu.configs import StripPlan, StripTile, strip_plan


@pytest.fixture(scope="session")
def backend() -> TritonBackend:
    backend = TritonBackend()
    verdict = backend.availability()
    if not verdict.ok:
        pytest.skip(verdict.reason)
    return backend


@pytest.fixture
def strips_of_two_tiles(backend: TritonBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few hundred rows make several strips, of several tiles; by themselves, they make neither.

    A batch that small is cut into single tiles, one for each multiprocessor.
    """

    def plan(tile: StripTile, rows: int, columns: int, row_bytes: int) -> StripPlan:
        tiles = -(-rows // tile.rows)
        usual = strip_plan(tile, rows, columns, row_bytes)
        return usual._replace(segment_tiles=min(2, tiles), segments=-(-tiles // 2))

    for module in ("strip", "screen"):
        monkeypatch.setattr(f"goal_kernels.backends.gpu.kernels.{module}.strip_plan", plan)


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
