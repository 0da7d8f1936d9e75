"""How a call is mined where nothing is asked for."""

from __future__ import annotations

import pytest
import torch

from goal_kernels.backends.gpu.plan import SCREEN, SMALL_BATCH, STRIP, TILE, choose_strategy
from goal_kernels.backends.gpu.records import MiningQuery
from goal_kernels.backends.gpu.runtime import INTERPRETED_CAPABILITY, device_capability

BFLOAT16, FLOAT32 = torch.bfloat16, torch.float32


@pytest.mark.parametrize(
    ("dtype", "precision", "kind", "columns", "strategy"),
    [
        (BFLOAT16, "highest", "none", SMALL_BATCH, TILE),
        (BFLOAT16, "highest", "none", SMALL_BATCH + 1, STRIP),
        (FLOAT32, "highest", "none", SMALL_BATCH, TILE),
        (FLOAT32, "highest", "none", SMALL_BATCH + 1, SCREEN),
        (FLOAT32, "highest", "linear", SMALL_BATCH + 1, TILE),
        (FLOAT32, "high", "none", SMALL_BATCH + 1, STRIP),
        (FLOAT32, "medium", "none", SMALL_BATCH, TILE),
    ],
)
def test_the_usual_choice_at_the_edges(
    dtype: torch.dtype, precision: str, kind: str, columns: int, strategy: str
) -> None:
    image = torch.empty(SMALL_BATCH, 8, dtype=dtype)
    assert choose_strategy(image, columns, MiningQuery(kind, 0.0, 0.0, precision)) == strategy


def test_the_interpreter_passes_for_a_device() -> None:
    assert device_capability(torch.device("cpu")) == INTERPRETED_CAPABILITY
