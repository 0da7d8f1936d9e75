"""Memory of a forward: a constant number of bytes a row, however long the batch."""

from __future__ import annotations

import pytest
import torch
from launches import DEVICE, recording

import goal_kernels as gk
from goal_kernels.backends.gpu import use_strategy
from goal_kernels.backends.gpu.plan import HOPPER, STRIP

pytest.importorskip("triton")

MOST_BYTES_A_ROW = 128
CONSTANT = 2**20
OBJECTIVES = ("hinge/constant", "constant/linear_ms", "nca/sigmoid_ms")
"""One of every kind of relative sums."""


def peak(monkeypatch, batch: int, objective: str, strategy: str, ids: bool) -> int:
    """Most bytes at a time."""
    image, text = (torch.empty(batch, 64, dtype=torch.bfloat16, device=DEVICE) for _ in range(2))
    image_ids = torch.empty(batch, dtype=torch.int64, device=DEVICE) if ids else None
    with recording(monkeypatch) as recorder, use_strategy(strategy):
        gk.goal_loss(image, text, objective, image_ids=image_ids, backend="triton")
    return recorder.peak


@pytest.mark.parametrize("ids", [False, True], ids=["no ids", "ids"])
@pytest.mark.parametrize("strategy", [STRIP, HOPPER])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_memory_of_a_million_pairs(monkeypatch, objective: str, strategy: str, ids: bool) -> None:
    """All that a forward allocates, what the backward needs included; a row is of either side."""
    batch = 10**6
    assert (
        peak(monkeypatch, batch, objective, strategy, ids)
        <= MOST_BYTES_A_ROW * 2 * batch + CONSTANT
    )


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_bytes_a_row_do_not_grow(monkeypatch, objective: str) -> None:
    small, large = (peak(monkeypatch, n, objective, STRIP, True) for n in (2**20, 2**23))
    assert large <= 8 * small + CONSTANT
