"""The GPU session: plan, report, journal, and a dry run with faults in it that is interrupted."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bench.cases import FORWARD_BACKWARD, GOAL_LOSS, PLAIN, RELATIVE, Case
from bench.lineup import strategies
from bench.machine import output_of
from goal_kernels.backends.choice import BACKENDS
from tools.gpu_session import __main__ as command
from tools.gpu_session import watchdog, work
from tools.gpu_session.plan import DRY, LARGE_PATIENCE, REAL, STAGES, plan
from tools.gpu_session.report import failed, render
from tools.gpu_session.watchdog import CRASHED, CUT, FAILED, OK, SKIPPED, TIMED_OUT, Job, Watched

ROOT = Path(__file__).parent.parent.parent
SOON = 60.0
HEAD = {"command": "a command", "date": "2026-01-01", "commit": "0123", "dry_run": False}
STEP = Case(GOAL_LOSS, FORWARD_BACKWARD, PLAIN, 4096, 512, "bfloat16", device="cuda")


def quiet(name: str) -> None:
    """Report nothing."""


def lane(ms: float, ratio: float | None = None, mib: float | None = None) -> dict:
    measurements = {name: {"p50": ms} for name in ("wall_time", "cpu_time", "bandwidth")}
    return {"measurements": measurements, "ratios": {"gemm": ratio}, "first_s": 1.5, "mib": mib}


def record(case: Case = STEP, stage: str = "steps", clock: str = "", **lanes) -> dict:
    """A contest's; names of methods with __ for @ and _ for a colon."""
    named = {n.replace("__", "@").replace("_", ":"): x for n, x in lanes.items()}
    result = {"lanes": named, "failures": {}, "refused": {}, "oom": {"eager": "no memory"}}
    result["load"] = {"clocks.sm": clock}
    what = {"kind": "contest", "title": str(case), "arguments": {"case": asdict(case)}}
    return {"stage": stage, "status": OK, "error": "", "result": result, **what}


def test_targets_take_the_fastest_strategy_over_the_replayed_product() -> None:
    plain = record(
        gemm__graph=lane(2.0, 1.0),
        triton_strip__graph=lane(5.0, 2.5, 3.0),
        triton_tile__graph=lane(6.0, 3.0),
        triton_strip=lane(5.5, 1.5),
        cuda__graph=lane(4.6, 2.3),
    )
    ids = record(replace(STEP, ids="shuffled"), triton_strip=lane(6.0, 1.8))
    report = render(HEAD, [plain, ids])
    for row in (
        "| triton | hinge/constant, B = 4096 | triton:strip@graph | met | 2.50 | 2.8 |",
        "| hopper | hinge/constant, B = 4096 | cuda@graph | **missed** | 2.30 | 2.2 |",
        "| hopper | B = 65536 | – | not measured | – | 1.12 |",
        "| shuffled ids | hinge/constant, B = 4096, over plain | triton:strip | **missed** | 1.2",
        "| 4096 × 512 | bfloat16 | shuffled ids | – | – | 6 (1.80) | – | – |",
    ):
        assert row in report, report
    assert "mean nothing" not in report


def test_a_report_says_what_ran_out_of_memory_and_when_the_clock_fell() -> None:
    records = [
        record(clock="1980", stage="first", eager=lane(9.0, 9.0, 300.0), gemm=lane(1.0, 1.0)),
        record(replace(STEP, objective=RELATIVE), clock="1900", auto=lane(2.0, 2.0, 1.25)),
        {**record(), "kind": "fault", "status": SKIPPED, "title": "late", "result": {}},
    ]
    report = render(HEAD, records)
    assert "| 4096 × 512 ⚠ | bfloat16 | | 2 (2.00) |" in report
    assert "| 4096 × 512 | bfloat16 | | 9 (9.00) | 1 |" in report
    assert "| hinge/constant | 4096 × 512 | eager | 1.50 | 9000 | 9000 |" in report
    assert "| nca/sigmoid_ms | 4096 × 512 | bfloat16 | no memory | 1.25 |" in report
    assert "- out of memory forward_backward-nca/sigmoid_ms-4096x512-bfloat16, eager:" in report
    assert "- skipped: late" in report


