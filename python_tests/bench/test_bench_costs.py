"""Cost formulas against numbers worked out by hand, and the ceiling against impossible figures."""

from __future__ import annotations

import pytest

from bench.cases import (
    FORWARD,
    FORWARD_BACKWARD,
    GOAL_LOSS,
    MINE,
    NO_OBJECTIVE,
    PLAIN,
    RELATIVE,
    Case,
)
from bench.costs import (
    ImpossibleThroughputError,
    case_cost,
    check_throughput,
    cpu_peak_gflops,
    gemm_cost,
    gpu_peak_gflops,
)


def cost(mode: str, objective: str, dtype: str = "float32", op: str = GOAL_LOSS) -> tuple[int, int]:
    found = case_cost(Case(op, mode, objective, 4, 8, dtype))
    return found.flops, found.bytes


def test_mining_by_hand() -> None:
    # 4 * 4 pairs of 8 products and 8 sums; 2 * 32 floats read, 8 values and 8 indices written.
    assert cost(FORWARD, NO_OBJECTIVE, op=MINE) == (256, 256 + 32 + 64)


def test_forward_costs_what_mining_costs() -> None:
    assert cost(FORWARD, PLAIN) == cost(FORWARD, NO_OBJECTIVE, op=MINE)


def test_relative_sums_by_hand() -> None:
    # 16 pairs, two directions, four operations.
    assert cost(FORWARD, RELATIVE)[0] - cost(FORWARD, PLAIN)[0] == 128


def test_backward_by_hand() -> None:
    forward, both = cost(FORWARD, PLAIN), cost(FORWARD_BACKWARD, PLAIN)
    # 64 gradient elements of 5 operations; 64 floats read once more and 64 written.
    assert both[0] - forward[0] == 320
    assert both[1] - forward[1] == 512


def test_bfloat16_halves_the_embeddings_only() -> None:
    assert cost(FORWARD, PLAIN, "bfloat16") == (256, 128 + 32 + 64)


def test_product_writes_the_matrix() -> None:
    found = gemm_cost(Case(MINE, FORWARD, NO_OBJECTIVE, 4, 8, "bfloat16"))
    assert (found.flops, found.bytes) == (256, (64 + 16) * 2)


def test_cpu_ceiling_follows_the_instruction_set() -> None:
    flags = frozenset({"avx2", "avx512f", "avx512_bf16"})
    assert cpu_peak_gflops(flags, 2) == 128 * 6.0 * 2
    assert cpu_peak_gflops(flags - {"avx512_bf16"}, 1) == 64 * 6.0
    assert cpu_peak_gflops(flags | {"amx_bf16"}, 1) == 2048 * 6.0
    assert cpu_peak_gflops(frozenset({"avx2"}), 1) == 32 * 6.0


def test_gpu_ceiling_follows_name_dtype_and_precision() -> None:
    name = "NVIDIA H100 80GB HBM3"
    assert gpu_peak_gflops(name, "float32", "highest") == 990e3, "screened"
    assert gpu_peak_gflops(name, "float32", "high") == 494e3
    assert gpu_peak_gflops(name, "float32", "medium") == 990e3
    assert gpu_peak_gflops(name, "bfloat16", "highest") == 990e3
    assert gpu_peak_gflops("Something New", "bfloat16", "highest") > 990e3


def test_impossible_throughput_is_refused() -> None:
    check_throughput(99.0, 100.0, "case")
    with pytest.raises(ImpossibleThroughputError, match=r"case x: 101 GFLOP/s .* 100 GFLOP/s"):
        check_throughput(101.0, 100.0, "case x")
