"""Peak memory of a training step beyond its inputs and gradients."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import torch

from bench.cases import Case
from bench.contest import float32_precision
from bench.contestants import BASELINES
from bench.gpu.contestants import context_of
from bench.gpu.variants import Variant
from bench.gpu.verdicts import check_each
from bench.memory_worker import extra_mib


def measure_memory(
    tell: Callable[[str], None], names: list[str], case: dict[str, Any]
) -> dict[str, Any]:
    """MiB of every contestant, from the allocator's counters. Adds {"mib": {name: MiB}}."""
    situation = Case(**case)
    mib = {}

    def measure(name: str) -> None:
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        known_as = name if name in BASELINES else Variant.parse(name).backend
        with context_of(name)():
            mib[name] = extra_mib(known_as, situation)

    with float32_precision(situation.precision):
        found = check_each(names, tell, measure)
    return {**found, "mib": mib}