def test_the_plan_has_what_was_never_measured() -> None:
    jobs = {stage: plan(stage, REAL) for stage in STAGES}
    assert len({(s, j.title) for s in jobs for j in jobs[s]}) == sum(map(len, jobs.values()))
    timed = [Case(**j.arguments["case"]) for s in jobs for j in jobs[s] if j.kind == "contest"]
    steps = [c for c in timed if c.op == GOAL_LOSS and c.backward]
    assert {c.batch for c in steps} >= {128, 1000, 4096, 10001, 65536, 262144, 1048576}
    assert {c.width for c in steps} >= {256, 512, 1024}
    assert {c.ids for c in steps} == {"", "sorted", "shuffled", "groups"}
    assert any(c.normalize for c in steps)
    assert {str(c.kind) for c in steps} == {str(kind) for kind in REAL.kinds}
    assert {c.objective for c in steps} >= {PLAIN, RELATIVE, "circle/linear_ms"}
    assert len({c.objective for c in steps}) == 20
    assert {c.op for c in timed} == {"goal_loss", "mine", "gradients"}
    assert {j.arguments["suite"] for s in jobs for j in jobs[s] if j.kind == "contest"} == set(
        work.SUITES
    )
    first = [Case(**job.arguments["case"]) for job in jobs["first"]]
    assert max(c.batch for c in first) <= 1024
    some = plan("steps", REAL, [(4096, 512)])
    assert {(j.arguments["case"]["batch"], j.arguments["case"]["width"]) for j in some} == {
        (4096, 512)
    }
    for files in REAL.tests:
        assert (ROOT / files.split()[0]).exists()


def test_every_kind_of_job_has_a_function() -> None:
    for scale in (REAL, DRY):
        assert {job.kind for stage in STAGES for job in plan(stage, scale)} < set(work.WORK)


def test_options_are_checked() -> None:
    assert command.parse_sizes("4096x512,128x64") == [(4096, 512), (128, 64)]
    assert command.parse_stages("large,build") == ["build", "large"]
    for parse, text in ((command.parse_sizes, "4096"), (command.parse_stages, "small")):
        with pytest.raises(argparse.ArgumentTypeError, match=f"got '{text}'"):
            parse(text)


def test_no_made_up_figures_among_the_results(tmp_path) -> None:
    for folder in (command.RESULTS, command.RESULTS / "x"):
        with pytest.raises(ValueError, match="dry run"):
            command.choose_folder(folder, dry_run=True)
    chosen = command.choose_folder(None, dry_run=True)
    assert not chosen.is_relative_to(ROOT)
    chosen.rmdir()
    command.Journal(tmp_path / "x.jsonl", {**HEAD, "dry_run": True})
    for key, value in (("dry_run", False), ("commit", "4567")):
        with pytest.raises(ValueError, match=f"has {key} .*; choose another folder"):
            command.Journal(tmp_path / "x.jsonl", {**HEAD, "dry_run": True, key: value})


def test_the_journal_goes_on_after_a_torn_line(tmp_path) -> None:
    path = tmp_path / "deep" / "x.jsonl"
    journal = command.Journal(path, HEAD)
    journal.add(record(gemm=lane(1.0)))
    journal.add({**record(), "title": "hung", "status": TIMED_OUT})
    with path.open("a") as stream:
        stream.write('{"stage": "st')
    again = command.Journal(path, HEAD)
    assert again.records == journal.records
    assert again.has("steps", str(STEP))
    assert not again.has("first", str(STEP))
    assert not again.has("steps", "hung")
    again.add({**record(), "title": "hung"})
    assert again.has("steps", "hung")
    assert command.Journal(path, HEAD).records == again.records
    assert [r["status"] for r in again.records] == [OK, OK]  # the last record of a job counts
    assert [json.loads(line) for line in path.read_text().splitlines()] == [HEAD, *again.records]


COMMAND = [sys.executable, "-m", "tools.gpu_session", "--dry-run", "--out"]


