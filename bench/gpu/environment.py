"""Where figures come from: the GPU and its state, versions, commit, what copying reaches."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from bench.gpu.kinds import KINDS, Kind
from bench.gpu.rounds import Lane, make_clock, take_rounds
from bench.gpu.variants import variant_names, verdict
from bench.gpu.watchdog import ROOT
from bench.machine import describe_machine
from goal_kernels import native
from goal_kernels.backends import verdicts

QUERY_SECONDS = 10.0
SMI_FIELDS = (
    "name",
    "driver_version",
    "clocks.sm",
    "clocks.max.sm",
    "clocks.mem",
    "power.limit",
    "power.draw",
    "temperature.gpu",
    "ecc.mode.current",
    "memory.used",
    "mig.mode.current",
)
COPY_BYTES = 1 << 30
COPY_SECONDS = 1.0
COMPARED_WIDTH = 512


def output_of(*command: str) -> str:
    """What a program prints; empty when it is missing or fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=QUERY_SECONDS, cwd=ROOT, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def device_index() -> str:
    """What nvidia-smi calls the GPU that torch calls cuda:0."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] or "0"


def smi_state() -> dict[str, str]:
    """What nvidia-smi says about the GPU, field by field, for not every version knows all."""
    if shutil.which("nvidia-smi") is None:
        return {}
    query = partial(output_of, "nvidia-smi", "-i", device_index())
    state = {f: query(f"--query-gpu={f}", "--format=csv,noheader") for f in SMI_FIELDS}
    state["processes"] = query(
        "--query-compute-apps=pid,process_name,used_memory", "--format=csv,noheader"
    )
    return state


def commit() -> str:
    """Short commit id, marked when tracked files have changes, or "unversioned"."""
    name = output_of("git", "rev-parse", "--short=12", "HEAD")
    dirty = output_of("git", "status", "--porcelain", "--untracked-files=no")
    return name + "-dirty" * bool(dirty) if name else "unversioned"


def compiler_version() -> str:
    """Of nvcc, "-" without one."""
    found = re.search(r"release ([\d.]+)", output_of("nvcc", "--version"))
    return found.group(1) if found else "-"


def properties() -> dict[str, Any]:
    """What torch knows about the GPU."""
    p = torch.cuda.get_device_properties(0)
    free, total = torch.cuda.mem_get_info()
    return {
        "multiprocessors": p.multi_processor_count,
        "capability": f"{p.major}.{p.minor}",
        "memory_gib": round(total / 2**30, 1),
        "free_gib": round(free / 2**30, 1),
        "l2_mib": getattr(p, "L2_cache_size", 0) / 2**20,
        "cuda": str(torch.version.cuda),
    }


def copy_bandwidth(device: str, size: int, tell: Callable[[str], None]) -> float:
    """GB/s of copying within the device's memory: bytes read and bytes written."""
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    lane = Lane([partial(target.copy_, source)])
    lane.copies[0]()
    take_rounds({"copy": lane}, make_clock(device), COPY_SECONDS, tell)
    return float(2 * size / lane.figures()["p50"] / 1e6)


def served_kinds(device: str) -> dict[str, dict[str, str]]:
    """{variant: {kind: why not, empty if it is served}} on this device."""

    def reason(name: str, kind: Kind) -> str:
        answer = verdict(name, device, kind, COMPARED_WIDTH)
        return "" if answer.ok else answer.reason

    return {name: {str(kind): reason(name, kind) for kind in KINDS} for name in variant_names()}


def describe(tell: Callable[[str], None], device: str, copied: int = COPY_BYTES) -> dict[str, Any]:
    """Everything a reader needs to judge a figure, and what can be measured here."""
    tell("machine")
    found: dict[str, Any] = describe_machine(device).as_dict()
    found |= properties() if device == "cuda" else {}
    found |= {"nvidia_smi": smi_state(), "nvcc": compiler_version(), "commit": commit()}
    found["native"] = native.status()[1] or str(native.build_info().get("isa"))
    tell("backends")
    found["variants"] = served_kinds(device)
    found["rankers"] = [b.name for b, able in verdicts() if able.ok and b.ranks]
    tell("copy")
    found["copy_gbs"] = copy_bandwidth(device, copied, tell)
    return found
