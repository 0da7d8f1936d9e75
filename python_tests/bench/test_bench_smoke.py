"""The command itself, end to end, on sizes that take seconds."""

from __future__ import annotations

import csv
from pathlib import Path

from fresh_process import run_fresh

import goal_kernels as gk

ROOT = Path(__file__).parent.parent.parent
BENCH = "import runpy; runpy.run_module('bench', run_name='__main__', alter_sys=True)"


def test_smoke_run_measures_everyone(tmp_path) -> None:
    options = [
        "--smoke",
        "--threads",
        1,
        "--json",
        tmp_path / "run.json",
        "--out",
        tmp_path / "out",
    ]
    # The interpreter must stay out by itself, also where tests ask for it.
    done = run_fresh(BENCH, *options, environment={"TRITON_INTERPRET": "1"}, folder=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    with (tmp_path / "out" / "results.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    timed = {(r["backend"], r["op"], r["mode"], r["objective"]) for r in rows}
    backends = {"gemm", "gemm_out", "eager", "reference", *gk.available_backends()} - {"triton"}
    jobs = {("mine", "forward", "-")}
    for objective in ("hinge/constant", "nca/sigmoid_ms"):
        jobs |= {("goal_loss", mode, objective) for mode in ("forward", "forward_backward")}
    # pytorch-metric-learning has one of the objectives.
    pml = {("pml", "goal_loss", mode, "hinge/constant") for mode in ("forward", "forward_backward")}
    assert timed == {(backend, *job) for backend in backends for job in jobs} | pml
    assert {r["precision"] for r in rows} == {"highest"}
    assert "Targets of the `cpu` kernels" in done.stdout
    assert all(float(r["p20"]) <= float(r["p50"]) <= float(r["p80"]) for r in rows)
    assert str(tmp_path / "out" / "plot.png") in done.stdout


def test_help_teaches() -> None:
    done = run_fresh(BENCH, "--help", folder=ROOT)
    assert done.returncode == 0, done.stderr
    for word in (
        "--full",
        "--smoke",
        "--threads",
        "--precision",
        "-k",
        "bench.report --update-readme",
    ):
        assert word in done.stdout
