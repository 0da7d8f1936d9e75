"""From samples to the figures of one contestant, as they are stored in the benchmark JSON."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.cases import Case
from bench.contest import ContestResult
from bench.contestants import EAGER, GEMM, GEMM_OUT
from bench.costs import case_cost, check_throughput, gemm_cost
from bench.machine import peak_gflops

QUANTILES = (20, 50, 80)


def summary(values: list[float], unit: str) -> dict[str, Any]:
    """p20, p50 and p80 of the values."""
    low, middle, high = np.percentile(values, QUANTILES)
    return {"unit": unit, "p20": float(low), "p50": float(middle), "p80": float(high)}


def measure(case: Case, name: str, result: ContestResult) -> dict[str, Any]:
    """Measurements and ratios of one contestant.

    Raises: ImpossibleThroughputError when a figure is above what the device can do.
    """
    samples = result.samples[name]
    cost = gemm_cost(case) if name in (GEMM, GEMM_OUT) else case_cost(case)
    gflops = [cost.flops / seconds / 1e9 for seconds in samples.wall]
    throughput = summary(gflops, "GFLOP/s")
    peak = peak_gflops(case.device, case.dtype, case.precision)
    check_throughput(throughput["p80"], peak, f"{case} {name}")
    return {
        "measurements": {
            "wall_time": summary([1e3 * s for s in samples.wall], "ms"),
            "cpu_time": summary([1e3 * s for s in samples.cpu], "ms"),
            "throughput": throughput,
            "bandwidth": summary([cost.bytes / s / 1e9 for s in samples.wall], "GB/s"),
        },
        "ratios": {to: result.ratio(name, to) for to in (GEMM, GEMM_OUT, EAGER)},
    }
