"""Memory beyond inputs and gradients, measured in a process of its own: never of order B²."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

MEGABYTE = 1 << 20

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc"
)

SCRIPT = """
import sys, torch
from pathlib import Path
import goal_kernels as gk

batch, width, objective = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]

def resident(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

def step(rows):
    image, text = (
        torch.nn.functional.normalize(torch.randn(rows, width), dim=1).requires_grad_()
        for _ in range(2)
    )
    Path("/proc/self/clear_refs").write_text("5")  # the peak restarts from what is resident now
    before = resident("VmRSS")
    gk.goal_loss(image, text, objective, backend="cpu").backward()
    return resident("VmHWM") - before - image.grad.nbytes - text.grad.nbytes

step(64)  # libraries, thread pools
print(step(batch))
"""


def extra_bytes(batch: int, width: int, objective: str) -> int:
    """Peak resident memory of forward and backward beyond inputs and gradients."""
    command = [sys.executable, "-c", SCRIPT, str(batch), str(width), objective]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["hinge/constant", "nca/sigmoid_ms"])
def test_a_batch_of_32768_needs_less_than_300_megabytes(objective) -> None:
    """The similarity matrix alone would take 4096 MB."""
    extra = extra_bytes(32768, 256, objective)
    assert extra < 300 * MEGABYTE, f"{extra / MEGABYTE:.0f} MB"


def test_memory_grows_with_the_batch_not_with_its_square() -> None:
    """Four times the batch: at most four times the memory, plus what the allocator rounds to."""
    small, large = (extra_bytes(batch, 16, "nca/sigmoid_ms") for batch in (8192, 32768))
    assert large < 4 * max(small, 0) + 24 * MEGABYTE, f"{small} -> {large} bytes"
