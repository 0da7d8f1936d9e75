"""The GPU session as a whole: what it writes, a dry run with faults in it, and its end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from bench import gpu_session
from bench.cases import FORWARD_BACKWARD, GOAL_LOSS, PLAIN, RELATIVE, Case
from bench.gpu import (
    gates,
    session,
)
from bench.gpu.inputs import (
    HALF_TRAINED,
)
from bench.gpu.jobs import OK, SKIPPED, WORK, Job
from bench.gpu.kinds import BFLOAT16, HIGHEST
from bench.gpu.planning import NO_SUMS, State, training
from bench.gpu.results import Findings, Journal, Record, read_findings
from bench.gpu.rounds import ProcessorClock
from bench.gpu.scale import DRY
from bench.gpu.tables import render
from bench.gpu.targets import TARGETS, Target, best_figures
from goal_kernels.backends.gpu import TritonBackend

ROOT = Path(__file__).parent.parent.parent


def contest(batch, width, objective=PLAIN, **times) -> Record:
    case = asdict(Case(GOAL_LOSS, FORWARD_BACKWARD, objective, batch, width, "bfloat16"))
    lanes = {
        name.replace("__", "@").replace("_", ":"): {"p20": ms, "p50": ms, "p80": ms}
        for name, ms in times.items()
    }
    arguments = {"case": case, "data": HALF_TRAINED, "names": list(lanes)}
    return Record("speed", "contest", "a contest", arguments, OK, 0.0, 1.0, {"lanes": lanes})


def test_targets_take_the_fastest_variant_over_the_replayed_product() -> None:
    records = [
        contest(4096, 512, gemm=1, gemm__graph=2.0, triton_strip__graph=5.0, triton_tile__graph=6),
        contest(4096, 1024, gemm__graph=1.0, triton__graph=3.0, cuda__graph=1.7, triton=0.1),
        contest(1024, 512, cuda__graph=0.029, gemm__graph=0.004),
        contest(4096, 512, RELATIVE, gemm__graph=2.0, triton_strip__graph=8.0),
    ]
    by_target = {(t.backend, t.batch, t.width): best_figures(t, records) for t in TARGETS}
    found = by_target["triton", 4096, None]
    assert [(f.name, f.width, f.objective, f.value) for f in found] == [
        ("triton:strip", 512, PLAIN, 2.5),
        ("triton", 1024, PLAIN, 3.0),
        ("triton:strip", 512, RELATIVE, 4.0),
    ]
    assert [f.value for f in by_target["cuda", 4096, 1024]] == [1.7]
    assert by_target["cuda", 4096, 512] == []
    assert [f.value for f in by_target["cuda", 1024, None]] == [29.0]
    report = render(Findings("a command", "2026-01-01", 460.0, False, records=records))
    assert (
        "| triton | hinge/constant | triton:strip | 4096 | 512 | met | 2.5 | 2.8 x GEMM |" in report
    )
    assert "| triton | hinge/constant | triton | 4096 | 1024 | **missed** | 3 |" in report
    assert "| cuda | – | – | 16384 | any | not measured |" in report
    assert "mean nothing" not in report


def test_the_targets_are_those_of_the_design() -> None:
    assert Target("triton", 16384, None, 1.6) in TARGETS
    assert {t.limit for t in TARGETS if t.backend == "cuda"} == {2.2, 1.8, 1.25, 1.12, 30.0}


def test_the_journal_holds_every_record_before_the_end(tmp_path) -> None:
    journal = Journal(tmp_path, Findings("a command", "2026-01-01", 9.0, True))
    record = contest(64, 32, gemm=1.0)
    journal.add(record)
    assert json.loads(journal.path.read_text()) == asdict(record)
    journal.findings.environment["device"] = "A Device 7"
    path = journal.close()
    assert path == tmp_path / "a-device-7" / "gpu_session.json"
    assert not journal.path.exists()
    assert read_findings(path) == journal.findings


def test_no_made_up_figures_among_the_results() -> None:
    with pytest.raises(ValueError, match="dry run"):
        gpu_session.choose_folder(ROOT / "bench" / "results", dry_run=True)
    with pytest.raises(ValueError, match="dry run"):
        gpu_session.choose_folder(ROOT / "bench" / "results" / "x", dry_run=True)
    chosen = gpu_session.choose_folder(None, dry_run=True)
    assert not chosen.is_relative_to(ROOT)
    chosen.rmdir()
    assert gpu_session.choose_folder(None, dry_run=False) == ROOT / "bench" / "results"


SCRIPT = [sys.executable, str(ROOT / "bench" / "gpu_session.py")]


@pytest.fixture(scope="module")
def dry_run(tmp_path_factory) -> tuple[subprocess.CompletedProcess[str], Findings, str]:
    """One dry run with every fault in it: the process, its findings, its tables."""
    folder = tmp_path_factory.mktemp("session")
    environment = {**os.environ, session.FAULTS_VARIABLE: "hang,crash,error"}
    environment.pop("PYTHONPATH", None)  # it has to find itself
    done = subprocess.run(
        [*SCRIPT, "--dry-run", "--out", str(folder)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    paths = sorted(folder.glob("*/*"))
    assert [p.name for p in paths] == ["gpu_session.json", "gpu_session.md"], done.stderr
    return done, read_findings(paths[0]), paths[1].read_text()


def test_a_dry_run_does_everything_and_says_what_broke(dry_run) -> None:
    done, found, _ = dry_run
    assert done.returncode == 1, done.stdout + done.stderr
    bad = [record for record in found.records if record.bad]
    assert [record.title for record in bad] == ["faults on purpose"], done.stdout
    failures = bad[0].result["failures"]
    assert set(failures) == {"hang", "crash", "error"}
    assert bad[0].result["passed"] == ["sound"]
    assert {record.status for record in found.records} == {OK}
    done_kinds = {record.kind for record in found.records}
    assert done_kinds == set(WORK)
    assert found.seconds < found.budget
    assert found.environment["copy_gbs"] > 0


WITHOUT_HIGHEST = {"triton:strip"}
"""Tensor cores have no full float32 precision."""


def test_a_dry_run_times_only_the_checked(dry_run) -> None:
    _, found, _ = dry_run
    contests = [r for r in found.records if r.kind == "contest"]
    backends = {n for n, why in found.environment["variants"].items() if not why[str(BFLOAT16)]}
    assert {f"triton:{name}" for name in TritonBackend.strategies} <= backends
    for record in contests:
        unfit = WITHOUT_HIGHEST if "`highest`" in record.title else set()
        assert set(record.barred) == unfit
        assert set(record.result["lanes"]) == set(record.arguments["names"]) - unfit
        for figures in record.result["lanes"].values():
            assert 0 < figures["p20"] <= figures["p50"] <= figures["p80"]
            assert len(figures["samples"]) >= ProcessorClock.least_rounds
    passed = {
        (name, *gates.job_kind(Job(r.kind, r.title, r.arguments)))
        for r in found.records
        if r.stage == "correctness"
        for name in r.result["passed"]
    }
    for name in backends:
        assert (name, *BFLOAT16) in passed
        assert ((name, *HIGHEST) in passed) == (name not in WITHOUT_HIGHEST)


def test_the_tables_of_a_dry_run_say_what_they_are(dry_run) -> None:
    _, _, report = dry_run
    assert "Dry run on a processor: the figures mean nothing." in report
    for part in (
        "hang: `timed out",
        "crash: `crashed",
        "Targets",
        "Gradients alone",
        "## Ranks",
        "| 8 × 40 × 16 | bfloat16 | triton |",
        "Peak memory",
    ):
        assert part in report
    assert "| met |" not in report
    assert "missed" not in report


def test_a_request_to_end_leaves_results_and_no_process(tmp_path) -> None:
    process = subprocess.Popen(
        [*SCRIPT, "--dry-run", "--out", str(tmp_path)],
        env={**os.environ, "MARK": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    for line in process.stdout:
        if "exact integers" in line:
            break
    assert any(str(tmp_path) in found for found in _environments("bench.gpu.worker"))
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == gpu_session.INTERRUPTED, output
    found = read_findings(next(tmp_path.glob("*/gpu_session.json")))
    assert found.interrupted
    assert "exact integers" in "".join(record.title for record in found.records)
    assert "The session was interrupted." in next(tmp_path.glob("*/*.md")).read_text()
    assert not any(str(tmp_path) in found for found in _environments("bench.gpu.worker"))


def _environments(part: str) -> list[str]:
    """Environments of the running processes whose command line has `part` in it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if part in (process / "cmdline").read_bytes().decode(errors="replace"):
                found.append((process / "environ").read_bytes().decode(errors="replace"))
    return found


def test_no_time_means_skipping_and_saying_so(tmp_path) -> None:
    findings = Findings("a command", "2026-01-01", 0.0, True)
    journal = Journal(tmp_path, findings)
    lines: list[str] = []
    session.Session(State(DRY), journal, 0.0, lines.append).run(build=False)
    journal.close()
    assert {record.status for record in findings.records} == {SKIPPED}
    assert not findings.failed
    assert "skipped, no time: environment" in render(findings)


def test_without_a_gpu_it_says_what_to_do(capsys, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_session.main([]) == 2
    assert "--dry-run" in capsys.readouterr().out


def test_training_names_its_sums() -> None:
    assert training(PLAIN).relative == NO_SUMS
    assert training(RELATIVE).relative == "exponential"
    assert training("nca/linear_ms").relative == "linear"
