"""Peak memory of a step beyond its inputs and gradients; each contestant in its own process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from bench.cases import Case
from bench.measurements import summary
from bench.memory_worker import extra_mib_apart


def bench_memory(
    case: Case,
    contestant: str,
    benchmark: Any,
    describe: Callable[[Case, str], dict[str, Any]],
) -> None:
    """The time pytest-benchmark sees here is that of the whole process and not reported."""
    mib = benchmark.pedantic(
        extra_mib_apart, (contestant, case, torch.get_num_threads()), rounds=1, iterations=1
    )
    benchmark.group = f"memory-{case}"
    benchmark.extra_info.update(
        describe(case, contestant), measurements={"peak_memory": summary([mib], "MiB")}, ratios={}
    )
