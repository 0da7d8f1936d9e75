"""What breaks in a GPU session costs its own job; builds and the clock are watched."""

from __future__ import annotations

import json
import os
import signal
import sys
import time

import pytest

from bench.gpu import (
    build,
    environment,
    sampler,
    session,
    worker,
)
from bench.gpu.jobs import CRASHED, CUT, FAILED, OK, TIMED_OUT, WORK, Job
from bench.gpu.watchdog import Watched

SOON = 60.0


def quiet(name: str) -> None:
    """Nobody watches."""


@pytest.fixture
def watched():
    one = Watched(session.worker_environment("cpu", 1))
    yield one
    one.close()


def fault(*names: str, patience: float = 3.0) -> Job:
    return Job("fault", "on purpose", {"names": list(names)}, patience=patience)


def test_every_kind_of_job_has_a_function() -> None:
    for kind in WORK:
        assert callable(worker.load_function(kind))


def test_a_hang_and_a_crash_cost_their_own_try_only(watched) -> None:
    end = time.monotonic() + SOON
    hung = watched.run(fault("sound", "hang"), end)
    assert (hung.status, hung.at) == (TIMED_OUT, "hang")
    assert 3.0 <= hung.end - hung.start < 30
    crashed = watched.run(fault("crash"), end)
    assert (crashed.status, crashed.at) == (CRASHED, "crash")
    assert str(-signal.SIGABRT) in crashed.error
    failed = watched.run(fault("error"), end)
    assert (failed.status, failed.at) == (FAILED, "error")
    assert "an error on purpose" in failed.error
    assert watched.run(fault("sound"), end).result == {"passed": ["sound"]}
    assert watched.starts == 3  # an ordinary error is no reason for another process


def test_those_beside_a_culprit_get_another_try(watched) -> None:
    job = fault("first", "hang", "second", "crash", "last")
    reply = session.without_culprits(watched, job, time.monotonic() + SOON)
    assert reply.status == OK
    assert reply.result["passed"] == ["first", "second", "last"]
    assert set(reply.result["failures"]) == {"hang", "crash"}
    assert reply.result["failures"]["hang"].startswith(TIMED_OUT)
    alone = session.without_culprits(watched, fault("crash"), time.monotonic() + SOON)
    assert list(alone.result["failures"]) == ["crash"]


def test_the_end_of_the_session_cuts_a_job_short(watched) -> None:
    reply = watched.run(fault("hang", patience=SOON), time.monotonic() + 4)
    assert reply.status == CUT
    watched.retire()
    assert watched.run(fault("sound"), time.monotonic() + SOON).status == CUT


def test_a_lost_device_ends_the_process(monkeypatch) -> None:
    monkeypatch.setattr(worker, "device_is_lost", lambda: True)
    reply = worker.perform("fault", {"names": ["error"]}, quiet)
    assert reply["fatal"]
    assert reply["status"] == FAILED
    lines = []

    class Channel:
        def write(self, line: str) -> None:
            lines.append(json.loads(line))

        def flush(self) -> None:
            pass

    job = json.dumps(fault("error").as_dict()) + "\n"
    worker.serve([job, job], Channel())
    assert [m for m in lines if "status" in m] == [reply | {"error": lines[-1]["error"]}]


def test_a_process_that_says_it_is_lost_counts_as_crashed() -> None:
    script = (
        "import json; print(json.dumps({'at': ''})); input(); print(json.dumps({'at': 'x'}));"
        "print(json.dumps({'status': 'failed', 'result': {}, 'error': 'gone', 'fatal': True}))"
    )
    one = Watched(os.environ, (sys.executable, "-c", script))
    reply = one.run(fault("x"), time.monotonic() + SOON)
    one.close()
    assert (reply.status, reply.at, reply.error) == (CRASHED, "x", "gone")


def test_a_falling_clock_is_flagged() -> None:
    lines = ["1980, 650.1, 60", "1980, 640, 61", "[N/A], 1, 2", "1900, 600, 62", "nonsense"]
    readings = [sampler.parse_line(line, float(at)) for at, line in enumerate(lines)]
    readings = [r for r in readings if r is not None]
    assert [r.sm_mhz for r in readings] == [1980, 1980, 1900]
    steady = sampler.summarize(readings, 0.0, 1.5)
    assert (steady.sm_mhz, steady.flagged) == (1980, False)
    falling = sampler.summarize([sampler.Reading(-1.0, 345, 90, 40), *readings], -1.0, 9.0)
    assert (falling.sm_mhz_low, falling.celsius, falling.flagged) == (1900, 62, True)
    assert sampler.summarize(readings, 20.0, 30.0) is None


@pytest.fixture
def fake_smi(tmp_path, monkeypatch) -> None:
    """A program that answers like nvidia-smi, on a machine without one."""
    script = tmp_path / "nvidia-smi"
    script.write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        f"*-lms*{sampler.PERIOD_MS}*) while :; do echo '1980, 650.5, 61'; sleep 0.05; done;;\n"
        "*driver_version*) echo 580.1;;\n"
        "*) exit 1;;\n"
        "esac\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")


def test_the_clock_is_read_while_others_work(fake_smi) -> None:
    start = time.monotonic()
    with sampler.Sampler() as reader:
        while len(reader.readings) < 3 and time.monotonic() < start + SOON:
            time.sleep(0.02)
        process = reader._process
    load = reader.load(start, time.monotonic())
    assert (load.sm_mhz, load.power_w, load.celsius) == (1980, 650.5, 61)
    assert process.poll() is not None
    state = environment.smi_state()
    assert state["driver_version"] == "580.1"
    assert state["power.limit"] == ""  # what this version does not know is left out


def test_without_nvidia_smi_the_clock_is_unknown(monkeypatch) -> None:
    monkeypatch.setenv("PATH", "")
    with sampler.Sampler() as reader:
        assert reader.load(0.0, time.monotonic()) is None
    assert environment.smi_state() == {}
    assert environment.output_of("no-such-program") == ""


def test_a_build_that_fails_or_hangs_says_so(monkeypatch) -> None:
    def commands(*scripts: str) -> None:
        found = tuple((sys.executable, "-c", script) for script in scripts)
        monkeypatch.setattr(build, "attempts", lambda: found)

    commands("raise SystemExit('too old')", "print('fine')")
    assert build.build_native(SOON) == (True, "")
    commands("raise SystemExit('too old')", "import time; time.sleep(99)")
    start = time.monotonic()
    good, said = build.build_native(1.0)
    assert time.monotonic() < start + 20
    assert not good
    assert "too old" in said
    assert "not done" in said
