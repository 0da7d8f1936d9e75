"""Description of the machine that figures are measured on."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from bench.costs import cpu_peak_gflops, gpu_peak_gflops
from goal_kernels import native
from goal_kernels.data.files import write_text

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results"
CPUINFO = Path("/proc/cpuinfo")
QUERY_SECONDS = 10.0


def _cpuinfo(field: str) -> str:
    """First value of a field of /proc/cpuinfo, empty where there is none."""
    text = CPUINFO.read_text() if CPUINFO.exists() else ""
    found = re.search(rf"^{field}\s*:\s*(.*)$", text, re.MULTILINE)
    return found.group(1).strip() if found else ""


@cache
def cpu_flags() -> frozenset[str]:
    """Instruction-set flags, empty where the system does not list them."""
    return frozenset(_cpuinfo("flags").split())


def device_name(device: str) -> str:
    """Name of the processor or GPU, such as "NVIDIA H100 80GB HBM3"."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def slug(text: str) -> str:
    """Lower-case letters, digits and dashes: a folder's name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "unknown"


def results_folder(name: str) -> Path:
    """Where results are kept of the processor or GPU of that name."""
    return RESULTS / slug(name)


def peak_gflops(device: str, dtype: str, precision: str) -> float:
    """What this device cannot exceed, GFLOP/s."""
    if device == "cuda":
        return gpu_peak_gflops(device_name(device), dtype, precision)
    return cpu_peak_gflops(cpu_flags(), torch.get_num_threads())


def output_of(*command: str) -> str:
    """What a program prints; empty when it is missing or fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=QUERY_SECONDS, cwd=ROOT, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def commit() -> str:
    """Short commit id, marked when tracked files have changes, or "unversioned"."""
    name = output_of("git", "rev-parse", "--short=12", "HEAD")
    dirty = output_of("git", "status", "--porcelain", "--untracked-files=no")
    return name + "-dirty" * bool(dirty) if name else "unversioned"


def installed_version(package: str) -> str:
    """Of a package, for people."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def keep_records(
    file: Path, module: str, arguments: Sequence[str] | None, **fields: Any
) -> dict[str, Any]:
    """Write fields of one run behind the command, date, commit and machine they belong to.

    Returns: all of it.
    """
    kept = {
        "command": " ".join([f"python -m {module}", *(arguments or sys.argv[1:])]),
        "date": date.today().isoformat(),
        "commit": commit(),
        **describe_machine("cpu"),
        **fields,
    }
    write_text(file, json.dumps(kept, indent=2) + "\n")
    return kept


def describe_machine(device: str) -> dict[str, Any]:
    """This machine, as the benchmarks use it: what a reader needs to judge a figure."""
    return {
        "device": device_name(device),
        "target": device,
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "isa": str(native.build_info()["isa"]) if native.status()[0] else "-",
        "torch": torch.__version__,
        "triton": installed_version("triton"),
        "python": platform.python_version(),
    }
