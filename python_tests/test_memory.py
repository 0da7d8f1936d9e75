"""Memory beyond inputs and gradients, measured in a process of its own: never of order B²."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import goal_kernels as gk
from bench.cases import FORWARD_BACKWARD, GOAL_LOSS, Case
from bench.memory import extra_mib_apart, peak_cpu

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc"
)


def extra_mib(batch: int, width: int, objective: str) -> float:
    """Peak resident MiB of forward and backward beyond inputs and gradients."""
    case = Case(GOAL_LOSS, FORWARD_BACKWARD, objective, batch, width, "float32")
    return extra_mib_apart("cpu", case, torch.get_num_threads())


@pytest.mark.slow
def test_a_batch_of_32768_needs_less_than_50_megabytes() -> None:
    """The similarity matrix alone would take 4096 MB."""
    extra = extra_mib(32768, 64, "hinge/constant")
    assert extra < 50, f"{extra:.0f} MiB"


@pytest.mark.slow
def test_memory_grows_with_the_batch_not_with_its_square() -> None:
    """Four times the batch: at most four times the memory, plus what the allocator rounds to."""
    small, large = (extra_mib(batch, 16, "nca/sigmoid_ms") for batch in (4096, 16384))
    assert large < 25, f"{large:.0f} MiB"
    assert large < 4 * small + 12, f"{small:.1f} -> {large:.1f} MiB"


def test_ranks_of_40000_texts_need_less_than_20_megabytes() -> None:
    """The scores alone would take 3200 MB."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(20000, 8, generator=generator)
    text = torch.randn(40000, 8, generator=generator)
    owner = torch.arange(40000) // 2

    def rank() -> None:
        gk.retrieval_ranks(image, text, owner, backend="cpu")

    extra = peak_cpu(SimpleNamespace(run=rank)) / 2**20
    assert extra < 20, f"{extra:.0f} MiB"


@pytest.mark.parametrize(("backend", "limit"), [("cpu", 160), ("chunked", 160)])
def test_top_k_of_20000_needs_blocks_not_the_matrix(backend, limit) -> None:
    """The scores alone would take 1600 MB, the answer takes 4 MB."""
    generator = torch.Generator().manual_seed(0)
    queries, corpus = (torch.randn(20000, 4, generator=generator) for _ in range(2))

    def search() -> None:
        gk.mine_top_k(queries, corpus, 10, backend=backend)

    extra = peak_cpu(SimpleNamespace(run=search)) / 2**20
    assert extra < limit, f"{extra:.0f} MiB"
