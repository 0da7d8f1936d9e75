"""The command itself, end to end, on sizes that take seconds."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import goal_kernels as gk

ROOT = Path(__file__).parent.parent.parent


def test_smoke_run_measures_everyone(tmp_path) -> None:
    command = [sys.executable, "-m", "bench", "--smoke", "--threads", "1"]
    command += ["--json", str(tmp_path / "run.json"), "--out", str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    # The interpreter must stay out by itself, also where tests ask for it.
    environment["TRITON_INTERPRET"] = "1"
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=180, check=False
    )
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
    command = [sys.executable, "-m", "bench", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for word in (
        "--full",
        "--smoke",
        "--threads",
        "--precision",
        "-k",
        "bench.report --update-readme",
    ):
        assert word in done.stdout