def environments(part: str) -> list[str]:
    """Environments of the running processes whose command line has `part` in it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if part in (process / "cmdline").read_bytes().decode(errors="replace"):
                found.append((process / "environ").read_bytes().decode(errors="replace"))
    return found


class Forked:
    """What `Watched` uses of a `Popen`, for a worker that is a fork: it has imported torch."""

    def __init__(
        self, command: tuple[str, ...], env: dict[str, str], stderr: io.IOBase, **_: object
    ) -> None:
        assert command == watchdog.COMMAND
        (jobs, to_jobs), (replies, to_replies) = os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            for number, descriptor in enumerate((jobs, to_replies, stderr.fileno())):
                os.dup2(descriptor, number)
            os.closerange(3, to_replies + 1)
            os.setsid()
            os.environ.clear()
            os.environ.update(env)
            sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")
            sys.stderr = os.fdopen(2, "w")
            torch.set_num_threads(1)  # those of before the fork are gone
            work.main()
            os._exit(0)
        os.close(jobs)
        os.close(to_replies)
        self.stdin, self.stdout = os.fdopen(to_jobs, "w"), os.fdopen(replies)

    def wait(self, timeout: float) -> None:
        self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture(scope="module")
def dry_run(tmp_path_factory) -> tuple[str, list[dict], str]:
    """A dry run with faults in it, interrupted, and again: its output, records and report.

    Again in this process, with workers that are forks of it; one starts after a crash.
    """
    folder = tmp_path_factory.mktemp("session")
    environment = {**os.environ, "MARK": str(folder)}
    environment.pop("PYTHONPATH", None)  # it has to find itself
    interrupted = subprocess.Popen(
        [*COMMAND, str(folder)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    for line in interrupted.stdout:
        if "environment" in line and " ok" in line:
            break
    assert any(str(folder) in found for found in environments("tools.gpu_session.work"))
    interrupted.send_signal(signal.SIGTERM)
    output, _ = interrupted.communicate(timeout=SOON)
    assert interrupted.returncode == command.INTERRUPTED, output
    assert not any(str(folder) in found for found in environments("tools.gpu_session.work"))
    assert sorted(p.name for p in folder.iterdir()) == ["gpu_session.jsonl", "gpu_session.md"]
    handlers = [(number, signal.getsignal(number)) for number in command.STOPPING]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as done:
        patch.setenv(command.FAULTS_VARIABLE, "crash,error")
        if not torch.cuda.is_available():  # with one, kernels are not interpreted in this process
            forking = SimpleNamespace(
                Popen=Forked, PIPE=subprocess.PIPE, TimeoutExpired=subprocess.TimeoutExpired
            )
            patch.setattr(watchdog, "subprocess", forking)
        status = command.main(["--dry-run", "--out", str(folder)])
    for number, handler in handlers:
        signal.signal(number, handler)
    assert status == 1, done.getvalue()
    lines = (folder / "gpu_session.jsonl").read_text().splitlines()
    report = (folder / "gpu_session.md").read_text()
    return done.getvalue(), [json.loads(line) for line in lines[1:]], report


def test_a_dry_run_goes_on_and_does_everything_and_says_what_broke(dry_run) -> None:
    output, records, report = dry_run
    titles = [(r["stage"], r["title"]) for r in records if r["status"] == OK]
    assert len(titles) == len(set(titles))  # `environment` was not done again
    wanted = {(stage, job.title) for stage in STAGES for job in plan(stage, DRY)}
    assert set(titles) == {*wanted, ("first", "faults on purpose")}
    assert {record["kind"] for record in records} == set(work.WORK)
    bad = [record for record in records if failed(record)]
    assert [record["title"] for record in bad] == ["faults on purpose"], output
    assert set(bad[0]["result"]["failures"]) == {"crash", "error"}
    assert bad[0]["result"]["passed"] == ["sound"]
    for part in (
        "mean nothing",
        "crash: `crashed",
        "## Ranks",
        "not installed",
    ):
        assert part in report
    assert "| met |" not in report
    assert "missed" not in report


def test_a_dry_run_times_what_passed_and_checks_every_strategy(dry_run) -> None:
    _, records, _ = dry_run
    contests = [record for record in records if record["kind"] == "contest"]
    checked = [set(r["result"]["lanes"]) for r in contests if r["stage"] == "checks"]
    named = {b.name for b in BACKENDS if b.availability().ok and b.name != "cuda"}
    for lanes in checked:
        assert {"gemm", "auto"} < lanes
        assert named <= {name.partition(":")[0] for name in lanes}
    assert any(":" in name for name in set.union(*checked))
    repeated = next(r for r in records if r["kind"] == "repeated")
    assert {name.partition(":")[0] for name in repeated["result"]["passed"]} == named
    for record in contests:
        for figures in record["result"]["lanes"].values():
            times = figures["measurements"]["wall_time"]
            assert 0 < times["p20"] <= times["p50"] <= times["p80"]
            assert figures["first_s"] > 0


def test_no_time_means_skipping_and_saying_so(tmp_path) -> None:
    journal = command.Journal(tmp_path / "x.jsonl", HEAD)
    lines: list[str] = []
    command.Session(journal, DRY, 0.0, lines.append).run(["environment", "ranks"], [])
    assert {record["status"] for record in journal.records} == {SKIPPED}
    assert not any(map(failed, journal.records))
    assert "skipped: environment; ranks of" in render(HEAD, journal.records)


def test_without_a_gpu_it_says_what_to_do(capsys, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert command.main([]) == 2
    assert "--dry-run" in capsys.readouterr().out


WORKER = """
import json, os, sys, time


