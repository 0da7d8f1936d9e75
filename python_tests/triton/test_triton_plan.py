"""How a call is mined where nothing is asked for."""

from __future__ import annotations

import pytest
import torch

from goal_kernels.backends.gpu.plan import SMALL_BATCH, STRIP, TILE, choose_strategy
from goal_kernels.backends.gpu.runtime import INTERPRETED_CAPABILITY, device_capability

BFLOAT16, FLOAT32 = torch.bfloat16, torch.float32


@pytest.mark.parametrize(
    ("dtype", "precision", "columns", "strategy"),
    [
        (BFLOAT16, "highest", SMALL_BATCH, TILE),
        (BFLOAT16, "highest", SMALL_BATCH + 1, STRIP),
        (FLOAT32, "highest", SMALL_BATCH + 1, TILE),
        (FLOAT32, "high", SMALL_BATCH + 1, STRIP),
        (FLOAT32, "medium", SMALL_BATCH, TILE),
    ],
)
def test_the_usual_choice_at_the_edges(
    dtype: torch.dtype, precision: str, columns: int, strategy: str
) -> None:
    image = torch.empty(SMALL_BATCH, 8, dtype=dtype)
    assert choose_strategy(image, columns, precision) == strategy


def test_the_interpreter_passes_for_a_device() -> None:
    assert device_capability(torch.device("cpu")) == INTERPRETED_CAPABILITY
