"""How much memory a step needs at its peak: one method in a process of its own.

Prints MiB beyond what was there before the step (inputs among it) and beyond the gradients it
leaves behind. Only the first step of a process tells: later ones find the buffers that the first
one kept. On the CPU the high-water mark of the resident set, which the kernel keeps to about
0.3 MiB; on a GPU what torch's allocator handed out.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from bench.cases import Case, make_inputs
from bench.lineup import PRODUCTS, make_method, split_way
from bench.machine import ROOT
from bench.methods import Runnable

TIME_LIMIT_SECONDS = 300
WARM_UP_BATCH = 64
"""Loads libraries and starts threads, without touching memory of the measured size."""

ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""Large blocks go back to the system when freed, so making the inputs leaves nothing behind."""

STATUS = Path("/proc/self/status")
RESET_PEAK = "5"


def _status_bytes(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"{STATUS} has no {field}; peak memory can be measured on Linux only.")
    return int(found.group(1)) * 1024


def peak_cpu(method: Runnable) -> int:
    """Bytes of resident memory above the start, while one step runs."""
    Path("/proc/self/clear_refs").write_text(RESET_PEAK)
    before = _status_bytes("VmRSS")
    method.run()
    return _status_bytes("VmHWM") - before


def peak_cuda(method: Runnable) -> int:
    """Bytes of allocated device memory above the start, while one step runs."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    method.run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def gradient_bytes(name: str, case: Case) -> int:
    """Of the gradients that a step leaves behind."""
    if not case.backward or split_way(name)[0] in PRODUCTS:
        return 0
    return 2 * case.batch * case.width * case.torch_dtype.itemsize


def extra_mib(name: str, case: Case) -> float:
    """Peak MiB beyond inputs and gradients."""
    small = replace(case, batch=min(WARM_UP_BATCH, case.batch))
    make_method(name, small, make_inputs(small)).run()
    method = make_method(name, case, make_inputs(case))
    peak = peak_cuda if case.device == "cuda" else peak_cpu
    return max(0, peak(method) - gradient_bytes(name, case)) / 2**20


def run_apart(
    arguments: Sequence[str], threads: int, timeout: float | None = TIME_LIMIT_SECONDS
) -> str:
    """What `python -m ARGUMENTS` prints last, with the allocator set as it must be.

    Raises: RuntimeError with what the process said when it failed.
    """
    settings = {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env={**os.environ, **ENVIRONMENT, **settings},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{done.stderr}")
    return done.stdout.splitlines()[-1]


def extra_mib_apart(name: str, case: Case, threads: int) -> float:
    """`extra_mib` in a process of its own. Raises: as `run_apart`."""
    return float(run_apart(["bench.memory", name, json.dumps(asdict(case))], threads))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the method and the case given as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("method", help="its name")
    parser.add_argument("case", help="fields of bench.cases.Case as a JSON object")
    options = parser.parse_args(arguments)
    case = Case(**json.loads(options.case))
    torch.set_float32_matmul_precision(case.precision)
    print(extra_mib(options.method, case))


if __name__ == "__main__":
    main()
