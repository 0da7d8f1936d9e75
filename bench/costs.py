"""What a case costs at least, as formulas, and what a device can do at most.

Costs are those of the job, not of an implementation, so throughputs of methods compare like
their times: a method that does more than it must shows a lower figure.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.cases import GOAL_LOSS, GRADIENTS, RELATIVE, Case

ELEMENT_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
SCALAR_BYTES = 4
INDEX_BYTES = 8
RELATIVE_FLOPS = 4
"""Per pair and direction of the relative sums: subtract, scale, exponential (as 1), add."""


@dataclass(frozen=True)
class Cost:
    """flops: floating-point operations. bytes: compulsory traffic, every operand moved once."""

    flops: int
    bytes: int


def product_flops(batch: int, width: int) -> int:
    """X Y^T: B^2 sums of D products, one multiplication and one addition each: 2 B^2 D."""
    return 2 * batch * batch * width


def case_cost(case: Case) -> Cost:
    """Floor of a case.

    Forward. FLOPs: the product, 2 B^2 D; the relative sums add 4 per pair and direction, 8 B^2.
    Bytes: read X and Y, 2 B D e; write value and index of both directions, 2 B (4 + 8). The
    matrix need not exist, so it is not counted. Work on [B] vectors is left out: it is below
    1 / D of the rest.

    Backward. Each of the 2 B gradient rows is a sum of a mined, a positive and, on average, one
    scattered row, each scaled: 3 multiplications and 2 additions per element, 5 * 2 B D. Bytes:
    read X and Y once more, write both gradients, 4 B D e.

    Gradients alone. Of each side three rows are read and one is written per pair, 8 B D e: what a
    gather moves when no row is found in a cache.
    """
    pairs = case.batch * case.batch
    elements = 2 * case.batch * case.width  # of both embeddings
    size = ELEMENT_BYTES[case.dtype]
    if case.op == GRADIENTS:
        return Cost(5 * elements, 4 * elements * size)
    flops = product_flops(case.batch, case.width)
    traffic = elements * size + 2 * case.batch * (SCALAR_BYTES + INDEX_BYTES)
    if case.op == GOAL_LOSS and case.objective == RELATIVE:
        flops += 2 * RELATIVE_FLOPS * pairs
    if case.backward:
        flops += 5 * elements
        traffic += 2 * elements * size
    return Cost(flops, traffic)


def gemm_cost(case: Case) -> Cost:
    """The product alone: reads X and Y, writes B^2 elements."""
    size = ELEMENT_BYTES[case.dtype]
    moved = (2 * case.batch * case.width + case.batch * case.batch) * size
    return Cost(product_flops(case.batch, case.width), moved)


CEILING_GHZ = 6.0
"""No core sold today sustains more, so a throughput above the ceiling is a wrong measurement."""

CPU_FLOPS_PER_CYCLE = (
    # Tile multiply: 16 x 16 outputs, 32 products each, one every 16 cycles: 1024 products a cycle.
    ("amx_bf16", 2048),
    # Two 512-bit units, 32 bf16 products each.
    ("avx512_bf16", 128),
    # Two 512-bit units, 16 fused multiply-adds each.
    ("avx512f", 64),
    # Two 256-bit units, 8 fused multiply-adds each.
    ("avx2", 32),
)
CPU_DEFAULT_FLOPS_PER_CYCLE = 64
"""Unknown instruction set: the widest vectors that are common."""

GPU_PEAK_TFLOPS = {
    # Dense figures of the data sheets: (TF32, bfloat16).
    "A100": (156.0, 312.0),
    "H100": (494.0, 990.0),
    "H200": (494.0, 990.0),
}
GPU_DEFAULT_TFLOPS = (1250.0, 2500.0)
"""Above every single GPU known when this was written."""


def cpu_peak_gflops(flags: frozenset[str], threads: int) -> float:
    """Upper limit of `threads` cores with these /proc/cpuinfo flags, GFLOP/s.

    That of the fastest unit whatever the dtype: exact float32 mining may run on bfloat16 units
    (docs/cpu.md, section 3).
    """
    known = [rate for flag, rate in CPU_FLOPS_PER_CYCLE if flag in flags]
    return max(known, default=CPU_DEFAULT_FLOPS_PER_CYCLE) * CEILING_GHZ * threads


def gpu_peak_gflops(name: str, dtype: str, precision: str) -> float:
    """Upper limit of a GPU by the name torch gives it, GFLOP/s.

    float32 at "highest" may be screened on bfloat16 units, at "medium" be cut to bfloat16.
    """
    peaks = next((p for key, p in GPU_PEAK_TFLOPS.items() if key in name), GPU_DEFAULT_TFLOPS)
    split = dtype == "float32" and precision == "high"
    return peaks[0 if split else 1] * 1e3


class ImpossibleThroughputError(AssertionError):
    """A figure above what the device can do: the clock, the case or the formula is wrong."""


def check_throughput(gflops: float, peak: float, what: str) -> None:
    """Raise ImpossibleThroughputError when `gflops` exceeds `peak`."""
    if gflops > peak:
        raise ImpossibleThroughputError(
            f"{what}: {gflops:.0f} GFLOP/s is above the {peak:.0f} GFLOP/s this device can reach; "
            "the time, the case or the cost formula must be wrong, so nothing is reported."
        )
