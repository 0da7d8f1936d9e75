"""Figures of a run: from samples to the benchmark JSON, from there to records and their CSV."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.cases import Case
from bench.costs import case_cost, check_throughput, gemm_cost, product_flops
from bench.lineup import EAGER, GEMM, GEMM_OUT, PRODUCTS, split_way
from bench.machine import peak_gflops
from goal_kernels.data.files import replacing

if TYPE_CHECKING:
    from bench.contest import ContestResult

QUANTILES = (20, 50, 80)
WALL_TIME = "wall_time"
PEAK_MEMORY = "peak_memory"
MACHINE_KEY = "goal_kernels"
COMPARED = (GEMM, GEMM_OUT, EAGER)
SHARED = ("op", "backend", "mode", "objective", "dtype", "precision")
"""Fields that a record has from its benchmark under the same name."""

SHORT_COMMIT = 12


def summary(values: list[float], unit: str) -> dict[str, Any]:
    """p20, p50 and p80 of the values."""
    low, middle, high = np.percentile(values, QUANTILES)
    return {"unit": unit, "p20": float(low), "p50": float(middle), "p80": float(high)}


def measure(case: Case, name: str, result: ContestResult) -> dict[str, Any]:
    """Measurements and ratios of one method.

    Raises: ImpossibleThroughputError when a figure is above what the device can do.
    """
    lane = result.lanes[name]
    cost = gemm_cost(case) if split_way(name)[0] in PRODUCTS else case_cost(case)
    gflops = [cost.flops / seconds / 1e9 for seconds in lane.wall]
    throughput = summary(gflops, "GFLOP/s")
    peak = peak_gflops(case.device, case.dtype, case.precision)
    check_throughput(throughput["p80"], peak, f"{case} {name}")
    return {
        "measurements": {
            "wall_time": summary([1e3 * s for s in lane.wall], "ms"),
            "cpu_time": summary([1e3 * s for s in lane.busy], "ms"),
            "throughput": throughput,
            "bandwidth": summary([cost.bytes / s / 1e9 for s in lane.wall], "GB/s"),
        },
        "ratios": {to: result.ratio(name, to) for to in COMPARED},
    }


@dataclass(frozen=True)
class Record:
    """One figure of one method in one case.

    backend: the method. metric: wall_time and cpu_time [ms], throughput [GFLOP/s],
    bandwidth [GB/s], peak_memory [MiB]. p20, p50, p80: quantiles over the rounds. ratio_to_*: ratio
    of median wall times taken in turns in the same process, None for other metrics.
    """

    op: str
    backend: str
    mode: str
    objective: str
    B: int
    D: int
    dtype: str
    precision: str
    threads: int
    metric: str
    unit: str
    p20: float
    p50: float
    p80: float
    ratio_to_gemm: float | None
    ratio_to_gemm_out: float | None
    ratio_to_eager: float | None
    device: str
    torch: str
    commit: str
    date: str

    @property
    def case(self) -> Case:
        """The case it belongs to."""
        size = (self.B, self.D, self.dtype, self.precision)
        return Case(self.op, self.mode, self.objective, *size)

    def ratio_to(self, baseline: str) -> float | None:
        """Ratio of median wall times to GEMM, GEMM_OUT or EAGER."""
        ratio: float | None = getattr(self, f"ratio_to_{baseline}")
        return ratio


@dataclass(frozen=True)
class Run:
    """One benchmark run: its records and the machine as the run described it."""

    records: tuple[Record, ...]
    machine: dict[str, Any]
    date: str
    commit: str


def _commit(info: dict[str, Any]) -> str:
    """Short commit id, marked when the tree had changes, or "unversioned"."""
    name = str(info.get("id") or "unversioned")
    return name[:SHORT_COMMIT] + ("-dirty" if info.get("dirty") else "")


def _records(extra: dict[str, Any], common: dict[str, Any]) -> Iterable[Record]:
    """The records of one benchmark from its extra_info; `common` describes the run."""
    case: dict[str, Any] = {name: extra[name] for name in SHARED}
    case |= {"B": extra["batch"], "D": extra["width"], "threads": extra["threads"]}
    for metric, values in extra["measurements"].items():
        ratios = extra["ratios"] if metric == WALL_TIME else {}
        compared: dict[str, Any] = {f"ratio_to_{to}": ratios.get(to) for to in COMPARED}
        yield Record(**case, metric=metric, **values, **compared, **common)


def read_run(path: Path) -> Run:
    """Read the JSON that `python -m bench` left behind.

    Raises: ValueError naming the file when it holds no benchmark of this suite.
    """
    content = json.loads(path.read_text())
    machine = content.get("machine_info", {}).get(MACHINE_KEY)
    benchmarks = [b["extra_info"] for b in content.get("benchmarks", []) if b.get("extra_info")]
    if machine is None or not benchmarks:
        raise ValueError(
            f"{path}: expected the JSON of a run of this suite with at least one result, found "
            f"{len(benchmarks)} results; make one with `python -m bench`."
        )
    date = str(content["datetime"])[:10]
    commit = _commit(content.get("commit_info", {}))
    common: dict[str, Any] = {"device": machine["device"], "torch": machine["torch"]}
    common |= {"commit": commit, "date": date}
    records = tuple(r for extra in benchmarks for r in _records(extra, common))
    return Run(records, machine, date, commit)


def write_csv(records: Iterable[Record], path: Path) -> None:
    """Write the tidy table; floats with six significant digits, absent ratios empty."""

    def text(value: object) -> object:
        return f"{value:.6g}" if isinstance(value, float) else "" if value is None else value

    with replacing(path) as temporary, temporary.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [f.name for f in fields(Record)], lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: text(v) for k, v in asdict(r).items()} for r in records)


LEAST_FLOPS = 5e8
"""Smaller products do not keep all threads at work for long enough to tell."""

LEAST_SHARE = 0.85
"""A vendor product that has the machine for itself uses nearly all of its threads' time."""


def processor_share(run: Run) -> float | None:
    """Median of processor time / (elapsed time x threads) over the larger vendor products.

    None on a GPU or when nothing was large enough. Well below 1: other work took the processor.
    """
    if run.machine["target"] == "cuda":
        return None
    found: dict[Case, dict[str, float]] = {}
    for record in run.records:
        large = product_flops(record.B, record.D) >= LEAST_FLOPS
        if record.backend == GEMM_OUT and large:
            found.setdefault(record.case, {})[record.metric] = record.p50
    shares = [
        times["cpu_time"] / (times["wall_time"] * run.machine["threads"])
        for times in found.values()
        if {"cpu_time", "wall_time"} <= set(times)
    ]
    return statistics.median(shares) if shares else None


def busy_warning(run: Run) -> str:
    """A sentence for the reader of a run made on a busy machine, empty otherwise."""
    share = processor_share(run)
    if share is None or share >= LEAST_SHARE:
        return ""
    return (
        f"the machine was busy: X @ Y.T got only {share:.0%} of the processor time of its "
        f"{run.machine['threads']} threads; run again when it is quiet before quoting a figure."
    )
