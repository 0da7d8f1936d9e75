"""Benchmark JSON of pytest-benchmark -> one tidy table, one row per figure, and its CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from bench.contestants import EAGER, GEMM, GEMM_OUT
from goal_kernels.data.files import replacing

WALL_TIME = "wall_time"
PEAK_MEMORY = "peak_memory"
MACHINE_KEY = "goal_kernels"
SHORT_COMMIT = 12


class Situation(NamedTuple):
    """What was measured: identity and order of a case."""

    op: str
    mode: str
    objective: str
    dtype: str
    precision: str
    D: int
    B: int


@dataclass(frozen=True)
class Record:
    """One figure of one contestant in one case.

    backend: a backend or a baseline. metric: wall_time and cpu_time [ms], throughput [GFLOP/s],
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
    def case(self) -> Situation:
        """The case it belongs to, with everything that tells it from others."""
        return Situation(*(getattr(self, name) for name in Situation._fields))

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


def _records(extra: dict[str, Any], common: dict[str, str]) -> Iterable[Record]:
    """The records of one benchmark from its extra_info; `common` describes the run."""
    ratios = extra["ratios"]
    for metric, values in extra["measurements"].items():
        timed = ratios if metric == WALL_TIME else {}
        yield Record(
            op=extra["op"],
            backend=extra["backend"],
            mode=extra["mode"],
            objective=extra["objective"],
            B=extra["batch"],
            D=extra["width"],
            dtype=extra["dtype"],
            precision=extra["precision"],
            threads=extra["threads"],
            metric=metric,
            unit=values["unit"],
            p20=values["p20"],
            p50=values["p50"],
            p80=values["p80"],
            ratio_to_gemm=timed.get(GEMM),
            ratio_to_gemm_out=timed.get(GEMM_OUT),
            ratio_to_eager=timed.get(EAGER),
            **common,
        )


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
    common = {
        "device": machine["device"],
        "torch": machine["torch"],
        "commit": commit,
        "date": date,
    }
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