def send(**message):
    print(json.dumps(message), flush=True)


send(at="")
for line in sys.stdin:
    arguments = json.loads(line)["arguments"]
    names = [name for name in arguments["names"] if name not in arguments.get("without", ())]
    status = "ok"
    for name in names:
        send(at=name)
        if name == "hang":
            time.sleep(3600)
        if name == "crash":
            os.abort()
        if name == "error":
            status = "failed"
    send(status=status, result={"passed": names}, error="", fatal=False)
"""
"""Speaks the lines of `work` and goes wrong as `work.fault` does, but imports no torch."""


@pytest.fixture
def watched():
    one = Watched(os.environ, (sys.executable, "-c", WORKER))
    yield one
    one.close()


def fault(*names: str, patience: float = 2.0) -> Job:
    return Job("fault", "on purpose", {"names": list(names)}, patience)


def test_the_end_of_a_stage_cuts_a_job_short(watched) -> None:
    end = time.monotonic() + SOON
    assert watched.run(fault("sound"), end).result == {"passed": ["sound"]}
    failure = watched.run(fault("error"), end)
    assert (failure.status, failure.at) == (FAILED, "error")
    assert watched.starts == 1  # an ordinary error is no reason for another process
    assert watched.run(fault("sound"), end).status == OK
    assert watched.run(fault("hang", patience=SOON), time.monotonic() + 0.5).status == CUT


def test_what_hangs_is_ended_and_left_out_of_the_next_try(watched) -> None:
    job = fault("sound", "hang", "crash", patience=0.5)
    reply = watched.run_with_retries(job, time.monotonic() + SOON)
    assert (reply.status, reply.result["passed"]) == (OK, ["sound"])
    assert reply.result["failures"]["hang"] == "timed out: no heartbeat for 0 s"
    assert reply.result["failures"]["crash"].startswith("crashed: the process ended with status -6")
    assert watched.starts == 3


def test_a_fault_hangs_longer_than_anyone_waits(monkeypatch) -> None:
    slept = []
    monkeypatch.setattr(work.time, "sleep", slept.append)
    work.fault(quiet, ["sound", "hang"], without=["sound"])
    assert slept[0] > LARGE_PATIENCE


@pytest.mark.parametrize("lost", [True, False])
def test_a_lost_device_ends_the_process_and_an_error_does_not(monkeypatch, lost: bool) -> None:
    monkeypatch.setattr(work, "device_is_lost", lambda: lost)
    reply = work.perform("fault", {"names": ["error"]}, quiet)
    assert reply["fatal"] == lost
    assert reply["status"] == FAILED
    lines = []

    class Channel:
        def write(self, line: str) -> None:
            lines.append(json.loads(line))

        def flush(self) -> None:
            pass

    job = json.dumps(asdict(fault("error"))) + "\n"
    work.serve([job, job], Channel())
    assert [m for m in lines if "status" in m] == [reply] * (1 if lost else 2)


def test_a_process_that_says_it_is_lost_counts_as_crashed() -> None:
    script = (
        "import json; print(json.dumps({'at': ''})); input(); print(json.dumps({'at': 'x'}));"
        "print(json.dumps({'status': 'failed', 'result': {}, 'error': 'gone', 'fatal': True}))"
    )
    one = Watched(os.environ, (sys.executable, "-c", script))
    reply = one.run(fault("x"), time.monotonic() + SOON)
    one.close()
    assert (reply.status, reply.at, reply.error) == (CRASHED, "x", "gone")


@pytest.mark.parametrize("state", [["1980", "650.5"], []])
def test_the_clock_is_read_where_it_can_be(state, tmp_path, monkeypatch) -> None:
    if state:
        script = tmp_path / "nvidia-smi"
        script.write_text('#!/bin/sh\ncase "$*" in\n*clocks.sm*) echo 1980;;\n*) exit 1;;\nesac\n')
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}")
    expected = {"clocks.sm": "1980", "power.draw": ""} if state else {}
    assert work.smi_state(("clocks.sm", "power.draw")) == expected
    assert output_of("no-such-program") == ""


def test_reruns_and_ranks_that_differ_are_caught(monkeypatch) -> None:
    case = asdict(replace(STEP, batch=24, width=16, device="cpu"))
    outcome, taken = work.Loss.outcome, []

    def unsteady(method):
        taken.append(outcome(method))
        if len(taken) == 2:
            taken[-1].gradients[0][0, 0] += 1e-2
        return taken[-1]

    monkeypatch.setattr(work.Loss, "outcome", unsteady)
    others = [b.name for b in BACKENDS if b.name != "reference"]
    others += [f"{b.name}:{name}" for b in BACKENDS for name in strategies(b.name)]
    found = work.repeated(quiet, case, without=[*others, "auto"])
    assert "rerun 1: grad_image differ" in found["failures"]["reference"]

    from goal_kernels.backends.cpu import CpuBackend

    rank = CpuBackend.rank
    assert "cpu" in work.ranks(quiet, [9, 8, "float32", "cpu"])["lanes"]
    monkeypatch.setattr(
        CpuBackend, "rank", lambda *i: rank(*i)._replace(text_ties=rank(*i).text_ties + 1)
    )
    found = work.ranks(quiet, [9, 8, "float32", "cpu"])
    assert found["failures"] == {"cpu": "text_ties differ"}
    assert "cpu" not in found["lanes"]


def test_a_failing_test_file_is_told(tmp_path) -> None:
    bad = tmp_path / "test_bad.py"
    bad.write_text("def test_it():\n    assert 0, 'it is bad'\n")
    found = work.pytest_files(quiet, ["gone", str(bad)], without=["gone"])
    assert found["passed"] == []
    assert "it is bad" in found["failures"][str(bad)]


def test_a_build_that_fails_or_hangs_says_so(monkeypatch) -> None:
    def commands(*scripts: str) -> None:
        found = tuple((sys.executable, "-c", script) for script in scripts)
        monkeypatch.setattr(command, "build_commands", lambda: found)

    emulation = "import os; assert os.environ['GOAL_KERNELS_EMULATION'] == 'OFF'"
    commands("raise SystemExit('too old')", emulation)
    assert command.build(SOON).status == OK
    commands("raise SystemExit('too old')", "import time; time.sleep(99)")
    start = time.monotonic()
    reply = command.build(1.0)
    assert time.monotonic() < start + 20
    assert reply.status == FAILED
    assert "too old" in reply.error
    assert "not done" in reply.error
